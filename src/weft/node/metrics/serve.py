"""The door for Prometheus: ``GET /metrics``, with ``?workload=NAMESPACE/NAME`` for one workload alone.

On a Unix socket and on a loopback address it is open: as open as the port on which each sidecar shows the
same. On any other it is TLS, and who comes shows a bearer token or a client certificate (``admission``).
A few lines of HTTP/1.1, no library in the agent for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from weft.errors import UsageError, WeftError
from weft.names import NODE_METRICS_PORT
from weft.node.metrics.admission import Admission, Unknown
from weft.node.metrics.exposition import CONTENT_TYPE, Page
from weft.node.metrics.scrape import Scraper

log = logging.getLogger(__name__)

# Istio's agents show theirs under the second.
_PATHS: Final = frozenset({"/metrics", "/stats/prometheus"})
_HEAD_MAX: Final = 16 * 1024
_HEAD_S: Final = 10.0
_IDLE_S: Final = 120.0
_WRITE_S: Final = 10.0
_SEND_S: Final = 60.0
_HANDSHAKE_S: Final = 5.0
_CONNECTIONS_MAX: Final = 64
_AT_ONCE: Final = 2
_LOOK_S: Final = 8.0
_TIMEOUT_HEADER: Final = "x-prometheus-scrape-timeout-seconds"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the door is."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """``ADDRESS:PORT``, ``:PORT`` (every address), ``ADDRESS`` or ``off``, which is None.

        Raises:
            UsageError: for another form.
        """
        if text == "off":
            return None
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, port = text, ""
        port = port or str(NODE_METRICS_PORT)
        host = host.strip("[]") or "0.0.0.0"
        try:
            return cls(str(ip_address(host)), int(port)) if 0 <= int(port) < 65536 else cls._bad(text)
        except ValueError:
            return cls._bad(text)

    @staticmethod
    def _bad(text: str) -> Place:
        raise UsageError(f"{text!r} is no place to show series at", hint="write ADDRESS:PORT, or off")

    @property
    def open(self) -> bool:
        """Whether only processes of this host come there."""
        return ip_address(self.host).is_loopback

    def url(self, address: str) -> str:
        """What Prometheus dials, of a host that others reach by ``address``."""
        host = address if ip_address(self.host).is_unspecified else self.host
        scheme = "http" if self.open else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"


def take(place: Place) -> tuple[socket.socket, Place]:
    """A listening socket, and where it is: at another port when that one is taken; discovery tells it.

    Raises:
        WeftError: the address is not this host's.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    for port in (place.port, 0):
        door = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((place.host, port))
        except OSError as error:
            door.close()
            if port == 0:
                raise WeftError(
                    f"cannot show series at {place.host}: {error.strerror}",
                    hint="is this an address of this host? see --metrics",
                ) from error
            log.warning("port %d is taken (%s): series are shown at another", port, error.strerror)
            continue
        door.setblocking(False)
        return door, Place(place.host, int(door.getsockname()[1]))
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Request:
    """What is needed of one."""

    method: str
    path: str
    workload: str
    headers: dict[str, str]
    keep: bool


class BadRequest(WeftError):  # noqa: N818 - a message, not a fault of ours
    """What came is no request that is understood here."""


def read_head(head: bytes) -> Request:
    """The head of a request, up to its empty line.

    Raises:
        BadRequest: it is none, or brings a body.
    """
    lines = head.decode("latin-1").split("\r\n")
    match lines[0].split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0" as version] if target.startswith("/"):
            pass
        case _:
            raise BadRequest("no request")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest("no header")
        name = name.lower()
        if name == "authorization" and name in headers:
            raise BadRequest("two authorizations")
        headers[name] = value.strip()
    if headers.get("transfer-encoding") or headers.get("content-length", "0") != "0":
        raise BadRequest("a body is not expected")
    parts = urlsplit(target)
    asked = parse_qs(parts.query, max_num_fields=8)
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Request(method, parts.path, asked.get("workload", [""])[0], headers, keep)


