"""Incremental ADS without sockets, clock or protobuf: what one stream should be sent next, and why.

A ``Stream`` is told what the proxy says (``receive``) and what it shall have (``update``,
``update_endpoints``), and is asked for messages (``send``) until it has none. The rules, each measured
against a real Envoy:

- One un-acknowledged response for each type. Whatever changes meanwhile goes into the next one.
- Make before break: clusters, the endpoints of every cluster just sent, listeners, routes. Listeners that are
  gone stay until the routes are there, for others may take over what they served; those that hold a port make
  room at once. Clusters that are gone go last (one that was asked for by name is made empty instead), and not
  while a listener or a route that may still use them was refused. A stream works on one snapshot until the
  proxy has it whole, then takes the newest.
- An acknowledged cluster is a warm one. A cluster that changed warms anew and wants its endpoints again.
- After a refusal (NACK) nothing is known of that response's resources, so they are sent again in halves until
  the culprits stand alone. A culprit is not sent again until it changes; everything else goes on.
- What a reconnecting proxy says that it holds is not sent again; what it should not hold is removed.
- A name stays subscribed: it is answered when it does not exist, and again when it comes (back).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from weft.names import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    EXTENSION_TYPE,
    LISTENER_TYPE,
    LOCAL_ENDPOINTS,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
)
from weft.xds.messages import Acknowledged, Event, ProtocolError, Refused, Rejection, Request, Snapshot
from weft.xds.shared import NO_NAMES, Response, Shared
from weft.xds.table import Resource

WILDCARD: Final = "*"

# Types that a request without names asks for as a whole; the others are asked for by name only. Envoy starts
# on-demand virtual hosts so, and waits until it gets one, be it of no use.
_WHOLE: Final = frozenset({CLUSTER_TYPE, LISTENER_TYPE, VIRTUAL_HOST_TYPE})
_ON_DEMAND: Final = (CLUSTER_TYPE, VIRTUAL_HOST_TYPE)
# Warming waits for these, so that they never wait for anything themselves.
_FREE: Final = (ENDPOINT_TYPE, SECRET_TYPE, EXTENSION_TYPE)
# Each of these waits until the proxy has acknowledged those before it.
_ORDERED: Final = (LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE)
TYPES: Final = (CLUSTER_TYPE, *_FREE, *_ORDERED)

_MAX_NAMES: Final = 100_000
# Stands for the version of something that the proxy has, or may have.
_UNKNOWN: Final = "?"

_NONE: Final[Mapping[str, Resource]] = {}


@dataclass(frozen=True, slots=True)
class _Flight:
    """A response that the proxy has not answered: not its bytes, so that a stalled proxy pins none.

    ``keys`` are the names that the resources were asked by.
    """

    nonce: str
    keys: tuple[str, ...]
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


class _Kind:
    """One type of resource on one stream.

    The proxy holds ``base`` as far as it asked for it, but for ``marks``: a version is what it holds of that
    name, None says that it must be told of that name. Both are brought up to date when a response is made; a
    refusal takes that back. ``lazy`` are the names in ``base`` that it has only if it asked for them, or if
    they were sent ``ahead``. ``leaving`` are those that are taken away later.
    """

    __slots__ = (
        "ahead",
        "base",
        "flight",
        "greet",
        "lazy",
        "leaving",
        "marks",
        "names",
        "rejected",
        "suspects",
        "whole",
    )

    def __init__(self) -> None:
        self.whole = False
        self.names: frozenset[str] = NO_NAMES
        self.base: Mapping[str, Resource] = _NONE
        self.lazy: frozenset[str] = NO_NAMES
        self.ahead: frozenset[str] = NO_NAMES
        self.leaving: frozenset[str] = NO_NAMES
        self.marks: dict[str, str | None] = {}
        self.flight: _Flight | None = None
        self.suspects: list[tuple[str, ...]] = []
        self.rejected: dict[str, Rejection] = {}
        # A proxy that starts waits for an answer to its first request, be it empty.
        self.greet = False


class Stream:
    """One proxy's stream."""

    __slots__ = (
        "_acknowledged_sequence",
        "_endpoints",
        "_kinds",
        "_local",
        "_newest",
        "_overdue",
        "_sent_sequence",
        "_sequence",
        "_shared",
        "_target",
        "revision",
    )

    def __init__(self, shared: Shared, local: str = "") -> None:
        """``local``: what the proxy's own local cluster is called; nobody is told of another's."""
        self._shared = shared
        self._local = local
        self._kinds: dict[str, _Kind] = {}
        self._newest: Snapshot | None = None
        self._target: Snapshot | None = None
        self._endpoints: Mapping[str, Resource] = _NONE
        # Of the endpoints: as they are, as they were last sent, as the proxy acknowledged them.
        self._sequence = self._sent_sequence = self._acknowledged_sequence = -1
        self._overdue = False
        self.revision = -1
        """The newest revision that the proxy has whole, refused resources apart; -1 for none."""

    # What it is told

    def update(self, snapshot: Snapshot) -> None:
        """What the proxy shall have from now on."""
        self._newest = snapshot

    def update_endpoints(self, endpoints: Mapping[str, Resource], sequence: int = 0) -> None:
        """The endpoint sets by cluster, as they are now; ``sequence`` counts their changes."""
        self._endpoints, self._sequence = endpoints, sequence

    def hurry(self) -> None:
        """Stop waiting for the clusters of this snapshot to get warm: listeners and routes go out now."""
        self._overdue = True

    def receive(self, request: Request) -> Event | None:
        """Take in what the proxy says. Ask ``send`` afterwards.

        Raises:
            ProtocolError: for an unknown type, and for more names than anybody needs.
        """
        kind = self._kinds.get(request.type_url)
        first = kind is None
        if kind is None:
            if request.type_url not in TYPES:
                raise ProtocolError(f"this server has no resources of type {request.type_url!r}")
            kind = self._kinds[request.type_url] = _Kind()
            kind.marks.update(request.initial_versions)
            kind.whole = not request.subscribe and request.type_url in _WHOLE
        event = self._answered(request, kind) if request.nonce else None
        self._subscribe(request, kind, first=first)
        if first and kind.whole:
            kind.greet = not request.initial_versions
        if len(kind.names) > _MAX_NAMES or len(kind.marks) > _MAX_NAMES + len(kind.base):
            raise ProtocolError(f"more than {_MAX_NAMES} names asked for")
        return event

    def _subscribe(self, request: Request, kind: _Kind, *, first: bool) -> None:
        if request.subscribe:
            asked = set(request.subscribe)
            if WILDCARD in asked:
                asked.discard(WILDCARD)
                kind.whole = request.type_url in _WHOLE
            kind.names = self._shared.names(kind.names | asked)
            for name in asked:
                # Asked for again: the proxy may have forgotten it, so it is told again.
                if not (first and name in request.initial_versions):
                    kind.marks[name] = None
        if request.unsubscribe:
            gone = set(request.unsubscribe)
            if WILDCARD in gone:
                gone.discard(WILDCARD)
                kind.whole = False
            kind.names = self._shared.names(kind.names - gone)
            for name in gone:
                if kind.whole:
                    kind.marks[name] = None
                else:
                    kind.marks.pop(name, None)
                    kind.rejected.pop(name, None)

    def _answered(self, request: Request, kind: _Kind) -> Event | None:
        flight = kind.flight
        if flight is None or flight.nonce != request.nonce:
            return None
        kind.flight = None
        if request.error is None:
            for key in (*flight.keys, *flight.removed):
                kind.rejected.pop(key, None)
            if request.type_url == ENDPOINT_TYPE and not kind.suspects:
                self._acknowledged_sequence = self._sent_sequence
            return Acknowledged(request.type_url, request.nonce)
        if not flight.keys:
            # Only removals: nothing to isolate, and to repeat it would be refused again.
            return Refused(request.type_url, request.nonce, request.error)
        for name in flight.removed:
            kind.marks[name] = None
        if len(flight.keys) == 1:
            culprit = flight.resources[0]
            revision = self._target.revision if self._target is not None else -1
            kind.rejected[flight.keys[0]] = Rejection(culprit, request.error, revision)
            return Refused(request.type_url, request.nonce, request.error, culprit)
        for key in flight.keys:
            kind.marks[key] = None
        kind.suspects += _split(flight.keys, request.error)
        return Refused(request.type_url, request.nonce, request.error)

    # What it says

    def send(self) -> Response | None:
        """The next message for the proxy. None: ask again after the next ``receive`` or ``update``."""
        while self._target is not None or self._take_newest():
            response = self._next()
            if response is not None:
                return response
            if self._target is None or self.waits():
                return None
            self.revision = self._target.revision
            if not self._take_newest():
                return None
        return None

    def resumed(self, type_url: str) -> bool:
        """Whether the proxy came with resources of this type, and has all that it should have."""
        kind = self._kinds.get(type_url)
        if kind is None or kind.flight is not None or self.revision < 0:
            return False
        return bool(kind.base) or any(mark is not None for mark in kind.marks.values())

    def waits(self) -> bool:
        """Whether something other than endpoints is sent and not acknowledged, so that more may be due."""
        return any(
            kind.flight is not None for type_url, kind in self._kinds.items() if type_url != ENDPOINT_TYPE
        )

    @property
    def is_whole(self) -> bool:
        """Whether the proxy has answered all that it was last told, endpoints apart."""
        return self._newest is self._target and not self.waits()

    def _take_newest(self) -> bool:
        """Begin with the newest snapshot; False if there is none to begin with."""
        newest, old = self._newest, self._target
        if newest is None or newest is old:
            return False
        if old is not None and not (old.lazy is newest.lazy and old.ahead is newest.ahead):
            for type_url in _ON_DEMAND:
                self._change_lazy(type_url, old, newest)
        self._target, self._overdue = newest, False
        for type_url, kind in self._kinds.items():
            want = self._wanted(type_url)
            for name, rejection in tuple(kind.rejected.items()):
                if name not in want or want[name].version != rejection.resource.version:
                    # What it has instead of the refused one is not known.
                    del kind.rejected[name]
                    kind.marks[name] = None if name in want else _UNKNOWN
        return True

    def _change_lazy(self, type_url: str, old: Snapshot, newest: Snapshot) -> None:
        """What is on demand from now on is taken back, what no longer is gets sent."""
        kind = self._kinds.get(type_url)
        if kind is None or not kind.whole:
            return
        held, want = old.of(type_url), newest.of(type_url)
        for name in ((old.lazy ^ newest.lazy) | (old.ahead ^ newest.ahead)) - kind.names:
            was, is_now = old.is_lazy(name), newest.is_lazy(name)
            if is_now and not was and name in held:
                kind.marks[name] = held[name].version
            elif was and not is_now and name in want:
                kind.marks[name] = None

    def _next(self) -> Response | None:
        kinds = self._kinds
        clusters = kinds.get(CLUSTER_TYPE)
        if clusters is not None and clusters.flight is None:
            response = self._push(CLUSTER_TYPE, clusters, removals=False)
            if response is not None:
                self._endpoints_again(clusters)
                return response
        for type_url in _FREE:
            kind = kinds.get(type_url)
            if kind is not None and kind.flight is None:
                response = self._push(type_url, kind)
                if response is not None:
                    return response
        if clusters is not None and clusters.flight is not None and not self._overdue:
            return None
        refused = False
        for type_url in _ORDERED:
            kind = kinds.get(type_url)
            if kind is None:
                continue
            if kind.flight is None:
                response = self._push(type_url, kind, removals=type_url != LISTENER_TYPE)
                if response is not None:
                    return response
            elif not self._overdue:
                return None
            refused = refused or bool(kind.rejected) or kind.flight is not None
        listeners = kinds.get(LISTENER_TYPE)
        if listeners is not None and listeners.flight is None:
            response = self._push(LISTENER_TYPE, listeners, removals=True)
            if response is not None:
                return response
        if clusters is not None and clusters.flight is None and not refused:
            return self._push(CLUSTER_TYPE, clusters, removals=True)
        return None

    def _endpoints_again(self, clusters: _Kind) -> None:
        """A cluster that was just sent warms, and waits for endpoints that the proxy will not ask for."""
        endpoints = self._kinds.get(ENDPOINT_TYPE)
        if endpoints is not None and clusters.flight is not None:
            for name in clusters.flight.keys:
                if name in endpoints.names:
                    endpoints.marks[name] = None

    def _push(self, type_url: str, kind: _Kind, *, removals: bool = True) -> Response | None:
        """The next response of this type, entered as sent; None if the proxy needs none."""
        want = self._wanted(type_url)
        while kind.suspects:
            keys, resources, _, _ = self._due(type_url, kind, want, kind.suspects.pop(), removals=False)
            if keys:
                kind.marks.update(
                    (key, resource.version) for key, resource in zip(keys, resources, strict=True)
                )
                return self._fly(type_url, kind, keys, resources, ())
        changed = self._shared.difference(kind.base, want)
        if not changed and not kind.marks and not kind.greet:
            kind.base = want
            self._note(type_url, kind)
            return None
        names: Iterable[str] = changed
        if kind.marks:
            names = sorted({*changed, *kind.marks}) if changed else sorted(kind.marks)
        keys, resources, removed, later = self._due(type_url, kind, want, names, removals=removals)
        kind.base, kind.marks, kind.leaving = want, later, frozenset(later)
        self._note(type_url, kind)
        if not keys and not removed and not kind.greet:
            return None
        kind.greet = False
        return self._fly(type_url, kind, keys, resources, removed)

    def _fly(
        self,
        type_url: str,
        kind: _Kind,
        keys: tuple[str, ...],
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> Response:
        response = self._shared.response(type_url, resources, removed)
        kind.flight = _Flight(response.nonce, keys, resources, removed)
        return response

    def _due(
        self,
        type_url: str,
        kind: _Kind,
        want: Mapping[str, Resource],
        names: Iterable[str],
        *,
        removals: bool,
    ) -> tuple[tuple[str, ...], tuple[Resource, ...], tuple[str, ...], dict[str, str | None]]:
        """Of ``names``: those to send, their resources, those to remove, and marks to keep for later."""
        keys: list[str] = []
        resources: list[Resource] = []
        removed: list[str] = []
        later: dict[str, str | None] = {}
        for name in names:
            by_name = name in kind.names
            if by_name or (kind.whole and not self._is_lazy(type_url, name)):
                resource = want.get(name)
                if type_url == ENDPOINT_TYPE and not self._speaks_of(name, resource is None):
                    later[name] = self._holds(kind, name)
                    continue
                if resource is None and by_name:
                    resource = self._shared.absent(type_url, name)
                    if resource is None:
                        continue
                    held = self._holds(kind, name)
                    if not removals and held is not None and held != resource.version:
                        # Something may still lead there: it goes when other clusters do.
                        later[name] = held
                        continue
            else:
                resource = None
            if resource is not None:
                if self._holds(kind, name) != resource.version:
                    keys.append(name)
                    resources.append(resource)
            elif not kind.whole or (name not in kind.marks and self._holds(kind, name) is None):
                continue
            elif removals or (type_url == LISTENER_TYPE and self._is_bound(kind, name)):
                removed.append(name)
            else:
                later[name] = self._holds(kind, name)
        return tuple(keys), tuple(resources), tuple(removed), later

    def _holds(self, kind: _Kind, name: str) -> str | None:
        """The version that the proxy holds of a name; None if it holds none, or if that is not known."""
        if name in kind.marks:
            return kind.marks[name]
        if name in kind.lazy and name not in kind.names and name not in kind.ahead:
            return None
        held = kind.base.get(name)
        return held.version if held is not None else None

    def _is_bound(self, kind: _Kind, name: str) -> bool:
        """Whether a listener that the proxy holds may have a port that another needs."""
        held = kind.base.get(name)
        return held.bound if held is not None else name not in kind.leaving

    def _wanted(self, type_url: str) -> Mapping[str, Resource]:
        if type_url == ENDPOINT_TYPE:
            return self._endpoints
        return self._target.of(type_url) if self._target is not None else _NONE

    def _note(self, type_url: str, kind: _Kind) -> None:
        """Remember what ``kind.base`` was when it became what the proxy holds."""
        if type_url in _ON_DEMAND and self._target is not None:
            kind.lazy, kind.ahead = self._target.lazy, self._target.ahead
        elif type_url == ENDPOINT_TYPE:
            self._sent_sequence = self._sequence

    def _is_lazy(self, type_url: str, name: str) -> bool:
        return type_url in _ON_DEMAND and self._target is not None and self._target.is_lazy(name)

    def _speaks_of(self, cluster: str, gone: bool) -> bool:
        """Whether the proxy is told the endpoints of a cluster, or that there are none (any more).

        It is told those of clusters that it has or shall have. A cluster on its way out keeps what it has:
        until listeners and routes have moved it carries traffic. The local cluster is in its bootstrap.
        """
        if cluster.startswith(LOCAL_ENDPOINTS):
            return cluster == self._local and not gone
        if gone:
            return self._newest is not None and cluster in self._newest.of(CLUSTER_TYPE)
        if self._target is not None and cluster in self._target.of(CLUSTER_TYPE):
            return True
        clusters = self._kinds.get(CLUSTER_TYPE)
        return clusters is not None and (cluster in clusters.base or cluster in clusters.marks)

    # What is known of it

    def rejected(self) -> Iterator[tuple[str, Rejection]]:
        """Resources that the proxy refuses, with their type."""
        for type_url, kind in self._kinds.items():
            for rejection in kind.rejected.values():
                yield type_url, rejection

    def subscribed(self, type_url: str) -> frozenset[str]:
        """Names asked for; streams with the same names give the same object."""
        kind = self._kinds.get(type_url)
        return kind.names if kind is not None else NO_NAMES

    def held(self, type_url: str) -> Iterator[str]:
        """Names of what the proxy has, or said at the beginning that it has."""
        kind = self._kinds.get(type_url)
        if kind is not None:
            for name in {*kind.base, *kind.marks}:
                if self._holds(kind, name) is not None:
                    yield name

    def open_types(self) -> tuple[str, ...]:
        """Types with a response that is not acknowledged."""
        return tuple(type_url for type_url, kind in self._kinds.items() if kind.flight is not None)

    def has_endpoints(self, sequence: int) -> bool:
        """Whether the proxy acknowledged all endpoints that it asked for, as of ``sequence`` or later."""
        kind = self._kinds.get(ENDPOINT_TYPE)
        if kind is None or self._acknowledged_sequence >= sequence:
            return True
        if kind.flight is not None or kind.suspects or self._sequence < sequence:
            return False
        changed = self._shared.difference(kind.base, self._endpoints)
        return not any(
            name in kind.names and self._speaks_of(name, name not in self._endpoints)
            for name in {*changed, *kind.marks}
        )


def _split(keys: tuple[str, ...], error: str) -> list[tuple[str, ...]]:
    """Two or more groups, the last to be tried first: those that the error names alone, else halves."""
    named = [key for key in keys if key in error]
    if named and len(named) <= len(keys) // 2:
        rest = tuple(key for key in keys if key not in named)
        return [*((key,) for key in named), rest]
    middle = len(keys) // 2
    return [keys[middle:], keys[:middle]]
