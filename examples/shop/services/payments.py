"""Takes the money. With ``FAILURE_RATE=0.3`` three in ten requests fail before anything is charged."""

from __future__ import annotations

import os
import random
from typing import Any

from web import Database, Failure, Request, Service

SCHEMA = "CREATE TABLE IF NOT EXISTS charges (id TEXT PRIMARY KEY, user TEXT, cents INTEGER)"
FAILURE_RATE = float(os.environ.get("FAILURE_RATE", "0"))

service = Service("payments")
database = Database("payments", SCHEMA)


@service.route("POST", "/charges")
def charge(request: Request) -> dict[str, Any]:
    """Charge ``{"id", "user", "cents"}`` once, however often it is asked."""
    if random.random() < FAILURE_RATE:
        raise Failure(500, "the bank does not answer")
    body = request.body
    if not isinstance(body["cents"], int) or body["cents"] <= 0:
        raise Failure(400, "there is nothing to charge")
    with database.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO charges VALUES (?, ?, ?)", (body["id"], body["user"], body["cents"])
        )
    return {"id": body["id"], "charged": body["cents"], "by": service.served_by}


@service.route("GET", "/charges")
def charges(_request: Request) -> dict[str, Any]:
    """The sum of all."""
    return database.one("SELECT count(*) AS count, coalesce(sum(cents), 0) AS cents FROM charges") or {}


if __name__ == "__main__":
    service.run()
