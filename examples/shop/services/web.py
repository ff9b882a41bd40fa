"""What the Python services share: a JSON service on the standard library, calls to others, a database.

Nothing here knows of a mesh. As every traced application does, a service hands the tracing headers of the
request it serves on to those it makes.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HANDED_ON = ("x-request-id", "traceparent", "tracestate", "b3", "baggage", "cookie", "x-shop-user")
HANDED_ON_PREFIXES = ("x-b3-", "x-ot-")
# Where the others are; tests set SHOP_URLS, everybody else has names.
URLS: dict[str, str] = json.loads(os.environ.get("SHOP_URLS", "{}"))


class Failure(Exception):  # noqa: N818 - it is an answer
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Request:
    """A request. ``headers`` have lower-case names; ``trail`` collects who answered on the way."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    trail: list[dict[str, Any]] = field(default_factory=list)

    def cookie(self, name: str) -> str:
        """A cookie's value, or nothing."""
        found = re.search(rf"(?:^|;\s*){re.escape(name)}=([^;]*)", self.headers.get("cookie", ""))
        return found[1] if found else ""

    def call(
        self, service: str, path: str, body: Any = None, *, method: str | None = None, timeout: float = 10
    ) -> Any:
        """Ask another service; its JSON.

        Raises:
            Failure: 502 when it answers with an error or not at all.
        """
        base = URLS.get(service, f"http://{service}:8080")
        headers = {name: value for name, value in self.headers.items() if _handed_on(name)}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        request = urllib.request.Request(
            base + path, data, headers, method=method or ("POST" if data else "GET")
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                self.trail.append({"service": service, "by": answer.headers.get("x-served-by", service)})
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(4096).decode(errors="replace")
            try:
                message = str(json.loads(text)["error"])
            except (ValueError, KeyError, TypeError):
                message = text.strip() or error.reason
            self.trail.append({"service": service, "status": error.code})
            status = error.code if error.code < 500 else 502
            raise Failure(status, f"{service}: {message} ({error.code})") from error
        except OSError as error:
            raise Failure(502, f"{service} cannot be reached: {error}") from error


def _handed_on(name: str) -> bool:
    return name in HANDED_ON or name.startswith(HANDED_ON_PREFIXES)


@dataclass
class Answer:
    """An answer that is no plain JSON success."""

    body: Any
    status: int = 200
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[..., Any]


class Service:
    """Handlers by method and path; ``{name}`` in a path is an argument."""

    def __init__(self, name: str, version: str = "v1") -> None:
        self.name = name
        self.version = os.environ.get("VERSION", version)
        self.served_by = os.environ.get("HOSTNAME") or f"{name}-{self.version}"
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self.route("GET", "/healthz")(lambda _request: {"status": "ok"})

    def route(self, method: str, path: str) -> Callable[[Handler], Handler]:
        """Serve ``path``."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

        def add(handler: Handler) -> Handler:
            self._routes.append((method, pattern, handler))
            return handler

        return add

    def answer(self, request: Request) -> Answer:
        """Find the handler and let it answer."""
        known = False
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(request.path):
                known = True
                if method == request.method:
                    try:
                        found = handler(request, **match.groupdict())
                    except Failure as problem:
                        return Answer({"error": problem.message}, problem.status)
                    return found if isinstance(found, Answer) else Answer(found)
        return Answer({"error": "method not allowed" if known else "not found"}, 405 if known else 404)

    def run(self) -> None:
        """Serve until SIGTERM; requests under way are finished."""
        host, port = os.environ.get("HOST", ""), int(os.environ.get("PORT", "8080"))
        server = _Server((host, port), _handler(self))
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"{self.name} {self.version} listens on {server.server_address[1]}", flush=True)
        server.serve_forever(poll_interval=0.1)
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Serve(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes: Nagle holds the second back for the peer's delayed acknowledgement.
        disable_nagle_algorithm = True
        # Idle connections end, so that the process can.
        timeout = 60

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(length)
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                body = json.loads(data) if data else None
            except ValueError:
                return self._send(Answer({"error": "the body is no JSON"}, 400))
            request = Request(self.command, url.path, query, headers, body)
            try:
                answer = service.answer(request)
            except Exception as error:
                print(f"{service.name}: {self.command} {self.path}: {error!r}", file=sys.stderr, flush=True)
                answer = Answer({"error": "internal error"}, 500)
            return self._send(answer)

        def _send(self, answer: Answer) -> None:
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            body = text.encode()
            self.send_response(answer.status)
            self.send_header("content-type", f"{answer.type}; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-served-by", service.served_by)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = _serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: the sidecar writes the access log."""

    return Serve


class Database:
    """A SQLite file of the service's own; a new one is filled with ``rows`` by ``fill``."""

    def __init__(
        self, name: str, schema: str, fill: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        if given := os.environ.get("SHOP_DATA"):
            folder = Path(given)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix=f"shop-{name}-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._connection = sqlite3.connect(
            folder / f"{name}.sqlite", check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._lock = threading.Lock()
        new = not self.all("SELECT name FROM sqlite_master WHERE type = 'table'")
        self._connection.executescript(schema)
        if new and fill is not None:
            with self.transaction() as connection:
                fill(connection)

    def all(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(sql, arguments)]

    def one(self, sql: str, *arguments: Any) -> dict[str, Any] | None:
        """The first row, or None."""
        rows = self.all(sql, *arguments)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