class Desk:
    """All connections of one door. Without an ``admission`` it is open."""

    def __init__(self, scraper: Scraper, admission: Admission | None) -> None:
        self._scraper = scraper
        self._admission = admission
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _CONNECTIONS_MAX:
            writer.close()
            return
        self._tasks.add(task)
        try:
            first = True
            while await self._serve(reader, writer, _HEAD_S if first else _IDLE_S):
                first = False
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ssl.SSLError):
            pass
        except Exception:
            log.exception("a scrape failed")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> bool:
        """One request; whether another may follow."""
        async with asyncio.timeout(patience):
            head = await reader.readuntil(b"\r\n\r\n")
        try:
            request = read_head(head)
        except (BadRequest, ValueError):
            await _say(writer, 400, "this is no request that is understood here", keep=False)
            return False
        if self._admission is not None:
            try:
                admitted = await self._admission.admits(
                    request.headers.get("authorization"), _certificate(writer)
                )
            except Unknown as error:
                await _say(writer, 503, error.message, keep=False)
                return False
            if not admitted:
                more = ("www-authenticate: Bearer",)
                await _say(writer, 401, "show a token for monitoring: weft user create", more, keep=False)
                return False
        if request.path not in _PATHS:
            await _say(writer, 404, "series are at /metrics", keep=request.keep)
        elif request.method != "GET":
            await _say(writer, 405, "series are only read", ("allow: GET",), keep=False)
            return False
        else:
            await self._show(writer, request)
        return request.keep

    async def _show(self, writer: asyncio.StreamWriter, request: Request) -> None:
        async with self._places:
            try:
                page = await self._scraper.look(request.workload, seconds=_patience(request))
            except LookupError:
                await _say(writer, 404, f"no workload {request.workload!r} runs here", keep=request.keep)
                return
            zipped = "gzip" in request.headers.get("accept-encoding", "") and self._admission is not None
            # Who takes no bytes is cut off, and its page with it.
            async with asyncio.timeout(_SEND_S):
                await _send(writer, page, zipped=zipped, keep=request.keep)


def _patience(request: Request) -> float:
    """Prometheus says how long it waits; an answer that is late is none."""
    try:
        said = float(request.headers.get(_TIMEOUT_HEADER, "")) * 0.8
    except ValueError:
        return _LOOK_S
    return min(max(said, 0.3), 30.0) if said == said else _LOOK_S


def _certificate(writer: asyncio.StreamWriter) -> str | None:
    found = writer.get_extra_info("ssl_object")
    der = found.getpeercert(binary_form=True) if found is not None else None
    return ssl.DER_cert_to_PEM_cert(der) if der else None


_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def _head(status: int, keep: bool, *headers: str) -> bytes:
    connection = "keep-alive" if keep else "close"
    lines = (f"HTTP/1.1 {status} {_REASONS[status]}", f"connection: {connection}", *headers, "", "")
    return "\r\n".join(lines).encode()


async def _say(
    writer: asyncio.StreamWriter, status: int, text: str, headers: tuple[str, ...] = (), *, keep: bool
) -> None:
    body = f"{text}\n".encode()
    about = ("content-type: text/plain; charset=utf-8", f"content-length: {len(body)}", *headers)
    writer.write(_head(status, keep, *about) + body)
    async with asyncio.timeout(_WRITE_S):
        await writer.drain()


async def _send(writer: asyncio.StreamWriter, page: Page, *, zipped: bool, keep: bool) -> None:
    encoding = ("content-encoding: gzip",) if zipped else ()
    about = (f"content-type: {CONTENT_TYPE}", "transfer-encoding: chunked", *encoding)
    writer.write(_head(200, keep, *about))
    for part in _zipped(page.chunks()) if zipped else page.chunks():
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _zipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    """By gzip (RFC 1952), fast rather than small."""
    packer = zlib.compressobj(1, wbits=31)
    for part in parts:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()


@contextlib.asynccontextmanager
async def serve(
    scraper: Scraper,
    path: Path,
    door: tuple[socket.socket, Place] | None = None,
    admission: Admission | None = None,
    context: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncIterator[None]:
    """Show series on a Unix socket (0600), and at ``door`` if there is one, while the context lasts.

    A door that is not on a loopback address needs ``admission`` and the ``context`` of its TLS.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        inside = Desk(scraper, None)
        servers = [await asyncio.start_unix_server(inside.attend, str(path), limit=_HEAD_MAX)]
    finally:
        os.umask(before)
    desks = [inside]
    try:
        if door is not None:
            taken, place = door
            desk = Desk(scraper, None if place.open else admission)
            desks.append(desk)
            if place.open:
                server = await asyncio.start_server(desk.attend, sock=taken, limit=_HEAD_MAX)
            else:
                assert admission is not None
                assert context is not None
                server = await asyncio.start_server(
                    desk.attend,
                    sock=taken,
                    limit=_HEAD_MAX,
                    ssl=context(),
                    ssl_handshake_timeout=_HANDSHAKE_S,
                )
            servers.append(server)
        yield
    finally:
        for server in servers:
            server.close()
        for desk in desks:
            await desk.close()
        path.unlink(missing_ok=True)
