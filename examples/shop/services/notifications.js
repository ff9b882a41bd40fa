// Tells customers what became of their orders; nothing leaves the shop.
"use strict";
const { Problem, database, serve } = require("./web.js");

const db = database("notifications");

async function send(_args, body) {
  if (!body || !body.to) throw new Problem(400, 'write {"to": …, "text": …}');
  const rows = await db.all(
    "INSERT INTO messages (recipient, text) VALUES (?, ?) RETURNING id", body.to, body.text || "",
  );
  return { id: rows[0].id, sent: true };
}

db.all("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, recipient TEXT, text TEXT)").then(() =>
  serve("notifications", "v1", {
    "POST /messages": send,
    "GET /messages": () => db.all("SELECT id, recipient, text FROM messages ORDER BY id DESC LIMIT 20"),
  }),
);
