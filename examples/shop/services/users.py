"""Customers: who they are and where they live."""

from __future__ import annotations

import sqlite3
from typing import Any

from web import Database, Failure, Request, Service

SCHEMA = "CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, name TEXT, city TEXT, email TEXT, tier TEXT)"
PEOPLE = [
    ("ada", "Ada Okafor", "Lagos", "gold"),
    ("jason", "Jason Lindqvist", "Malmö", "silver"),
    ("mei", "Mei Tanaka", "Kyoto", "gold"),
    ("luca", "Luca Bianchi", "Bologna", "bronze"),
    ("noor", "Noor Rahman", "Dhaka", "silver"),
    ("sofia", "Sofía Herrera", "Valparaíso", "bronze"),
    ("tom", "Tom Whitaker", "Leeds", "silver"),
    ("zofia", "Zofia Kowalska", "Kraków", "gold"),
]


def fill(connection: sqlite3.Connection) -> None:
    """The first customers."""
    connection.executemany(
        "INSERT INTO users VALUES (?, ?, ?, ?, ?)",
        [(key, name, city, f"{key}@example.com", tier) for key, name, city, tier in PEOPLE],
    )


service = Service("users")
database = Database("users", SCHEMA, fill)


@service.route("GET", "/users")
def users(_request: Request) -> list[dict[str, Any]]:
    """Everybody."""
    return database.all("SELECT id, name, city, tier FROM users ORDER BY name")


@service.route("GET", "/users/{key}")
def user(_request: Request, key: str) -> dict[str, Any]:
    """One customer."""
    found = database.one("SELECT * FROM users WHERE id = ?", key)
    if found is None:
        raise Failure(404, f"nobody is called {key}")
    return found


if __name__ == "__main__":
    service.run()
