"""Long work beside the event loop: in a thread, to which it gives way every few milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# To read and check so much takes some 20 ms: as long as the loop may be held.
BYTES: Final = 32 * 1024
_PARTS: Final = 1_000


async def aside(long: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``work``, which touches nothing that others change: in a thread if it takes ``long``, else at once."""
    return await asyncio.to_thread(work, *args, **kwargs) if long else work(*args, **kwargs)


def is_bulky(wire: Mapping[str, Any]) -> bool:
    """Whether an object has so many parts that work on it takes long; looks at no more than it has to."""
    seen, pending = 0, [wire]
    while pending:
        part: Any = pending.pop()
        if isinstance(part, Mapping):
            pending += part.values()
        elif isinstance(part, list):
            pending += part
        else:
            continue
        seen += len(part)
        if seen > _PARTS:
            return True
    return False
