"""From resources to what proxies are sent, and who is there: the store's writers and the store's readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weft.compile.world import World
from weft.control.admission import examiner
from weft.control.api.objects import Objects
from weft.control.entry import ENTRY_KIND, PROXY_ANNOTATION
from weft.control.federation import Federation
from weft.control.key_server import KeyServer
from weft.control.keysets import KeyFetcher
from weft.control.metrics import Metrics
from weft.control.names import names
from weft.control.nametable import NameTable
from weft.control.options import ControlOptions
from weft.control.pipeline import Pipeline
from weft.control.proxies import Entry, Proxies
from weft.control.registry import Registry
from weft.control.security import Security
from weft.control.status import Status
from weft.control.statuses import Statuses
from weft.model.resource import Key
from weft.model.service import Service
from weft.model.workload_entry import WorkloadEntry
from weft.store.sqlite import SqliteStore
from weft.xds.store import ConfigStore

_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """``objects`` takes resources in, ``registry`` workloads; ``pipeline`` compiles both into ``config``,
    which ``proxies`` are sent; ``status`` knows what became of it, ``statuses`` writes that to resources.
    """

    store: SqliteStore
    config: ConfigStore
    proxies: Proxies
    status: Status
    table: NameTable
    statuses: Statuses
    pipeline: Pipeline
    keys: KeyFetcher
    federation: Federation
    registry: Registry
    objects: Objects

    def registered(self, namespace: str, name: str) -> Entry | None:
        """What the store knows of a workload whose proxy connects."""
        entry = self.pipeline.world.held(WorkloadEntry).get(Key(ENTRY_KIND, namespace, name))
        if entry is None:
            return None
        labels = {**(entry.metadata.labels or {}), **(entry.spec.labels or {})}
        return Entry(
            service_account=entry.spec.service_account or "default",
            kind=(entry.metadata.annotations or {}).get(PROXY_ANNOTATION, "sidecar"),
            labels=tuple(sorted(labels.items())),
            network=entry.spec.network or "",
        )

    def selector(self, namespace: str, name: str) -> dict[str, str] | None:
        """The labels that a Service chooses its workloads by."""
        service = self.pipeline.world.held(Service).get(Key("/Service", namespace, name))
        return dict(service.spec.selector or {}) if service is not None else None


async def open_configuration(
    options: ControlOptions, store: SqliteStore, security: Security, metrics: Metrics
) -> Configuration:
    """All of it, as far as the store remembers: who was there has a lease to come back."""
    trustee, audit = security.trustee, security.audit
    config, proxies = ConfigStore(), Proxies()
    status = Status(proxies, metrics)
    table = NameTable()
    statuses = Statuses(store, status)
    listeners: list[Callable[[World], None]] = []

    def heard(world: World, revision: int) -> None:
        table.set(names(world))
        statuses.heard(world, revision)
        for listener in listeners:
            listener(world)

    pipeline = Pipeline(store, config, proxies, status, trust_domain=options.trust_domain, on_world=heard)
    keys = KeyFetcher(
        KeyServer(),
        store.private("key-sets"),
        pipeline.take_keys,
        counted=lambda well: (metrics.keys_fetched if well else metrics.keys_missed).add(),
    )
    federation = Federation(KeyServer(), store.private("federation"), trustee.federate)
    listeners += [keys.heard, federation.heard]
    pipeline.take_keys(await keys.load())
    pipeline.take_epoch(trustee.ledger.epoch)

    async def drained(_key: Key, revision: int) -> None:
        await pipeline.endpoints_acknowledged(revision, _DRAIN_S)

    registry = Registry(store, security.issuer, drained, lease_s=options.lease_s)
    objects = Objects(
        store,
        admit=examiner(lambda: pipeline.world),
        committed=audit.changes,
        undone=audit.undone,
        judged=metrics.judged,
    )
    await objects.start()
    await registry.restore()
    return Configuration(
        store=store,
        config=config,
        proxies=proxies,
        status=status,
        table=table,
        statuses=statuses,
        pipeline=pipeline,
        keys=keys,
        federation=federation,
        registry=registry,
        objects=objects,
    )
