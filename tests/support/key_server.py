"""An issuer's server for tests, which may be told to misbehave."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class IssuerServer(ThreadingHTTPServer):
    """Answers a path with ``answers[path]``: status, headers, body; 404 else. ``gate`` shut: not yet.

    ``asked`` counts requests by path.
    """

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        super().__init__((address, 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(
        self, path: str, body: str | bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answer so from now on."""
        self.answers[path] = (status, headers or {}, body.encode() if isinstance(body, str) else body)


class _Handler(BaseHTTPRequestHandler):
    server: IssuerServer

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.gate.wait(30)
        status, headers, body = self.server.answers.get(self.path, (404, {}, b"nothing here"))
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # who asked did not want all of it

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
