"""How many of each are in stock; reserves for orders, all or nothing."""

from __future__ import annotations

from typing import Any

from web import Database, Failure, Request, Service

SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, quantity INTEGER NOT NULL CHECK (quantity >= 0));
CREATE TABLE IF NOT EXISTS reservations (id TEXT, product TEXT, quantity INTEGER, PRIMARY KEY (id, product));
"""
FULL = 500

service = Service("inventory")
database = Database("inventory", SCHEMA)


def _left(product: str) -> int:
    row = database.one("SELECT quantity FROM stock WHERE product = ?", product)
    return int(row["quantity"]) if row else FULL


@service.route("GET", "/stock/{product}")
def stock(_request: Request, product: str) -> dict[str, Any]:
    """What is left."""
    return {"product": product, "quantity": _left(product)}


@service.route("POST", "/reservations")
def reserve(request: Request) -> dict[str, Any]:
    """Take ``{"id", "items": {product: quantity}}`` off the shelf; the same id again changes nothing."""
    key, items = str(request.body["id"]), dict(request.body["items"])
    refilled = []
    with database.transaction() as connection:
        if connection.execute("SELECT 1 FROM reservations WHERE id = ?", (key,)).fetchone():
            return {"id": key, "reserved": True, "refilled": refilled}
        for product, quantity in items.items():
            if not isinstance(quantity, int) or not 0 < quantity <= FULL:
                raise Failure(400, f"{quantity!r} is no quantity from 1 to {FULL}")
            row = connection.execute("SELECT quantity FROM stock WHERE product = ?", (product,)).fetchone()
            left = (row["quantity"] if row else FULL) - quantity
            if left < 0:
                # The demo never ends: the supplier delivers at once.
                left += FULL
                refilled.append(product)
            connection.execute("INSERT OR REPLACE INTO stock VALUES (?, ?)", (product, left))
            connection.execute("INSERT INTO reservations VALUES (?, ?, ?)", (key, product, quantity))
    return {"id": key, "reserved": True, "refilled": refilled}


@service.route("DELETE", "/reservations/{key}")
def release(_request: Request, key: str) -> dict[str, Any]:
    """Put it back."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT product, quantity FROM reservations WHERE id = ?", (key,)
        ).fetchall()
        for row in rows:
            connection.execute(
                "UPDATE stock SET quantity = quantity + ? WHERE product = ?",
                (row["quantity"], row["product"]),
            )
        connection.execute("DELETE FROM reservations WHERE id = ?", (key,))
    return {"id": key, "released": len(rows)}


if __name__ == "__main__":
    service.run()
