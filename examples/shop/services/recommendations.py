"""What goes well together. v1 knows the sections; v2 (in Node: recommendations.js) knows what people buy."""

from __future__ import annotations

import sqlite3
from typing import Any

from web import Database, Request, Service

SCHEMA = "CREATE TABLE IF NOT EXISTS picks (section TEXT, product TEXT, rank INTEGER)"
PICKS = {
    "Coffee": ["beans-house", "biscotti", "mug-blue", "book-coffee"],
    "Tea": ["sencha", "honey", "mug-moss", "book-tea"],
    "Table": ["tray", "spoons", "linen", "jug"],
    "Pantry": ["granola", "jam", "cocoa", "shortbread"],
    "Books": ["book-tea", "book-coffee", "kettle", "gaiwan"],
}


def fill(connection: sqlite3.Connection) -> None:
    """The picks by section."""
    rows = [(section, key, rank) for section, keys in PICKS.items() for rank, key in enumerate(keys)]
    connection.executemany("INSERT INTO picks VALUES (?, ?, ?)", rows)


service = Service("recommendations")
database = Database(f"recommendations-{service.version}", SCHEMA, fill)


@service.route("GET", "/recommendations/{user}")
def recommendations(_request: Request, user: str) -> dict[str, Any]:
    """Four products for a customer: the section follows from the name, the order from the rank."""
    sections = sorted(PICKS)
    section = sections[sum(user.encode()) % len(sections)]
    rows = database.all("SELECT product FROM picks WHERE section = ? ORDER BY rank", section)
    picks = [row["product"] for row in rows]
    if service.version == "v2":
        picks.reverse()
    return {"version": service.version, "because": f"you like {section.lower()}", "products": picks}


if __name__ == "__main__":
    service.run()
