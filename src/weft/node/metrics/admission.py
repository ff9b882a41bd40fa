"""Who may scrape this node over the network: whom the control plane lets see ``/metrics``.

An answer holds for a minute. While the control plane is away, whoever it let in before is let in for an hour
more: what watches the mesh must not go blind just then.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from weft.errors import WeftError

Ask = Callable[[Mapping[str, str]], Awaitable[bool]]
"""Whether the control plane admits ``{"token": …}`` or ``{"certificate": PEM}``.

Raises:
    WeftError: it does not answer.
"""

_FRESH_S: Final = 60.0
_REFUSED_S: Final = 10.0
_STALE_S: Final = 3600.0
_REMEMBERED: Final = 256
_TOKEN_MAX: Final = 4096
# Strangers wait for each other, and not the control plane for them.
_AT_ONCE: Final = 2


class Unknown(WeftError):  # noqa: N818 - a state of the network, not a mistake
    """Nobody can say now whether it may."""


class Admission:
    """``clock`` gives monotonic seconds."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def admits(self, authorization: str | None, certificate: str | None) -> bool:
        """By the header ``authorization``, which decides alone where it is, else by the certificate (PEM).

        Raises:
            Unknown: the control plane is away, and has not admitted it before.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            token = token.strip()
            if scheme.lower() != "bearer" or not 0 < len(token) <= _TOKEN_MAX:
                return False
            return await self._admits({"token": token})
        if certificate is not None:
            return await self._admits({"certificate": certificate})
        return False

    async def _admits(self, shown: Mapping[str, str]) -> bool:
        key = hashlib.sha256(repr(sorted(shown.items())).encode()).digest()
        if (known := self._fresh(key)) is not None:
            return known
        async with self._places:
            if (known := self._fresh(key)) is not None:
                return known
            now = self._clock()
            try:
                allowed = await self._ask(shown)
            except WeftError as error:
                before = self._known.get(key)
                if before is not None and before[0] and now - before[1] < _STALE_S:
                    return True
                raise Unknown(f"the control plane cannot be asked: {error.message}") from error
            self._known[key] = (allowed, now)
            self._known.move_to_end(key)
            self._forget()
            return allowed

    def _fresh(self, key: bytes) -> bool | None:
        known = self._known.get(key)
        if known is None:
            return None
        allowed, when = known
        return allowed if self._clock() - when < (_FRESH_S if allowed else _REFUSED_S) else None

    def _forget(self) -> None:
        """The oldest refusals first: guesses must not drive out who is let in."""
        while len(self._known) > _REMEMBERED:
            refused = next((key for key, (allowed, _) in self._known.items() if not allowed), None)
            if refused is None:
                self._known.popitem(last=False)
            else:
                del self._known[refused]
