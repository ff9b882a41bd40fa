"""What streams have in common: equal subscriptions, differences between two states, responses.

A thousand proxies ask for the same names and get the same bytes. Each of these is held, and computed, once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, VIRTUAL_HOST_TYPE
from weft.xds import framing
from weft.xds.framing import Answer
from weft.xds.table import Resource, difference

# Bounds of the caches. A response is in use for milliseconds; a reconnect storm shares the large ones.
_RESPONSES: Final = 256
_RESPONSE_BYTES: Final = 16 * 1024 * 1024
_DIFFERENCES: Final = 64

_ABSENT: Final = {
    CLUSTER_TYPE: framing.tombstone,
    ENDPOINT_TYPE: framing.no_endpoints,
    VIRTUAL_HOST_TYPE: framing.no_virtual_host,
}

NO_NAMES: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Response:
    """One message to a proxy. ``payload`` is the serialised ``DeltaDiscoveryResponse``, shared by streams.

    The nonce belongs to the content, not to the stream: a stream has at most one response of a type open,
    so that it cannot be confused.
    """

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]
    payload: bytes


class Shared:
    """One for all the streams of a server. Not thread-safe: it belongs to one event loop."""

    def __init__(self) -> None:
        self._names: WeakValueDictionary[int, frozenset[str]] = WeakValueDictionary()
        self._differences: OrderedDict[
            tuple[int, int], tuple[Mapping[str, Resource], Mapping[str, Resource], tuple[str, ...]]
        ] = OrderedDict()
        self._responses: OrderedDict[tuple[object, ...], Response] = OrderedDict()
        self._response_bytes = 0
        self._absent: WeakValueDictionary[tuple[str, str], Answer] = WeakValueDictionary()
        self._nonce = 0

    def names(self, names: frozenset[str]) -> frozenset[str]:
        """An equal set that others hold already, else ``names`` itself."""
        if not names:
            return NO_NAMES
        known = self._names.setdefault(hash(names), names)
        return known if known == names else names

    def difference(self, old: Mapping[str, Resource], new: Mapping[str, Resource]) -> tuple[str, ...]:
        """As ``table.difference``, computed once for any two states."""
        if old is new:
            return ()
        key = (id(old), id(new))
        known = self._differences.get(key)
        if known is None:
            # The entry keeps both maps alive, so that an id in the key never means another map.
            known = self._differences[key] = (old, new, difference(old, new))
            if len(self._differences) > _DIFFERENCES:
                self._differences.popitem(last=False)
        return known[2]

    def absent(self, type_url: str, name: str) -> Answer | None:
        """What to say of a name that was asked for and does not exist; None: nothing is said.

        Silence would let Envoy wait for its whole timeout with clusters, endpoints and on-demand virtual
        hosts. It keeps waiting for a route table or a secret whatever is answered, and may get it later.
        """
        make = _ABSENT.get(type_url)
        if make is None:
            return None
        known = self._absent.get((type_url, name))
        if known is None:
            known = self._absent[type_url, name] = make(name)
        return known

    def response(
        self, type_url: str, resources: tuple[Resource, ...], removed: tuple[str, ...] = ()
    ) -> Response:
        """The response with this content; the same object for every stream that gets it."""
        key = (type_url, tuple(map(id, resources)), removed)
        known = self._responses.get(key)
        if known is not None:
            self._responses.move_to_end(key)
            return known
        self._nonce += 1
        nonce = format(self._nonce, "x")
        made = Response(
            type_url, nonce, resources, removed, framing.response(type_url, nonce, resources, removed)
        )
        # Holds the resources, so that their ids stay theirs while the key exists.
        self._responses[key] = made
        self._response_bytes += len(made.payload)
        while self._response_bytes > _RESPONSE_BYTES or len(self._responses) > _RESPONSES:
            _, old = self._responses.popitem(last=False)
            self._response_bytes -= len(old.payload)
        return made
