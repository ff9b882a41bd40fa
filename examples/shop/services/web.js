// What the Node services share: a JSON service on the standard library, and a database of its own.
// Nothing here knows of a mesh.
"use strict";
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");

/** An answer that is no success. */
class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Serve JSON. `routes` maps "METHOD /path/:name" to handlers (args, body) -> value or promise.
 */
function serve(name, version, routes) {
  const servedBy = process.env.HOSTNAME || `${name}-${version}`;
  const table = Object.entries({ "GET /healthz": () => ({ status: "ok" }), ...routes }).map(([key, handler]) => {
    const [method, pattern] = key.split(" ");
    return { method, parts: pattern.split("/"), handler };
  });
  const find = (method, pathname) => {
    const parts = pathname.split("/");
    for (const route of table) {
      if (route.method !== method || route.parts.length !== parts.length) continue;
      const args = {};
      const same = route.parts.every((part, i) => {
        if (part.startsWith(":")) args[part.slice(1)] = decodeURIComponent(parts[i]);
        return part.startsWith(":") || part === parts[i];
      });
      if (same) return { handler: route.handler, args };
    }
    throw new Problem(404, "not found");
  };
  const server = http.createServer(async (request, response) => {
    let status = 200;
    let value;
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      const route = find(request.method, new URL(request.url, "http://localhost").pathname);
      let body = null;
      try {
        body = text ? JSON.parse(text) : null;
      } catch {
        throw new Problem(400, "the body is no JSON");
      }
      value = await route.handler(route.args, body);
    } catch (error) {
      status = error.status || 500;
      value = { error: error.status ? error.message : "internal error" };
      if (!error.status) console.error(`${name}: ${request.method} ${request.url}:`, error);
    }
    const body = JSON.stringify(value);
    response.writeHead(status, {
      "content-type": "application/json; charset=utf-8",
      "content-length": Buffer.byteLength(body),
      "x-served-by": servedBy,
    });
    response.end(body);
  });
  server.keepAliveTimeout = 60_000;
  const port = Number(process.env.PORT || 8080);
  server.listen(port, process.env.HOST || "0.0.0.0", () => console.log(`${name} ${version} listens on ${port}`));
  const end = () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  };
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
}

/**
 * A SQLite file of the service's own: Node's own module where it has one (22.5 and later), else one
 * `sqlite3` process that is asked line by line.
 */
function database(name) {
  let folder = process.env.SHOP_DATA;
  if (folder) {
    fs.mkdirSync(folder, { recursive: true });
  } else {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), `shop-${name}-`));
    process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
  }
  const file = path.join(folder, `${name}.sqlite`);
  let builtin = null;
  try {
    builtin = require("node:sqlite");
  } catch {
    return new Shell(file);
  }
  const db = new builtin.DatabaseSync(file);
  return { all: async (sql, ...args) => db.prepare(sql).all(...args), close: () => db.close() };
}

/** The sqlite3 shell as a database: statements go in, JSON comes out, an end mark divides the answers. */
class Shell {
  constructor(file) {
    this.mark = `end-${process.pid}`;
    this.waiting = [];
    this.text = "";
    this.child = spawn("sqlite3", ["-batch", "-json", file], { stdio: ["pipe", "pipe", "pipe"] });
    this.child.on("error", (error) => {
      console.error(`sqlite3 cannot be started: ${error.message}`);
      process.exit(1);
    });
    this.child.stdout.on("data", (data) => this.read(String(data)));
    this.child.stderr.on("data", (data) => {
      this.error = (this.error || "") + data;
    });
  }

  read(data) {
    this.text += data;
    for (;;) {
      const at = this.text.indexOf(`${this.mark}\n`);
      if (at < 0) return;
      const answer = this.text.slice(0, at).trim();
      this.text = this.text.slice(at + this.mark.length + 1);
      const { resolve, reject } = this.waiting.shift();
      if (this.error) reject(new Error(this.error));
      else resolve(answer ? JSON.parse(answer) : []);
      this.error = undefined;
    }
  }

  all(sql, ...args) {
    const quoted = sql.replace(/\?/g, () => quote(args.shift()));
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.child.stdin.write(`${quoted.replace(/\s*\n\s*/g, " ")};\n.print ${this.mark}\n`);
    });
  }

  close() {
    this.child.stdin.end();
  }
}

/** A value as SQL: numbers as they are, text without line ends, quotes doubled. */
function quote(value) {
  if (typeof value === "number" && Number.isFinite(value)) return String(value);
  return `'${String(value ?? "").replace(/[\u0000-\u001f]/g, " ").replace(/'/g, "''")}'`;
}

module.exports = { Problem, database, serve };
