"""Envoy's admin interface over its Unix socket: a few lines of HTTP/1.1, no library in the agent for it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weft.errors import WeftError

_TARGET: Final = re.compile(r"/[!-~]*")
_BODY_MAX: Final = 256 * 1024 * 1024


class AdminError(WeftError):
    """Envoy's admin interface did not answer, or refused."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the admin interface answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


async def ask(
    socket: Path, path: str, *, method: str = "GET", timeout: float = 5.0, limit: int = _BODY_MAX
) -> Reply:
    """Send one request, as ``/ready`` or (POST) ``/logging?level=debug``.

    ``timeout`` is in seconds, ``limit`` in bytes of the answer.

    Raises:
        AdminError: when nobody listens, the time is over, or the answer is no HTTP.
    """
    if not _TARGET.fullmatch(path) or not method.isalpha():
        # Spaces and line ends would make a second request of it.
        raise AdminError(f"{method} {path!r} is no request", hint="as GET /stats?filter=http")
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(socket, path, method, limit)
    except (OSError, TimeoutError, ValueError, EOFError) as error:
        raise AdminError(
            f"the proxy does not answer on {socket}: {error or 'no answer in time'}",
            hint="see its log with 'weft logs NAME --proxy'",
        ) from error


async def _exchange(socket: Path, path: str, method: str, limit: int) -> Reply:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
    try:
        lines = (f"{method} {path} HTTP/1.1", "host: admin", "connection: close", "content-length: 0", "", "")
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
        if headers.get("transfer-encoding") == "chunked":
            return Reply(status, await _chunks(reader, limit))
        if "content-length" in headers:
            if (size := int(headers["content-length"])) > limit:
                raise ValueError(f"the answer is larger than {limit} bytes")
            return Reply(status, await reader.readexactly(size))
        return Reply(status, await reader.read(limit))
    finally:
        writer.close()


async def _chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        if len(body) + size > limit:
            raise ValueError(f"the answer is larger than {limit} bytes")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
