"""What is said on a stream, in the protocol's own terms: no protobuf, no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from weft.xds.table import Resource

_NONE: Final[Mapping[str, Resource]] = {}


class ProtocolError(Exception):
    """The proxy broke the protocol or a bound; its stream must end."""


@dataclass(frozen=True, slots=True)
class Request:
    """A ``DeltaDiscoveryRequest``. ``error``: the proxy's words if it refuses, else None."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a proxy shall have, endpoints apart. Keys of ``resources``: type URL, then the name asked for.

    ``revision`` counts the changes of configuration. ``lazy`` names clusters and virtual hosts that are
    sent only to a proxy that asks for them by name (on-demand discovery), but for those ``ahead``: it will
    ask for them.
    """

    revision: int
    resources: Mapping[str, Mapping[str, Resource]]
    lazy: frozenset[str] = frozenset()
    ahead: frozenset[str] = frozenset()

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of one type."""
        return self.resources.get(type_url, _NONE)

    def is_lazy(self, name: str) -> bool:
        """Whether a cluster or virtual host is sent only to a proxy that asks for it."""
        return name in self.lazy and name not in self.ahead


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The proxy took a response."""

    type_url: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The proxy refused a response. ``culprit`` is the one resource at fault, once it is known."""

    type_url: str
    nonce: str
    error: str
    culprit: Resource | None = None


Event = Acknowledged | Refused


@dataclass(frozen=True, slots=True)
class Rejection:
    """A resource that the proxy refuses, why in its own words, and the revision that brought it."""

    resource: Resource
    error: str
    revision: int
