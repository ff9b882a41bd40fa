"""What was changed in the configuration lately, and by whom: ``GET /weft/v1/telemetry/changes``.

It is read from the end of the audit log, so that it survives restarts and costs nothing while nobody asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.chain import files
from weft.model.catalog import WEFT
from weft.units import parse_duration

_TAIL_BYTES: Final = 4 << 20
_USUAL: Final = timedelta(hours=1)
_LIMIT: Final = 100
_MOST: Final = 1_000
_ITSELF: Final = "weft"


class Changes:
    """``log`` is the audit log; of more than its last 4 MiB nothing is told."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def routes(self) -> list[Route]:
        """For the API's application, before telemetry's own."""
        return [Route("/weft/v1/telemetry/changes", self._answer, methods=["GET"])]

    async def _answer(self, request: Request) -> Response:
        access: Access = request.state.access
        try:
            await access.require(Ask(verb="get", group=WEFT, resource="telemetry"))
        except ApiError as refusal:
            return reply(refusal.body(), refusal.code)
        asked = request.query_params
        try:
            since = parse_duration(asked["since"]) if "since" in asked else _USUAL
            limit = min(_MOST, max(1, int(asked.get("limit", _LIMIT))))
        except ValueError as error:
            flaw = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400}
            return JSONResponse({**flaw, "message": f"since, limit: {error}"}, 400)
        now = round(time.time() * 1000)
        begin = now - round(since.total_seconds() * 1000)
        found = await asyncio.to_thread(recent, self._log, begin, limit)
        return JSONResponse({"from": begin, "to": now, "changes": found})


def recent(log: Path, begin: int, limit: int) -> list[dict[str, Any]]:
    """Changes since ``begin`` (ms since the epoch), the newest first; not those that weft makes itself."""
    found: list[dict[str, Any]] = []
    for line in _newest_first(log):
        then = round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
        if then < begin or len(found) == limit:
            break
        if line.get("event") == "change" and line.get("actor") != _ITSELF:
            group, _, kind = str(line["kind"]).rpartition("/")
            found.append(
                {
                    "time": then,
                    "who": line.get("actor", ""),
                    "verb": line["verb"],
                    "kind": kind,
                    "group": group,
                    "namespace": line.get("namespace", ""),
                    "name": line.get("name", ""),
                    "revision": line.get("revision"),
                }
            )
    return found


def _newest_first(log: Path) -> Iterator[dict[str, Any]]:
    left = _TAIL_BYTES
    for path in reversed(files(log)):
        text = _tail(path, left)
        left -= len(text)
        lines = text.split(b"\n")
        # The first may be cut, the last is not yet written to its end.
        for line in reversed(lines[1:-1] if left <= 0 else lines[:-1]):
            try:
                yield json.loads(line)
            except ValueError:
                continue
        if left <= 0:
            return


def _tail(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            return file.read(most)
    except OSError:
        return b""  # it was put aside this moment
