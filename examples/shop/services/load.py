"""Customers for a shop that has none: browses and orders through the gateway at a steady rate.

``python load.py URL [--rate 5] [--seconds 60]``: at most RATE requests a second,
a line of sums every ten seconds.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import random
import signal
import threading
import time
from urllib.parse import urlsplit

USERS = ["ada", "jason", "mei", "luca", "noor", "sofia", "tom", "zofia"]
PRODUCTS = [
    "moka-3",
    "beans-house",
    "grinder",
    "sencha",
    "teapot",
    "mug-blue",
    "honey",
    "granola",
    "book-tea",
]


class Load:
    """Sends until told to stop; counts answers by status."""

    def __init__(self, url: str, rate: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._rate = min(max(rate, 0.1), 1000.0)
        self.counts: collections.Counter[str] = collections.Counter()
        self.stop = threading.Event()

    def run(self, seconds: float | None) -> None:
        """Send on one connection, paced."""
        end = time.monotonic() + seconds if seconds else None
        said = due = time.monotonic()
        while not self.stop.is_set() and (end is None or time.monotonic() < end):
            self.counts[self._one()] += 1
            due = max(due + 1 / self._rate, time.monotonic() - 1)
            self.stop.wait(max(0.0, due - time.monotonic()))
            if time.monotonic() - said >= 10:
                said = time.monotonic()
                print(dict(sorted(self.counts.items())), flush=True)

    def _one(self) -> str:
        user = random.choice(USERS)
        headers = {"cookie": f"user={user}", "user-agent": "shop-load"}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=15)
        try:
            if random.random() < 0.4:
                items = {key: random.randint(1, 2) for key in random.sample(PRODUCTS, random.randint(1, 2))}
                body = json.dumps({"user": user, "items": items})
                connection.request(
                    "POST", "/api/orders", body, {**headers, "content-type": "application/json"}
                )
            else:
                path = random.choice(["/", "/", "/api/products", f"/api/recommendations/{user}"])
                connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return str(answer.status)


def main() -> None:
    """Parse the command line and send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args()
    load = Load(arguments.url, arguments.rate)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: load.stop.set())
    load.run(arguments.seconds)
    print(dict(sorted(load.counts.items())), flush=True)


if __name__ == "__main__":
    main()
