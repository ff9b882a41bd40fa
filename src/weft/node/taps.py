"""Proxies of this node that tell of more requests than usual, as somebody watches; never longer than asked.

The share is a value in the runtime of the Envoy, in the unit of the filter that reads it: millionths. The
control plane has it held for some seconds at a time; when it says no more, whatever became of it, the agent
puts the share back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from weft.errors import WeftError
from weft.names import TAP_SHARE
from weft.node.admin import Reply
from weft.node.inquiry import Ask, Message

log = logging.getLogger(__name__)

LONGEST_S: Final = 60.0
WHOLE: Final = 1_000_000
_CHANGE: Final = "/runtime_modify?"
PUT_BACK: Final = f"{_CHANGE}{TAP_SHARE}="


class Taps:
    """``ask`` reaches the Envoys of this node."""

    def __init__(self, ask: Ask, longest_s: float = LONGEST_S) -> None:
        self._ask = ask
        self._longest_s = longest_s
        self._held: dict[str, asyncio.Task[None]] = {}
        # What is asked of an Envoy comes to it in the order in which it was said.
        self._orders: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def hold(self, workload: str, share: int, seconds: float) -> Reply:
        """Have a proxy tell of ``share`` millionths for so long; 0 puts it back at once.

        Raises:
            WeftError: it does not run here, or its Envoy does not answer.
        """
        async with self._orders[workload]:
            if timer := self._held.pop(workload, None):
                timer.cancel()
            share = max(0, min(share, WHOLE))
            if not share:
                return await self._ask(workload, "POST", PUT_BACK)
            # Before it is asked: an answer that is lost must not leave it standing.
            self._held[workload] = asyncio.create_task(
                self._end(workload, min(seconds, self._longest_s)), name=f"tap of {workload}"
            )
            return await self._ask(workload, "POST", f"{_CHANGE}{TAP_SHARE}={share}")

    async def close(self) -> None:
        """Put everything back."""
        for workload in tuple(self._held):
            await self._restore(workload)

    async def _end(self, workload: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._orders[workload]:
            del self._held[workload]
            await self._put_back(workload)

    async def _restore(self, workload: str) -> None:
        async with self._orders[workload]:
            if timer := self._held.pop(workload, None):
                timer.cancel()
                await self._put_back(workload)

    async def _put_back(self, workload: str) -> None:
        try:
            await self._ask(workload, "POST", PUT_BACK)
        except WeftError as error:
            # An Envoy that is gone took the value with it.
            log.info("the tap of %s cannot be put back: %s", workload, error)


async def hold(message: Message, taps: Taps | None, send: Callable[[Message], Awaitable[None]]) -> None:
    """Do what a ``tap`` message says, and answer it as ``admin`` is answered."""
    about = {"type": "admin", "id": message.get("id")}
    try:
        if taps is None:
            raise WeftError("this node runs no proxies")
        reply = await taps.hold(str(message.get("workload") or ""), *_numbers(message))
    except WeftError as error:
        await send({**about, "error": error.message})
        return
    await send({**about, "body": reply.body.decode(errors="replace"), "status": reply.status})


def _numbers(message: Message) -> tuple[int, float]:
    share: Any = message.get("share")
    seconds: Any = message.get("seconds")
    if not isinstance(share, int) or not isinstance(seconds, int | float):
        raise WeftError("a tap has a share and seconds")
    return share, float(seconds)
