"""What weft says of objects in their ``status``: all of the Gateway API, how many replicas run, and more.

After a new world, or when a gateway's proxy got further, each status is made anew and written where it
differs from the stored one, outside history. The world leaves status out, so that no write here comes back
as a change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import msgspec

from weft.compile.gatewayapi.conditions import Status as Wire
from weft.compile.gatewayapi.conditions import merged
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.listener_set import gateway_of
from weft.compile.gatewayapi.listeners import Listener, listeners_of
from weft.compile.gatewayapi.status import Waiting, each_status
from weft.compile.istio.status import authentication_statuses, entry_statuses
from weft.compile.world import World
from weft.control.entry import DRAINING, PROXY_ANNOTATION, stamp
from weft.control.status import Status
from weft.control.verdicts import Findings, blamed, findings_of, judged, verdicts
from weft.model.catalog import GATEWAY_API, by_id
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet
from weft.model.request_authentication import RequestAuthentication
from weft.model.resource import Key, Metadata
from weft.model.service_entry import ServiceEntry
from weft.model.workload import Workload
from weft.model.workload_entry import WorkloadEntry
from weft.names import GATEWAY_CONTROLLER, GATEWAY_NAME_LABEL, HEALTHY, LISTENER_TYPE, WORKLOAD_LABEL
from weft.store.interface import ConflictError, NotFoundError, Put, Store, Stored
from weft.xds.connection import Connection

_log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.1
_SLICE_SECONDS: Final = 0.02
_ATTEMPTS: Final = 8
_GATEWAY: Final = f"{GATEWAY_API}/Gateway"
_ROUTER: Final = "router"

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class _Said:
    """A status for one generation of one object. Two are equal when nothing is to be written."""

    uid: str | None
    generation: int | None
    status: Wire


@dataclass(frozen=True, slots=True)
class _Since:
    """What a Gateway or ListenerSet opens, and the revision from which on its proxies are to have it.

    ``first``: it was so when it was first looked at, which may be after a restart. ``taken``: a proxy had it.
    """

    uid: str | None
    generation: int | None
    listeners: tuple[Listener, ...]
    revision: int
    first: bool
    taken: bool = False

    @classmethod
    def of(
        cls, metadata: Metadata, listeners: tuple[Listener, ...], revision: int, before: _Since | None
    ) -> _Since:
        made = cls(metadata.uid, metadata.generation, listeners, revision, first=before is None)
        if before is None or made._mark != before._mark:
            return made
        return before

    @property
    def _mark(self) -> tuple[object, ...]:
        return self.uid, self.generation, self.listeners


@dataclass(frozen=True, slots=True)
class _Running:
    """What is registered: by Workload (all, ready), and by Gateway the addresses of its proxies."""

    replicas: Mapping[tuple[str, str], tuple[int, int]]
    addresses: Mapping[Key, tuple[str, ...]]

    @classmethod
    def of(cls, entries: Iterable[WorkloadEntry]) -> _Running:
        replicas: dict[tuple[str, str], tuple[int, int]] = {}
        addresses: dict[Key, set[str]] = {}
        for entry in entries:
            metadata = entry.metadata
            labels = metadata.labels or {}
            if (name := labels.get(WORKLOAD_LABEL)) is not None:
                total, ready = replicas.get((metadata.namespace, name), (0, 0))
                replicas[metadata.namespace, name] = (total + 1, ready + _is_ready(entry))
            kind = (metadata.annotations or {}).get(PROXY_ANNOTATION)
            if kind == _ROUTER and GATEWAY_NAME_LABEL in labels:
                key = Key(_GATEWAY, metadata.namespace, labels[GATEWAY_NAME_LABEL])
                addresses.setdefault(key, set()).update({entry.spec.address or ""} - {""})
        return cls(replicas, {key: tuple(sorted(found)) for key, found in addresses.items()})


class Statuses:
    """Writes them. Give it every world (``heard``) and let ``run`` run as a task.

    Args:
        clock: for ``lastTransitionTime``.
        quiet: seconds. Changes are gathered for so long.
    """

    def __init__(
        self,
        store: Store,
        status: Status,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        quiet: float = QUIET_SECONDS,
    ) -> None:
        self._store = store
        self._proxies = status.proxies
        self._clock = clock
        self._quiet = quiet
        self._wake = asyncio.Event()
        self._world: World | None = None
        self._entries: Mapping[Key, WorkloadEntry] | None = None
        self._running = _Running({}, {})
        self._revision = -1
        self._since: dict[Key, _Since] = {}
        self._made_of: tuple[object, ...] = ()
        self._said: dict[Key, _Said] = {}
        self._breath = 0.0
        self._status = status
        self._refusing: set[str] = set()
        self._looked_at: World | None = None
        self._found: Findings = {}
        status.listen(self._progressed)
        status.proxies.listen(self._came_or_went)

    def heard(self, world: World, revision: int) -> None:
        """A new world; proxies that are at ``revision`` have it."""
        self._revision = revision
        self._world = world
        self._wake.set()

    def _progressed(self, connection: Connection) -> None:
        refuses = any(True for _ in connection.stream.rejected())
        if refuses or connection.peer.identity.name.kind == _ROUTER or connection.proxy in self._refusing:
            (self._refusing.add if refuses else self._refusing.discard)(connection.proxy)
            self._wake.set()

    def _came_or_went(self, proxy: str) -> None:
        if proxy.startswith(_ROUTER) or proxy in self._refusing:
            self._refusing.discard(proxy)
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._quiet)
            self._wake.clear()
            try:
                await self.write()
            except Exception:
                # What cannot be said of one object must not end the control plane.
                _log.exception("status could not be written; it is tried again with the next change")

    async def write(self) -> None:
        """Write what is not in the store yet, now."""
        if self._world is None:
            return
        self._breath = time.monotonic()
        world = self._world
        entries, facts = world.all(WorkloadEntry), world.gateway_facts
        if entries is not self._entries:
            self._entries, self._running = entries, _Running.of(entries.values())
        waiting = await self._late(facts)
        policies, key_sets = world.all(RequestAuthentication), world.key_sets or {}
        if self._looked_at is not world:
            self._found = await findings_of(world, self._breathe)
            self._looked_at = world
        found, refused = self._found, dict(blamed(self._status.rejections()))
        made_of = (
            facts, self._running, waiting, world.all(Workload), world.all(ServiceEntry), world.vips,
            policies, key_sets, dict(found), refused, *map(id, judged(world)),
        )  # fmt: skip
        if _same(made_of, self._made_of):
            return
        said: dict[Key, _Said] = {}
        by_api = each_status(facts, GATEWAY_CONTROLLER, self._running.addresses, waiting)
        istio = _together(
            entry_statuses(world.all(ServiceEntry), world.vips),
            authentication_statuses(policies, key_sets),
            verdicts(world, found, refused),
        )
        for key, status in chain(by_api, istio, _workloads(world, self._running)):
            wanted = _wanted(world, key, status)
            if wanted is not None:
                said[key] = wanted
                if self._said.get(key) != wanted:
                    await self._put(key, wanted, world.settings.controllers)
            await self._breathe()
        self._said, self._made_of = said, made_of

    async def _breathe(self) -> None:
        if time.monotonic() - self._breath >= _SLICE_SECONDS:
            await asyncio.sleep(0)
            self._breath = time.monotonic()

    async def _late(self, facts: Facts) -> dict[Key, Waiting]:
        """Gateways and ListenerSets that do not serve yet, and why."""
        old, self._since = self._since, {}
        waiting: dict[Key, Waiting] = {}
        for owner, gateway in _owners(facts):
            key, listeners = owner.key, listeners_of(owner, facts)
            self._since[key] = _Since.of(owner.metadata, listeners, self._revision, old.get(key))
            why = await self._waiting(key, gateway, self._since[key])
            if why is not None:
                waiting[key] = why
            await self._breathe()
        return waiting

    async def _waiting(self, key: Key, gateway: Key, since: _Since) -> Waiting | None:
        """Why something that ``gateway`` serves is not served yet, None when it is.

        Once programmed it stays so while a proxy is registered: losing the control plane takes nothing from
        a proxy. What is stored tells, so that a restart forgets none.
        """
        if gateway not in self._running.addresses:
            return Waiting("AddressNotAssigned", "no proxy runs for this Gateway: see 'weft gateway'")
        streams = [one for one in self._proxies.connections() if _serves(one, gateway)]
        for stream in streams:
            for type_url, rejection in stream.stream.rejected():
                if type_url == LISTENER_TYPE:
                    name = rejection.resource.name
                    return Waiting("Invalid", f"the proxy refuses the listener {name}: {rejection.error}")
        if any(one.stream.revision >= since.revision for one in streams):
            self._since[key] = replace(since, taken=True)
            return None
        if since.taken:
            return None
        if since.first:
            stored = await self._store.get(key)
            if stored is not None and _programmed(_decode(stored.body), since.generation):
                return None
        return Waiting("Pending", "the proxy has not taken this Gateway yet")

    async def _put(self, key: Key, wanted: _Said, controllers: frozenset[str]) -> None:
        now = stamp(self._clock())
        for _ in range(_ATTEMPTS):
            stored = await self._store.get(key)
            if stored is None:
                return
            put = _successor(stored, wanted, now, controllers)
            if put is None:
                return
            try:
                await self._store.update(put, actor="weft")
            except ConflictError:
                continue  # somebody was quicker: look at what is there now
            except NotFoundError:
                return
            return
        _log.warning("%s changes all the time: its status stays as it is", key)


def _together(*parts: Iterable[tuple[Key, Wire]]) -> Iterator[tuple[Key, Wire]]:
    """One status a resource, of all that is said of it; conditions add up."""
    said: dict[Key, Wire] = {}
    for key, status in chain(*parts):
        known = said.get(key, {})
        both = [*known.get("conditions", ()), *status.get("conditions", ())]
        said[key] = {**known, **status, **({"conditions": both} if both else {})}
    yield from said.items()


def _successor(stored: Stored, wanted: _Said, now: str, controllers: frozenset[str]) -> Put | None:
    """The write that is needed; none when the object is another one by now (its world is on the way)."""
    wire = _decode(stored.body)
    metadata = wire["metadata"]
    if (metadata.get("uid"), metadata.get("generation")) != (wanted.uid, wanted.generation):
        return None
    old = wire.get("status")
    status = merged(wanted.status, old, now, controllers, stored.key.namespace)
    if status == (old or {}) or (old is None and not any(status.values())):
        return None
    # Whoever owns the object keeps it: status is ours to write, whosesoever the rest is.
    return Put(
        key=stored.key, uid=stored.uid, body=msgspec.json.encode({**wire, "status": status}),
        owner=stored.owner, source=stored.source, expect=stored.revision, record=False,
    )  # fmt: skip


def _wanted(world: World, key: Key, status: Wire) -> _Said | None:
    row = by_id(key.kind)
    resource = world.all(row.model).get(key) if row is not None else None
    if resource is None:
        return None
    return _Said(resource.metadata.uid, resource.metadata.generation, status)


def _workloads(world: World, running: _Running) -> Iterator[tuple[Key, Wire]]:
    for key, workload in world.all(Workload).items():
        replicas = workload.spec.replicas
        wanted = 1 if replicas is None else replicas
        total, ready = running.replicas.get((key.namespace, key.name), (0, 0))
        enough = ready >= wanted
        yield (
            key,
            {
                "replicas": total,
                "readyReplicas": ready,
                "observedGeneration": workload.metadata.generation or 0,
                "conditions": [
                    {
                        "type": "Ready",
                        "status": str(enough),
                        "reason": "ReplicasReady" if enough else "ReplicasNotReady",
                        "message": f"{ready} of {wanted} replicas are ready",
                        "observedGeneration": workload.metadata.generation or 0,
                    }
                ],
            },
        )


def _is_ready(entry: WorkloadEntry) -> bool:
    said = {one.type: one.status for one in (entry.status.conditions or ())} if entry.status else {}
    return said.get(HEALTHY, "True") == "True" and said.get(DRAINING) != "True"


def _owners(facts: Facts) -> Iterator[tuple[Gateway | ListenerSet, Key]]:
    """All that declares listeners of Gateways of ours, each with the Gateway that serves it."""
    for gateway in facts.gateways.values():
        if facts.ours(gateway):
            yield gateway, gateway.key
    for listeners in facts.listener_sets.values():
        parent = gateway_of(listeners, facts)
        if parent is not None:
            yield listeners, parent.key


def _serves(connection: Connection, gateway: Key) -> bool:
    """Whether a connected proxy is one of a Gateway's."""
    identity = connection.peer.identity
    return (
        identity.name.kind == _ROUTER
        and identity.name.namespace == gateway.namespace
        and (GATEWAY_NAME_LABEL, gateway.name) in identity.labels
    )


def _programmed(wire: Wire, generation: int | None) -> bool:
    conditions = (wire.get("status") or {}).get("conditions") or ()
    return any(
        (one.get("type"), one.get("status"), one.get("observedGeneration"))
        == ("Programmed", "True", generation)
        for one in conditions
    )


def _same(new: tuple[object, ...], old: tuple[object, ...]) -> bool:
    """Frozen inputs are compared by identity, what is made anew each time by value."""
    return len(new) == len(old) and all(
        a is b or (isinstance(a, dict) and isinstance(b, dict) and a == b)
        for a, b in zip(new, old, strict=True)
    )
