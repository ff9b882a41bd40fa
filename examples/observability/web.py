"""A service that shows series of its own, on a port of their own, as many applications do."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

orders = {"book": 0, "tea": 0}
lock = threading.Lock()


class Shop(BaseHTTPRequestHandler):
    """Every request is an order; ``/?responseCode=503`` fails."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Sell something."""
        with lock:
            orders["tea" if "tea" in self.path else "book"] += 1
        body = b'{"sold": true}\n'
        self.send_response(503 if "responseCode=503" in self.path else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The sidecar logs requests."""


class Series(Shop):
    """What Prometheus is told."""

    def do_GET(self) -> None:
        """All series."""
        with lock:
            lines = [f'shop_orders_total{{item="{item}"}} {count}' for item, count in orders.items()]
        body = "\n".join(
            ["# HELP shop_orders_total What was sold.", "# TYPE shop_orders_total counter", *lines, ""]
        )
        self.send_response(200 if self.path == "/series" else 404)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    # Under weft up without root every workload has an address of its own, and HOST says which.
    host = os.environ.get("HOST", "")
    series = ThreadingHTTPServer((host, 9464), Series)
    threading.Thread(target=series.serve_forever, daemon=True).start()
    ThreadingHTTPServer((host, 8080), Shop).serve_forever()
