"""Messages that were received and not yet read: queues, one for each sender, bounded in bytes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from weft.spiffe import SpiffeId
from weft.telemetry.limits import Losses

_log = logging.getLogger(__name__)

Handle = Callable[[bytes, SpiffeId], None]
"""Takes a serialised message and the identity of the proxy that sent it."""

# What a message costs beyond its bytes.
_OVERHEAD_BYTES: Final = 512
# The part of the room that one sender may fill.
_SHARE: Final = 4


class Intake:
    """``offer`` never waits; ``run`` hands messages on, one of each sender by turns.

    One identity may fill a quarter of ``most_bytes``, so that none keeps the others out.
    """

    def __init__(self, most_bytes: int, losses: Losses) -> None:
        self._most = most_bytes
        self._losses = losses
        self._queues: dict[SpiffeId, deque[tuple[Handle, bytes]]] = {}
        self._held: Counter[SpiffeId] = Counter()
        self._grown = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """What waits."""
        return self._held.total()

    def offer(self, handle: Handle, message: bytes, sender: SpiffeId) -> bool:
        """Queue a message; False when there is no room, which is counted."""
        cost = len(message) + _OVERHEAD_BYTES
        if self._held.total() + cost > self._most or self._held[sender] + cost > self._most // _SHARE:
            self._losses.refused_messages += 1
            self._losses.refused_bytes += len(message)
            return False
        self._held[sender] += cost
        self._queues.setdefault(sender, deque()).append((handle, message))
        self._grown.set()
        return True

    async def run(self) -> None:
        """Hand messages on, for ever. One that cannot be read is counted and left."""
        while True:
            if not self._queues:
                self._grown.clear()
                await self._grown.wait()
            sender = next(iter(self._queues))
            waiting = self._queues.pop(sender)
            handle, message = waiting.popleft()
            self._held[sender] -= len(message) + _OVERHEAD_BYTES
            if waiting:
                self._queues[sender] = waiting  # behind the others
            else:
                del self._held[sender]
            try:
                handle(message, sender)
            except DecodeError:
                self._losses.unreadable += 1
            except Exception:
                self._losses.unreadable += 1
                _log.exception("a message of %s cannot be taken in", sender)
            await asyncio.sleep(0)
