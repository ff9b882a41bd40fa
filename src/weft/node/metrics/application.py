"""The series that applications show themselves: where they are said to be, and how they are fetched."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from weft.errors import UsageError, WeftError
from weft.node.probe import Target, connect

# Annotations that people have on what Prometheus shall scrape (Istio reads the same).
SCRAPE: Final = "prometheus.io/scrape"
PORT: Final = "prometheus.io/port"
PATH: Final = "prometheus.io/path"

_PATH_FORM: Final = re.compile(r"/[!-~]{0,1023}")
_PORT_MAX: Final = 65535


class ScrapeError(WeftError):
    """An application does not show series as it was said to."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """Where an application shows its series."""

    port: int
    path: str = "/metrics"

    def __post_init__(self) -> None:
        if not 0 < self.port <= _PORT_MAX:
            raise UsageError(f"port {self.port} of the application's series is not between 1 and {_PORT_MAX}")
        if not _PATH_FORM.fullmatch(self.path):
            raise UsageError(
                f"{self.path!r} is no path of the application's series", hint="as /metrics, without spaces"
            )

    @classmethod
    def of(cls, said: Mapping[str, str], ports: Mapping[str, int]) -> Self | None:
        """By annotations or labels; None unless they say ``true``. Without a port it is the first declared.

        Raises:
            UsageError: the port or the path is none.
        """
        if said.get(SCRAPE) != "true":
            return None
        text = said.get(PORT) or ""
        port = int(text) if text.isascii() and text.isdigit() else ports.get(text or next(iter(ports), ""))
        if port is None:
            raise UsageError(
                f"{PORT}: {text or 'nothing'!r} is no port of this workload",
                hint=f'write the number of the port with its series, as {PORT}: "9090"',
            )
        path = said.get(PATH) or "/metrics"
        return cls(port, path if path.startswith("/") else f"/{path}")

    @classmethod
    def parse(cls, record: object) -> Self | None:
        """Read the JSON form; None is none.

        Raises:
            UsageError: it is of no such form.
        """
        match record:
            case None:
                return None
            case {"port": int(port), "path": str(path)}:
                return cls(port, path)
        raise UsageError("scrape: expected a port (number) and a path (text)")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"port": self.port, "path": self.path}


async def fetch(scrape: Scrape, target: Target, *, limit: int) -> bytes:
    """Ask once; at most ``limit`` bytes. The caller limits the time.

    Raises:
        ScrapeError: the answer is no success, or too long.
        OSError: nobody listens.
        EOFError: it ends too early.
    """
    reader, writer = await connect(target, scrape.port)
    try:
        lines = (
            f"GET {scrape.path} HTTP/1.1",
            f"host: {target.address}:{scrape.port}",
            "accept: text/plain;version=0.0.4",
            "accept-encoding: identity",
            "user-agent: weft-node",
            "connection: close",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split()[1])
        except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise ScrapeError("its answer is no HTTP") from error
        if status != 200:
            raise ScrapeError(f"it answers {status}")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:])
        }
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await _chunks(reader, limit)
        if (said := headers.get("content-length", "")).isdigit():
            if int(said) > limit:
                raise ScrapeError(f"its answer is larger than {limit} bytes")
            return await reader.readexactly(int(said))
        return await _rest(reader, limit)
    finally:
        writer.close()


async def _chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    body = bytearray()
    try:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if size < 0 or len(body) + size > limit:
                raise ScrapeError(f"its answer is larger than {limit} bytes")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise ScrapeError("its answer is no HTTP") from error
    return bytes(body)


async def _rest(reader: asyncio.StreamReader, limit: int) -> bytes:
    body = bytearray()
    while part := await reader.read(1 << 16):
        body += part
        if len(body) > limit:
            raise ScrapeError(f"its answer is larger than {limit} bytes")
    return bytes(body)
