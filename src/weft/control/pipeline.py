"""From a change in the store to every proxy that it concerns.

store -> resources -> world -> (for each proxy) ir -> bytes -> ``ConfigStore``. Changes are gathered for a
moment; endpoints go ahead in a lane of their own; the loop is given back to the streams every few
milliseconds; a proxy that cannot be compiled keeps what it has and holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from weft import ir
from weft.compile.changeover import stages
from weft.compile.endpoints import endpoint_set, has_endpoints
from weft.compile.key_sets import KeySets
from weft.compile.proxy import compile_proxy
from weft.compile.renewal import renewed
from weft.compile.secrets import asked_for
from weft.compile.settings import Settings
from weft.compile.world import Host, World
from weft.control.aside import BYTES, aside
from weft.control.delivery import Deliveries
from weft.control.entry import ENTRY_KIND, SERVICE_KIND
from weft.control.lanes import Lanes, Place
from weft.control.proxies import Proxies
from weft.control.secrets import secrets_for
from weft.control.status import Status
from weft.emit.bundle import Bundle, emit
from weft.emit.packed import Packed
from weft.errors import Origin, Problem
from weft.model.parse import parse_object
from weft.model.resource import Key, Resource
from weft.store.interface import Action, Event, GoneError, Store, Stored
from weft.xds.connection import Connection
from weft.xds.store import ConfigStore

_log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.02
CAP_SECONDS: Final = 0.5
# For proxies to take in what goes before a change of mutual TLS.
_STAGE_SECONDS: Final = 3.0
# The streams must get the loop well within the 50 ms that a proxy may be kept waiting.
_SLICE_SECONDS: Final = 0.02
# Bytes of an object whose rules take longer to compile than the loop may be held.
_BULKY: Final = 128 * 1024
_PART: Final = 500
_CHUNK: Final = 50
_VIPS: Final = "vips"
_LEARNED: Final = "learned-clusters"
# What Istio counts apart from configuration, by its own words.
_REGISTRY: Final = frozenset({SERVICE_KIND, ENTRY_KIND, "/Endpoints", "discovery.k8s.io/EndpointSlice"})
_EVENTS: Final = {Action.CREATED: "add", Action.UPDATED: "update", Action.DELETED: "delete"}
_TRIGGERS: Final = {
    ENTRY_KIND: "endpoint",
    "/Endpoints": "endpoint",
    "discovery.k8s.io/EndpointSlice": "endpoint",
    SERVICE_KIND: "service",
    "/Secret": "secret",
}

_decode: Final = msgspec.json.Decoder(dict[str, object]).decode


@dataclass(slots=True)
class _Batch:
    """Changes that were gathered. ``revision`` is the last one; ``since`` when the first came."""

    revision: int
    since: float
    changes: dict[Key, Stored | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Made:
    """What was published for a proxy. ``wanted``: the secrets that it asks for, ``secrets`` those it gets."""

    proxy: ir.Proxy
    bundle: Bundle
    place: Place
    wanted: tuple[str, ...]
    secrets: Mapping[str, Packed]


class Pipeline:
    """Runs until it is cancelled. ``world`` and ``revision`` are what proxies get (or are about to).

    Args:
        on_world: called after each new world, before it is compiled (DNS names, analysis).
        trust_domain: of the authority that signs identities.
        identity: who a connected proxy is, when more is known than at its connection.
        quiet, cap: seconds. Changes are gathered until none came for ``quiet``, for ``cap`` at most.
    """

    def __init__(
        self,
        store: Store,
        config: ConfigStore,
        proxies: Proxies,
        status: Status,
        *,
        settings: Settings | None = None,
        trust_domain: str = "",
        on_world: Callable[[World, int], None] | None = None,
        identity: Callable[[Connection], ir.ProxyIdentity] | None = None,
        quiet: float = QUIET_SECONDS,
        cap: float = CAP_SECONDS,
    ) -> None:
        self.world = World.build((), settings, trust_domain=trust_domain)
        self.revision = -1
        self.problems: dict[str, tuple[Problem, ...]] = {}
        """By proxy, what of its configuration could not be honoured; a failure to compile is one, too."""
        self.invalid: dict[Key, tuple[Problem, ...]] = {}
        """Objects in the store that cannot be read; the API lets none in, an older weft may have."""
        self._settings = settings
        self._store = store
        self._config = config
        self._proxies = proxies
        self._status = status
        self._lanes = Lanes(config)
        self._deliveries = Deliveries(store.private(_LEARNED))
        self._on_world = on_world
        self._identity = identity or (lambda connection: connection.peer.identity)
        self._quiet, self._cap = quiet, cap
        self._batch: _Batch | None = None
        self._open: list[Event] = []
        self._lock = asyncio.Lock()
        self._arrivals = 0
        self._newcomers: dict[str, None] = {}
        self._made: dict[str, _Made] = {}
        self._wake = asyncio.Event()
        self._breath = 0.0
        self._vips: dict[Host, str] = {}
        self._key_sets: KeySets = {}
        self._epoch = self._published_epoch = 0
        proxies.listen(self._proxy_changed)
        status.listen(self._deliveries.progressed)

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Load the store, then follow it; ``ready`` is called once everything in it is published."""
        await self._deliveries.load()
        since = await self._load()
        if ready is not None:
            ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(since), name="pipeline: follow")
            group.create_task(self._work(), name="pipeline: work")
            group.create_task(self._deliveries.keep(), name="pipeline: learned clusters")

    # In: the store, proxies that come and go, keys that were fetched

    def take_keys(self, key_sets: KeySets) -> None:
        """All keys of issuers that are known now; before ``run`` those that were known before."""
        self._key_sets = key_sets
        if self.revision >= 0:
            self._batch = self._batch or _Batch(self.revision, time.time())
            self._arrivals += 1
            self._wake.set()

    def take_epoch(self, epoch: int) -> None:
        """Something was revoked since the last one: connections of the mesh that stand from it are ended."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if self.revision >= 0:
            self._batch = self._batch or _Batch(self.revision, time.time())
            self._arrivals += 1
            self._wake.set()

    async def _load(self) -> int:
        async with self._lock:
            since = self._store.revision
            self._batch, self._open = None, []
            self._vips = await self._read_vips()
            objects = await self._store.list()
            batch = _Batch(since, time.time(), {stored.key: stored for stored in objects})
            gone = self.world.keys() - batch.changes.keys()
            batch.changes.update(dict.fromkeys(gone))
            await self._apply(batch, self._vips)
        return since

    async def _follow(self, since: int) -> None:
        while True:
            try:
                async for event in self._store.watch(since):
                    since = event.revision
                    self._gather(event)
                    if len(self._open) % _CHUNK == _CHUNK - 1:
                        await asyncio.sleep(0)  # the store has them all at hand: it would not let go
            except GoneError:
                _log.warning("fell behind the store at revision %d: everything is read again", since)
                since = await self._load()

    def _gather(self, event: Event) -> None:
        """A transaction counts once it is whole."""
        self._open.append(event)
        if not event.last:
            return
        if self._batch is None:
            self._batch = _Batch(event.revision, time.time())
        self._batch.revision = event.revision
        for one in self._open:
            self._batch.changes[one.stored.key] = None if one.action is Action.DELETED else one.stored
            self._count(one)
        self._open = []
        self._arrivals += 1
        self._wake.set()

    def _count(self, event: Event) -> None:
        kind = event.stored.key.kind
        metrics = self._status.metrics
        counter = metrics.registered if kind in _REGISTRY else metrics.configured
        counter.add(kind.rpartition("/")[2], _EVENTS[event.action])

    def _proxy_changed(self, proxy: str) -> None:
        if proxy in self._proxies:
            self._newcomers[proxy] = None
            self._wake.set()
        else:
            # What it gets when it comes back is compiled then: it may be out of date by that time.
            self._newcomers.pop(proxy, None)
            self._config.forget(proxy)
            self._lanes.forget(proxy)
            self._deliveries.forget(proxy)
            self._made.pop(proxy, None)
            self.problems.pop(proxy, None)

    # Through

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._serve_newcomers()
            if self._batch is not None:
                await self._settle()
                async with self._lock:
                    batch, self._batch = self._batch, None
                    if batch is not None:
                        await self._try(batch)

    async def _try(self, batch: _Batch) -> None:
        """Proxies keep what they have if weft fails; what changed is taken in with the next change."""
        try:
            await self._apply(batch)
        except Exception:
            _log.exception("revision %d cannot be taken in", batch.revision)
            self._status.metrics.errors.add()
            if self._batch is None:
                self._batch = batch
            else:
                self._batch.changes = {**batch.changes, **self._batch.changes}
                self._batch.since = min(batch.since, self._batch.since)

    async def _settle(self) -> None:
        """Until no change came for a moment: a burst is one piece of work."""
        deadline = time.monotonic() + self._cap
        while True:
            before = self._arrivals
            await asyncio.sleep(self._quiet)
            self._serve_newcomers()
            if self._arrivals == before or time.monotonic() >= deadline:
                return

    async def _apply(self, batch: _Batch, vips: Mapping[Host, str] | None = None) -> None:
        self._breath = time.monotonic()
        put: list[Resource] = []
        removed: list[Key] = []
        for key, stored in batch.changes.items():
            resource = await self._parse(stored) if stored is not None else None
            if resource is not None:
                put.append(resource)
            else:
                removed.append(key)
            await self._breathe()
        self._dismiss(removed)
        before = self.world
        # Much at once is taken in parts, so that the loop is not held; only the last world counts.
        world = before.replace((), removed, vips, self._key_sets)
        for start in range(0, len(put), _PART):
            world = self._with(world, put[start : start + _PART])
            await self._breathe()
        await self._keep_vips(world)
        if vips is None:
            await self._change_over(before, world, batch)
        self.world, self.revision = world, batch.revision
        epoch, self._published_epoch = self._published_epoch, self._epoch
        if world is before and vips is None and epoch == self._epoch:
            self._config.advance(batch.revision)
        else:
            self._status.metrics.triggers.add(_trigger(batch))
            self._tell(world, batch.revision)
            await self._publish(batch)
        self._config.flush()
        self._status.published(batch.revision, self._config.sequence)

    async def _change_over(self, before: World, world: World, batch: _Batch) -> None:
        """Publish what lies between, and wait until proxies have it, but for those that do not answer."""
        for stage in stages(before, world):
            self.world = stage
            await self._publish(batch)
            self._config.flush()
            deadline = time.monotonic() + _STAGE_SECONDS
            while not await self._status.wait_whole(self._config.sequence, _SLICE_SECONDS):
                self._serve_newcomers()
                if time.monotonic() >= deadline:
                    _log.warning("some proxies do not answer: mutual TLS is changed without them")
                    break

    def _with(self, world: World, put: list[Resource]) -> World:
        """The world with these resources. One that weft fails on is left out, and costs nobody else."""
        try:
            return world.replace(put)
        except Exception as error:
            if len(put) == 1:
                _log.exception("%s cannot be taken in and is left out", put[0].key)
                self.invalid[put[0].key] = (_failure(str(put[0].key), error),)
                return world
            middle = len(put) // 2
            return self._with(self._with(world, put[:middle]), put[middle:])

    def _tell(self, world: World, revision: int) -> None:
        if self._on_world is None:
            return
        try:
            self._on_world(world, revision)
        except Exception:
            _log.exception("names and status are those of before")

    def _dismiss(self, removed: list[Key]) -> None:
        """Part with proxies whose registration is gone: they keep what they have, and come back with it.

        A host that was cut off would else be told, the moment it is reached again, that all its workloads
        are missing.
        """
        gone = set(removed)
        for connection in self._proxies.streams():
            name = connection.peer.identity.name
            if Key(ENTRY_KIND, name.namespace, name.name) in gone:
                connection.end("denied", f"{name.namespace}/{name.name} is not registered any more")

    async def _publish(self, batch: _Batch) -> None:
        left = await self._lanes.refresh(self._endpoints, self._breathe, ahead=self._has_endpoints)
        self._config.flush()
        bulky = any(stored is not None and len(stored.body) > _BULKY for stored in batch.changes.values())
        ahead: dict[tuple[str, str], object] = {}
        for connection in list(self._proxies.connections()):
            if connection.proxy in self._newcomers:
                continue
            name = connection.peer.identity.name
            if bulky and (name.kind, name.namespace) not in ahead:
                # What proxies share is made in a thread, kept until all have it, and only found again below.
                identity = self._identity(connection)
                ahead[name.kind, name.namespace] = await asyncio.to_thread(_made_ahead, self.world, identity)
            self._compile(connection, batch.since)
            await self._breathe()
        # What no proxy has any more is taken away, rather than emptied while routes may still lead there.
        self._lanes.sweep()
        if left:
            await self._lanes.refresh(self._endpoints, self._breathe)

    def _serve_newcomers(self) -> None:
        """Proxies that wait for their first answer go before everything else."""
        newcomers, self._newcomers = self._newcomers, {}
        for proxy in newcomers:
            connection = self._proxies.get(proxy)
            if connection is not None and self.revision >= 0:
                self._status.metrics.triggers.add("proxy")
                self._compile(connection, time.time())

    async def _breathe(self) -> None:
        if time.monotonic() - self._breath >= _SLICE_SECONDS:
            await asyncio.sleep(0)
            self._serve_newcomers()
            self._breath = time.monotonic()

    def _compile(self, connection: Connection, since: float) -> None:
        """Publish what one proxy shall have."""
        proxy_id = connection.proxy
        try:
            whole, problems = compile_proxy(self.world, self._identity(connection))
            whole = renewed(whole, self._epoch, self.world.memo)
            delivered = self._deliveries.deliver(connection, whole, self.world.settings, self.world.memo)
            proxy = delivered.proxy
            made = self._made.get(proxy_id)
            # Units that did not change are the same objects, so that this costs next to nothing.
            same = made is not None and made.proxy == proxy
            wanted = _asked_for(proxy, made)
            secrets, withheld = secrets_for(self.world, proxy.identity.name, wanted)
            if made is None or not same or made.secrets != secrets:
                place = self._lanes.require(proxy_id, proxy, self._endpoints)
                made = self._made[proxy_id] = _Made(proxy, emit(proxy, secrets), place, wanted, secrets)
        except Exception as error:
            # Whatever is wrong with one proxy's configuration must not keep the others from theirs.
            _log.exception("cannot compile %s; it keeps what it has", proxy_id)
            self._status.metrics.errors.add()
            self.problems[proxy_id] = (_failure(proxy_id, error),)
            return
        for problem in withheld:
            if problem not in self.problems.get(proxy_id, ()):
                _log.warning("%s: %s", proxy_id, problem)
        self.problems[proxy_id] = (*problems, *withheld)
        self._status.awaiting(proxy_id, self.revision, since)
        on_demand = {"lazy": delivered.lazy, "ahead": delivered.ahead}
        self._config.publish(proxy_id, made.bundle, self.revision, lane=made.place, **on_demand)

    def _endpoints(self, cluster: str) -> ir.EndpointSet:
        return endpoint_set(self.world, cluster)

    def _has_endpoints(self, cluster: str) -> bool:
        return has_endpoints(self.world, cluster)

    async def _parse(self, stored: Stored) -> Resource | None:
        resource, problems = await aside(len(stored.body) > BYTES, _understood, stored)
        if resource is None and problems:
            self.invalid[stored.key] = problems
            _log.warning("%s cannot be read and is left out: %s", stored.key, problems[0])
        else:
            self.invalid.pop(stored.key, None)
        return resource

    # Virtual addresses outlive the process, so that a name never changes its address

    async def _read_vips(self) -> dict[Host, str]:
        rows = await self._store.private(_VIPS).list()
        return {_host(name): value.decode() for name, value in rows.items()}

    async def _keep_vips(self, world: World) -> None:
        new = {host: vip for host, vip in world.vips.items() if self._vips.get(host) != vip}
        table = self._store.private(_VIPS)
        rows = tuple(new.items())
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            await asyncio.gather(*(table.put("/".join(host), vip.encode()) for host, vip in some))
        self._vips.update(new)

    # Out: what others wait for

    async def endpoints_acknowledged(self, revision: int, timeout: float) -> tuple[str, ...]:
        """Wait until every proxy acknowledged the endpoints as of ``revision``; who did not in time."""
        return await self._status.wait_endpoints_of(revision, timeout)


def _made_ahead(world: World, identity: ir.ProxyIdentity) -> object:
    """A proxy's configuration, for what others will share of it; a failure is told when it is made."""
    try:
        proxy, _ = compile_proxy(world, identity)
        return proxy, emit(proxy)
    except Exception:
        return None


