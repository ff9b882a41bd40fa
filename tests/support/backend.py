"""Plain servers that know of no mesh and keep what they were asked."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

Server = TypeVar("Server", bound=socketserver.BaseServer)


class HttpBackend(ThreadingHTTPServer):
    """Answers with its name and what it saw.

    ``?status=503`` chooses the status, ``?delay=0.2`` waits, ``?fail=2&key=x`` fails the first two
    requests with key x, ``?break=1&key=x`` breaks off instead, ``?held`` waits until ``gate`` is open.
    A WebSocket gets back what it sends. ``always`` is the status of every answer, whatever is asked;
    ``load`` goes with each as its report of load (ORCA). ``seen`` counts requests by path.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, name: str) -> None:
        self.name = name
        self.seen: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.always: int | None = None
        self.load = ""
        super().__init__((address, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment an answer: the default writes headers and body apart and waits for an ACK (Nagle).
    wbufsize = -1
    disable_nagle_algorithm = True
    server: HttpBackend

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("content-length") or 0)
        received = self.rfile.read(length)
        status = int(query.get("status", 200))
        with self.server.lock:
            self.server.seen[url.path] += 1
        if self.headers.get("upgrade") == "websocket":
            self._upgraded()
            return
        with self.server.lock:
            if "fail" in query or "break" in query:
                key = query.get("key", "")
                self.server.keys[key] += 1
                early = self.server.keys[key] <= int(query.get("fail") or query["break"])
                if early and "break" in query:
                    self.close_connection = True
                    return
                status = 503 if early else 200
        if "delay" in query:
            time.sleep(float(query["delay"]))
        if "held" in url.query:
            self.server.gate.wait(20)
        status = self.server.always or status
        body = json.dumps(
            {
                "name": self.server.name,
                "method": self.command,
                "path": self.path,
                "received": len(received),
                "headers": {key.lower(): value for key, value in self.headers.items()},
                "fields": [[key.lower(), value] for key, value in self.headers.items()],
            }
        ).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if self.server.load:
            self.send_header("endpoint-load-metrics", self.server.load)
        self.end_headers()
        self.wfile.write(body)

    def _upgraded(self) -> None:
        """Frames are of no interest here: all bytes go back."""
        self.send_response(101)
        self.send_header("connection", "Upgrade")
        self.send_header("upgrade", "websocket")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while data := self.rfile.read1(65536):
            self.wfile.write(data)
            self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"hello from " + self.server.greeting + b"\n")  # type: ignore[attr-defined]
        while data := self.request.recv(65536):
            self.request.sendall(data)


class TcpBackend(socketserver.ThreadingTCPServer):
    """Speaks first (its name), then sends back what it gets."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int, name: str) -> None:
        self.greeting = name.encode()
        super().__init__((address, port), _Echo)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run ``server`` in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
