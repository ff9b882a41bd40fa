"""What a store does: objects as wire JSON, revisions, transactions, a watch, history, private tables.

One counter numbers every change to every object (its *revision*), as Kubernetes' ``resourceVersion``
does. A transaction applies whole or not at all; its operations get consecutive revisions, so that a
watcher may resume between any two of them, and its result is the last one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from weft.errors import WeftError
from weft.model.resource import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One object. ``body`` is its JSON without ``metadata.resourceVersion``: that is ``revision``.

    ``owner`` is who alone may change it, as ``files:DIR``; None is anybody. ``source`` is where its owner
    has it from, as ``mesh.yaml:12:1``; it is no part of the object.
    """

    key: Key
    uid: str
    revision: int
    body: bytes
    owner: str | None = None
    source: str = ""


class Action(StrEnum):
    """What happened to an object."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. ``stored`` is the object after it; for a deletion, the last state with the new revision.

    ``previous`` is the object before it. ``last`` closes a transaction: whoever needs whole ones waits
    for it.
    """

    action: Action
    revision: int
    stored: Stored
    previous: Stored | None
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Create or replace. ``expect``: None takes any state, 0 demands that there is none, else its revision.

    A put that changes neither body nor owner is no change: no revision, no event. ``record`` False keeps
    it out of history (status, registrations).
    """

    key: Key
    uid: str
    body: bytes
    owner: str | None = None
    source: str = ""
    expect: int | None = None
    record: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove. ``expect`` is its revision, or None for any; what is not there raises ``NotFoundError``."""

    key: Key
    expect: int | None = None
    record: bool = True


Operation = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of history. ``body`` is the object after the change, None once deleted, secrets hashed.

    ``transaction`` is the last revision of the transaction that it was part of.
    """

    key: Key
    revision: int
    transaction: int
    time: datetime
    actor: str
    action: Action
    body: bytes | None


class StoreError(WeftError):
    """The store refused."""


class NotFoundError(StoreError):
    """No such object."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class AlreadyExistsError(StoreError):
    """The object that was to be created is there."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key} already exists")
        self.key = key


class ConflictError(StoreError):
    """The object changed since it was read. ``found`` is its revision now."""

    def __init__(self, key: Key, expected: int, found: int) -> None:
        super().__init__(
            f"{key} has changed: revision {found}, not {expected}",
            hint="read it again and apply the change to the new state",
        )
        self.key = key
        self.found = found


class GoneError(StoreError):
    """A watch asked for events that are compacted away: list again. ``oldest`` is where one may start."""

    def __init__(self, since: int, oldest: int) -> None:
        super().__init__(f"events after revision {since} are gone, the oldest start is {oldest}")
        self.oldest = oldest


class Private(Protocol):
    """A table of bytes that no API serves (CA keys, hashed tokens, VIPs, slots); encrypted at rest."""

    async def get(self, name: str) -> bytes | None:
        """The value, or None."""

    async def put(self, name: str, value: bytes) -> None:
        """Set the value, durably."""

    async def swap(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace ``old`` by ``new`` in one step (None is absence); False when it was not ``old``."""

    async def delete(self, name: str) -> bool:
        """Remove it; False when it was not there."""

    async def list(self, prefix: str = "") -> dict[str, bytes]:
        """All values whose name starts so, by name."""


Witness = Callable[[int], None]


class Store(Protocol):
    """Reads answer from one consistent state, and a writer sees what it wrote."""

    @property
    def revision(self) -> int:
        """The last revision that reads show."""

    async def get(self, key: Key) -> Stored | None:
        """One object, or None."""

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Stored]:
        """Objects of a kind (catalog id, None for all), by kind, namespace and name."""

    async def create(self, put: Put, *, actor: str = "") -> Stored:
        """Store a new object.

        Raises:
            AlreadyExistsError: when it is there.
        """

    async def update(self, put: Put, *, actor: str = "") -> Stored:
        """Replace an object.

        Raises:
            NotFoundError: when it is not there.
            ConflictError: when it is not at ``put.expect``.
        """

    async def delete(self, key: Key, *, expect: int | None = None, actor: str = "") -> Stored:
        """Remove an object; its last state.

        Raises:
            NotFoundError: when it is not there.
            ConflictError: when it is not at ``expect``.
        """

    async def transact(
        self, operations: Sequence[Operation], *, actor: str = "", witness: Witness | None = None
    ) -> int:
        """Do all or nothing, in order, durably; the revision after it.

        ``witness`` hears of the revision before it is durable, in another thread perhaps; when it raises a
        ``WeftError``, nothing was done.

        Raises:
            NotFoundError, AlreadyExistsError, ConflictError: as the operation that failed; nothing was done.
        """

    def watch(self, since: int) -> AsyncIterator[Event]:
        """Every change after revision ``since``, in order, for ever.

        Raises:
            GoneError: when they are compacted, at the start or because the reader fell behind.
        """

    async def history(self, key: Key | None = None, *, limit: int = 100) -> Sequence[Change]:
        """Recorded changes, the newest first."""

    async def compact(self, before: int) -> None:
        """Forget the events up to and including revision ``before``; objects and history stay."""

    def private(self, namespace: str) -> Private:
        """A private table."""

    async def close(self) -> None:
        """Finish what is queued and release the files."""
