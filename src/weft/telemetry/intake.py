"""Messages that were received and not yet read: a queue bounded in bytes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
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


class Intake:
    """``offer`` never waits; ``run`` hands messages on, one at a time, and lets others run in between."""

    def __init__(self, most_bytes: int, losses: Losses) -> None:
        self._most = most_bytes
        self._losses = losses
        self._queue: deque[tuple[Handle, bytes, SpiffeId]] = deque()
        self._held = 0
        self._grown = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """What waits."""
        return self._held

    def offer(self, handle: Handle, message: bytes, sender: SpiffeId) -> bool:
        """Queue a message; False when there is no room, which is counted."""
        if self._held + len(message) + _OVERHEAD_BYTES > self._most:
            self._losses.refused_messages += 1
            self._losses.refused_bytes += len(message)
            return False
        self._held += len(message) + _OVERHEAD_BYTES
        self._queue.append((handle, message, sender))
        self._grown.set()
        return True

    async def run(self) -> None:
        """Hand messages on, for ever. One that cannot be read is counted and left."""
        while True:
            if not self._queue:
                self._grown.clear()
                await self._grown.wait()
            handle, message, sender = self._queue.popleft()
            self._held -= len(message) + _OVERHEAD_BYTES
            try:
                handle(message, sender)
            except DecodeError:
                self._losses.unreadable += 1
            except Exception:
                self._losses.unreadable += 1
                _log.exception("a message of %s cannot be taken in", sender)
            await asyncio.sleep(0)
