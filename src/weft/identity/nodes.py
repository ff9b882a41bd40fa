"""The nodes that joined, and what each may host: kept here and not in their certificates, so that a change
holds at the next request and a removed node is out at once."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Self

from weft.errors import WeftError
from weft.identity.scope import Scope
from weft.store.interface import Private

# A node's name is also the value of a label: 63 characters.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def check_node_name(name: str) -> str:
    """The name itself.

    Raises:
        WeftError: when no node can bear it.
    """
    if not _NAME.fullmatch(name):
        raise WeftError(
            f"{name!r} is no name for a node",
            hint="use at most 63 lower-case letters, digits, '-', '_' and '.'",
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host. ``token`` is the id of the token that it came with.

    ``keys`` are hashes of the public keys whose certificates it may use: that of its last one, and of the
    one before, in case the answer to a renewal was lost. A host of the same name before has neither.
    """

    name: str
    scope: Scope
    keys: tuple[str, ...]
    token: str
    addresses: tuple[str, ...] = ()
    joined: datetime

    def to_json(self) -> bytes:
        """As it is stored."""
        fields = {**asdict(self), "scope": self.scope.patterns, "joined": self.joined.isoformat()}
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read what ``to_json`` wrote."""
        fields = json.loads(body)
        fields["scope"] = Scope(tuple(fields["scope"]))
        fields["keys"] = tuple(fields["keys"])
        fields["addresses"] = tuple(fields["addresses"])
        fields["joined"] = datetime.fromisoformat(fields["joined"])
        return cls(**fields)


class Nodes:
    """All nodes, in a private table of the store."""

    def __init__(self, table: Private) -> None:
        self._table = table

    async def get(self, name: str) -> Node | None:
        """The node, or None when it never joined or was removed."""
        body = await self._table.get(name)
        return Node.from_json(body) if body is not None else None

    async def list(self) -> tuple[Node, ...]:
        """All, by name."""
        return tuple(Node.from_json(body) for _, body in sorted((await self._table.list()).items()))

    async def replace(self, old: Node | None, new: Node) -> bool:
        """Store a node if it still is as it was read (None: absent)."""
        return await self._table.swap(new.name, old.to_json() if old else None, new.to_json())

    async def remove(self, name: str) -> bool:
        """Forget it: its certificate is worth nothing here from now on. False when there is none."""
        return await self._table.delete(name)
