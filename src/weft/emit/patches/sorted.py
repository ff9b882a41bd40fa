"""The patches of a proxy by what they are applied to, and what becomes of one that cannot be applied."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, ParamSpec

from weft.emit.patches.value import PatchError
from weft.ir.patch import Context, Patch, Target

_log = logging.getLogger(__name__)

P = ParamSpec("P")
_NONE: Final[tuple[Patch, ...]] = ()


class Patches:
    """All patches of a proxy, in their order."""

    def __init__(self, patches: tuple[Patch, ...]) -> None:
        self.all = patches
        self._of: dict[tuple[Target, Context], tuple[Patch, ...]] = {}
        for target in {patch.target for patch in patches}:
            for context in Context:
                self._of[target, context] = tuple(
                    patch
                    for patch in patches
                    if patch.target is target and patch.context in {Context.ANY, context}
                )

    def of(self, target: Target, context: Context) -> tuple[Patch, ...]:
        """Those for one kind of thing in one part of the proxy."""
        return self._of.get((target, context), _NONE)


_hands: Final[ContextVar[dict[str, None] | None]] = ContextVar("hands", default=None)


@contextmanager
def hands() -> Iterator[dict[str, None]]:
    """The EnvoyFilters (``namespace/name``) whose patches are ``applied`` meanwhile."""
    found: dict[str, None] = {}
    token = _hands.set(found)
    try:
        yield found
    finally:
        _hands.reset(token)


def applied(patch: Patch, apply: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Apply a patch; one that cannot be applied costs nothing but itself.

    What can be known without a proxy is told when the resource is written (``check.flaws_of``).
    """
    try:
        apply(*args, **kwargs)
        if (found := _hands.get()) is not None:
            found[patch.origin] = None
    except PatchError as error:
        _log.warning("EnvoyFilter %s: patch %d is left out: %s", patch.origin, patch.index, error)
