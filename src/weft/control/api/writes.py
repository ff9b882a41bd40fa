"""What a change consists of: who writes what, what looks at it first, what hears of it after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from weft.control.api.permission import Access
from weft.control.api.validation import Validation
from weft.errors import Problem
from weft.model.resource import Key, Resource
from weft.store.interface import Operation, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change that awaits admission: the object after it (None: deleted) and its state before."""

    key: Key
    resource: Resource | None
    before: Stored | None


Admit = Callable[[Sequence[Proposal]], Awaitable[Sequence[Problem]]]
"""Looks at a whole transaction; an error among its findings refuses it, the rest become warnings."""


Committed = Callable[[Sequence["Write"], "Options", int], None]
"""Hears of what is being stored, in the store's thread: the writes, who writes, and the revision. When it
raises a ``WeftError`` nothing is stored."""


async def admit_all(_: Sequence[Proposal]) -> Sequence[Problem]:
    """Finds nothing wrong."""
    return ()


class Part(StrEnum):
    """Which part of an object a write is for."""

    WHOLE = ""
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a write is to be done. ``owner`` is who writes (None: anybody through the API).

    ``force`` takes an object from its owner. ``actor`` is for history. ``access`` is who asks through the
    API; None is weft itself, or a directory that it follows.
    """

    dry_run: bool = False
    validation: Validation = Validation.WARN
    force: bool = False
    owner: str | None = None
    actor: str = ""
    access: Access | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The outcome: the object as it is (or, in a dry run, would be) and what to warn of."""

    stored: Stored
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One operation with what admission needs to know of it."""

    operation: Operation
    resource: Resource | None
    before: Stored | None
