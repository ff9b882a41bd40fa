"""Questions to a node and to its Envoys, asked through its session (docs/reference/node-protocol.md)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

TIMEOUT_S: Final = 30.0
_TAP_S: Final = 10.0
_USAGE_S: Final = 3.0
# A configuration dump of a large mesh has some tens of megabytes.
_ANSWER_MAX: Final = 128 * 1024 * 1024


@dataclass(slots=True)
class _Inquiry:
    answer: asyncio.Future[tuple[int, bytes]]
    parts: list[str] = field(default_factory=list)
    size: int = 0


class Inquiries:
    """Those of one session. ``send`` queues a message for the node."""

    def __init__(self, send: Callable[[dict[str, Any]], None], timeout_s: float = TIMEOUT_S) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._open: dict[str, _Inquiry] = {}

    async def ask(self, workload: str, method: str, path: str) -> tuple[int, bytes]:
        """What the admin interface of a workload's Envoy answers: status and body.

        Raises:
            LookupError: the node does not run it, its Envoy does not answer, or the session has ended.
            TimeoutError: the node does not answer.
        """
        about = {"type": "admin", "workload": workload, "method": method, "path": path}
        return await self._answer(about, self._timeout_s)

    async def hold_tap(self, workload: str, share: int, seconds: float) -> None:
        """Have a workload's Envoy tell of ``share`` millionths of its requests for so long; 0 ends it.

        Raises:
            LookupError: the node does not run it, its Envoy does not do so, or the session has ended.
            TimeoutError: the node does not answer, as one that knows no taps.
        """
        about = {"type": "tap", "workload": workload, "share": share, "seconds": seconds}
        status, body = await self._answer(about, min(self._timeout_s, _TAP_S))
        if status != 200:
            raise LookupError(f"its proxy answers {status}: {body[:200].decode(errors='replace')}")

    async def usage(self, namespace: str) -> bytes:
        """What the workloads of a namespace, or of all, use on this node: a JSON list.

        Raises:
            LookupError: the node measures nothing, or the session has ended.
            TimeoutError: the node does not answer, as one that knows no such question.
        """
        about = {"type": "usage", "namespace": namespace}
        return (await self._answer(about, min(self._timeout_s, _USAGE_S)))[1]

    async def series(self) -> bytes:
        """What the node shows of itself and its host, in Prometheus' text, without its proxies' own series.

        Raises:
            LookupError: the node shows nothing, or the session has ended.
            TimeoutError: the node does not answer, as one that knows no such question.
        """
        return (await self._answer({"type": "series"}, min(self._timeout_s, _USAGE_S)))[1]

    async def _answer(self, about: dict[str, Any], timeout_s: float) -> tuple[int, bytes]:
        number = str(next(self._numbers))
        inquiry = self._open[number] = _Inquiry(asyncio.get_running_loop().create_future())
        try:
            self._send({**about, "id": number})
            async with asyncio.timeout(timeout_s):
                return await inquiry.answer
        finally:
            del self._open[number]

    def hear(self, message: dict[str, Any]) -> None:
        """A part of an answer, or why there is none; answers that nobody waits for any more are dropped."""
        inquiry = self._open.get(str(message.get("id")))
        if inquiry is None or inquiry.answer.done():
            return
        if error := message.get("error"):
            inquiry.answer.set_exception(LookupError(str(error)))
            return
        part, status = message.get("body"), message.get("status")
        if not isinstance(part, str) or not (status is None or isinstance(status, int)):
            inquiry.answer.set_exception(LookupError("the node's answer cannot be read"))
            return
        inquiry.parts.append(part)
        inquiry.size += len(part)
        if inquiry.size > _ANSWER_MAX:
            inquiry.answer.set_exception(LookupError("the answer is larger than 128 MiB"))
        elif status is not None:
            inquiry.answer.set_result((status, "".join(inquiry.parts).encode()))

    def close(self) -> None:
        """The session has ended."""
        for inquiry in self._open.values():
            if not inquiry.answer.done():
                inquiry.answer.set_exception(LookupError("its node went away"))
