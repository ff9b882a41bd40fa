"""Takes orders: checks the customer, prices the items, reserves, charges, tells the customer."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from web import Answer, Database, Failure, Request, Service

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, user TEXT, cents INTEGER, placed TEXT DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS items ("order" TEXT, product TEXT, quantity INTEGER, cents INTEGER);
"""

service = Service("orders")
database = Database("orders", SCHEMA)


@service.route("POST", "/orders")
def place(request: Request) -> Answer:
    """Place ``{"user", "items": {product: quantity}}``. If the charge fails, the reservation is undone."""
    body = request.body
    if not isinstance(body, dict) or not isinstance(body.get("items"), dict) or not body["items"]:
        raise Failure(400, 'write {"user": …, "items": {product: quantity}}')
    if not all(isinstance(quantity, int) and quantity > 0 for quantity in body["items"].values()):
        raise Failure(400, "a quantity is a whole number above zero")
    user = request.call("users", f"/users/{body['user']}")
    prices = {key: request.call("catalog", f"/products/{key}")["cents"] for key in body["items"]}
    key = f"o-{uuid.uuid4().hex[:12]}"
    cents = sum(prices[product] * quantity for product, quantity in body["items"].items())
    request.call("inventory", "/reservations", {"id": key, "items": body["items"]})
    try:
        request.call("payments", "/charges", {"id": key, "user": user["id"], "cents": cents})
    except Failure:
        with contextlib.suppress(Failure):
            request.call("inventory", f"/reservations/{key}", method="DELETE")
        raise
    with database.transaction() as connection:
        connection.execute("INSERT INTO orders (id, user, cents) VALUES (?, ?, ?)", (key, user["id"], cents))
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?)",
            [(key, product, quantity, prices[product]) for product, quantity in body["items"].items()],
        )
    with contextlib.suppress(Failure):  # an order does not fail because a mail does
        request.call(
            "notifications", "/messages", {"to": user["email"], "text": f"Your order {key} is on its way"}
        )
    return Answer({"id": key, "user": user["id"], "cents": cents, "trail": request.trail}, 201)


@service.route("GET", "/orders")
def orders(request: Request) -> list[dict[str, Any]]:
    """The latest, of one customer or of all."""
    if user := request.query.get("user"):
        return database.all("SELECT * FROM orders WHERE user = ? ORDER BY rowid DESC LIMIT 20", user)
    return database.all("SELECT * FROM orders ORDER BY rowid DESC LIMIT 20")


if __name__ == "__main__":
    service.run()
