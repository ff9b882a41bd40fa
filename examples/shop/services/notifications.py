"""Tells customers. Stands in for notifications.js where there is no Node."""

from __future__ import annotations

from typing import Any

from web import Database, Failure, Request, Service

SCHEMA = "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, recipient TEXT, text TEXT)"

service = Service("notifications")
database = Database("notifications", SCHEMA)


@service.route("POST", "/messages")
def send(request: Request) -> dict[str, Any]:
    """Keep ``{"to", "text"}``; nothing leaves the shop."""
    if not isinstance(request.body, dict) or not request.body.get("to"):
        raise Failure(400, 'write {"to": …, "text": …}')
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO messages (recipient, text) VALUES (?, ?)",
            (request.body["to"], request.body.get("text", "")),
        )
    return {"id": row.lastrowid, "sent": True}


@service.route("GET", "/messages")
def messages(_request: Request) -> list[dict[str, Any]]:
    """The latest."""
    return database.all("SELECT id, recipient, text FROM messages ORDER BY id DESC LIMIT 20")


if __name__ == "__main__":
    service.run()
