"""The node's socket, asked (docs/reference/node-socket.md): a JSON line out, a stream of JSON lines in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from weft.errors import WeftError

Event = dict[str, Any]

_LINE_MAX: Final = 16 << 20


class NodeSocket:
    """Each request is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def events(self, request: Mapping[str, Any]) -> AsyncGenerator[Event]:
        """What the node answers, until it closes.

        Raises:
            WeftError: the node refused, or is not there.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=_LINE_MAX)
        except OSError as error:
            raise WeftError(
                f"no node answers at {self.path}: {error.strerror}",
                hint="start one: weft up FILE… or weft node",
            ) from error
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            while line := await reader.readline():
                event: Event = json.loads(line)
                if event.get("event") == "error":
                    raise WeftError(str(event.get("message")), hint=str(event.get("hint") or ""))
                yield event
        except ConnectionError as error:
            raise WeftError("the node went away", hint="see its log") from error
        finally:
            writer.close()

    async def ask(self, request: Mapping[str, Any], *answers: str) -> Event:
        """The first event that is one of ``answers``; others, like progress, are passed over.

        Raises:
            WeftError: as ``events``, and when the node closes without an answer.
        """
        async with aclosing(self.events(request)) as events:
            async for event in events:
                if event.get("event") in answers:
                    return event
        raise WeftError("the node closed the connection without an answer", hint="see its log")
