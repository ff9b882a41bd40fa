"""Answers the control plane's questions to the Envoys of this node (docs/reference/node-protocol.md)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from weft.errors import WeftError
from weft.node.admin import Reply

Message = dict[str, Any]
Ask = Callable[[str, str, str], Awaitable[Reply]]
"""Asks the Envoy of a workload (``namespace/name``, method, path).

Raises:
    WeftError: it does not run here, or does not answer.
"""
Look = Callable[[str], Awaitable[list[dict[str, Any]]]]
"""What the workloads of a namespace use, or of all (metrics/meter.py)."""
Show = Callable[[], Awaitable[str]]
"""The node's own series, in Prometheus' text (metrics/scrape.py)."""

# A long answer goes in parts, so that heartbeats pass between them and no message is too large.
PART_CHARACTERS: Final = 1 << 20


async def reply_to(message: Message, ask: Ask | None, send: Callable[[Message], Awaitable[None]]) -> None:
    """Ask what ``message`` says and send what was answered; the last part bears the status."""
    about = {"type": "admin", "id": message.get("id")}
    try:
        if ask is None:
            raise WeftError("this node runs no proxies")
        workload, method, path = (str(message.get(key) or "") for key in ("workload", "method", "path"))
        reply = await ask(workload, method, path)
    except WeftError as error:
        await send({**about, "error": error.message})
        return
    await _send_parts(about, reply.body.decode(errors="replace"), reply.status, send)


async def reply_usage(
    message: Message, look: Look | None, send: Callable[[Message], Awaitable[None]]
) -> None:
    """Tell what workloads use, as ``admin`` is answered."""
    about = {"type": "admin", "id": message.get("id")}
    if look is None:
        await send({**about, "error": "this node measures nothing"})
        return
    rows = await look(str(message.get("namespace") or ""))
    await _send_parts(about, json.dumps(rows), 200, send)


async def reply_series(
    message: Message, show: Show | None, send: Callable[[Message], Awaitable[None]]
) -> None:
    """Tell what the node shows of itself, as ``admin`` is answered."""
    about = {"type": "admin", "id": message.get("id")}
    if show is None:
        await send({**about, "error": "this node shows nothing"})
    else:
        await _send_parts(about, await show(), 200, send)


async def _send_parts(
    about: Message, body: str, status: int, send: Callable[[Message], Awaitable[None]]
) -> None:
    while len(body) > PART_CHARACTERS:
        await send({**about, "body": body[:PART_CHARACTERS]})
        body = body[PART_CHARACTERS:]
    await send({**about, "body": body, "status": status})