def _understood(stored: Stored) -> tuple[Resource | None, tuple[Problem, ...]]:
    wire = _decode(stored.body)
    if stored.key.kind != ENTRY_KIND:
        # What we say of an object is no input: writing it must not make a new world.
        wire.pop("status", None)
    return parse_object(wire, _origin(stored))


def _asked_for(proxy: ir.Proxy, made: _Made | None) -> tuple[str, ...]:
    """The secrets that a proxy asks for; its clusters are the same object as long as they are the same."""
    if made is not None and made.proxy.clusters is proxy.clusters and made.proxy.listeners == proxy.listeners:
        return made.wanted
    return asked_for(proxy.listeners, proxy.clusters)


def _host(name: str) -> Host:
    namespace, _, rest = name.partition("/")
    return namespace, rest


def _origin(stored: Stored) -> Origin:
    file, _, place = stored.source.partition(":")
    line, _, column = place.partition(":")
    return (
        Origin(file, int(line or 0), int(column or 0))
        if line.isdigit() or not line
        else Origin(stored.source)
    )


def _failure(proxy: str, error: Exception) -> Problem:
    return Problem(
        "WEFT0003",
        f"weft failed to compile the configuration of {proxy}: {type(error).__name__}: {error}",
        hint="it keeps the configuration that it has; please report this",
    )


def _trigger(batch: _Batch) -> str:
    """Istio's word for why a push came about: the weightiest of the changes."""
    reasons = {_TRIGGERS.get(key.kind, "config") for key in batch.changes}
    return next((word for word in ("config", "service", "secret", "endpoint") if word in reasons), "global")
