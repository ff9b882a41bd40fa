"""The workloads and services of a snapshot, indexed; changed by copying only what a change touches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Generic, TypeVar

from weft.compile.service import Instance, Labels, Port, Service
from weft.model.resource import Key

Bucket = Mapping[str, Instance]


@dataclass(frozen=True, slots=True)
class Instances:
    """Workloads by namespace and name, and by each of their labels.

    A bucket is the same object as long as none of its members changes, so that whoever was given one
    can be remembered by it.
    """

    by_namespace: Mapping[str, Bucket] = field(default_factory=dict)
    by_label: Mapping[tuple[str, str, str], Bucket] = field(default_factory=dict)

    def get(self, namespace: str, name: str) -> Instance | None:
        """The workload of that name."""
        return self.by_namespace.get(namespace, {}).get(name)

    def candidates(self, namespace: str, selector: Labels) -> Bucket:
        """The smallest bucket that holds all workloads which ``selector`` selects."""
        if not selector:
            return self.by_namespace.get(namespace, _EMPTY)
        if len(selector) == 1:
            return self.by_label.get((namespace, *selector[0]), _EMPTY)
        buckets = (self.by_label.get((namespace, *pair), _EMPTY) for pair in selector)
        return min(buckets, key=len)

    def replace(self, put: Iterable[Instance], removed: Iterable[tuple[str, str]]) -> Instances:
        """The index after a change; ``removed`` are (namespace, name)."""
        spaces, labels = _Draft(self.by_namespace), _Draft(self.by_label)

        def drop(namespace: str, name: str) -> None:
            old = spaces.read(namespace).get(name)
            if old is None:
                return
            del spaces.write(namespace)[name]
            for pair in old.labels:
                del labels.write((namespace, *pair))[name]

        for namespace, name in removed:
            drop(namespace, name)
        for instance in put:
            drop(instance.namespace, instance.name)
            spaces.write(instance.namespace)[instance.name] = instance
            for pair in instance.labels:
                labels.write((instance.namespace, *pair))[instance.name] = instance
        return Instances(spaces.index, labels.index)


K = TypeVar("K")


class _Draft(Generic[K]):
    """A copy of an index whose buckets are copied when they are first written to."""

    def __init__(self, index: Mapping[K, Bucket]) -> None:
        self.index: dict[K, Bucket] = dict(index)
        self._own: dict[K, dict[str, Instance]] = {}

    def read(self, key: K) -> Bucket:
        return self.index.get(key, _EMPTY)

    def write(self, key: K) -> dict[str, Instance]:
        if key not in self._own:
            self.index[key] = self._own[key] = dict(self.read(key))
        return self._own[key]


_EMPTY: Bucket = {}


def select(bucket: Bucket, selector: Labels) -> tuple[Instance, ...]:
    """The workloads of a bucket that bear all labels of ``selector``, in the order of their names."""
    wanted = set(selector)
    return tuple(bucket[name] for name in sorted(bucket) if wanted <= set(bucket[name].labels))


@dataclass(frozen=True, slots=True)
class Services:
    """Services by host name (several namespaces may declare one), and by the resource they come from.

    In ``by_host`` entries of a namespace that complete each other are one service; ``parts`` has each alone.
    """

    by_host: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)
    by_source: Mapping[Key, tuple[Service, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)

    def replace(self, changed: Mapping[Key, tuple[Service, ...]]) -> Services:
        """The index after a change; an empty tuple removes. Self when nothing differs."""
        sources = dict(self.by_source)
        parts = dict(self.parts)
        touched: set[str] = set()
        added: dict[str, list[Service]] = {}
        for source, services in changed.items():
            old = sources.get(source, ())
            if old == services:
                continue
            touched.update(service.host for service in (*old, *services))
            for host in {service.host for service in old}:
                parts[host] = tuple(s for s in parts[host] if s.source != source)
            if services:
                sources[source] = services
            else:
                del sources[source]
            for service in services:
                added.setdefault(service.host, []).append(service)
        for host, more in added.items():
            parts[host] = tuple(sorted((*parts.get(host, ()), *more), key=lambda s: s.order))
        if not touched:
            return self
        hosts = dict(self.by_host)
        for host in touched:
            if parts[host]:
                hosts[host] = combined(parts[host])
            else:
                del parts[host]
                hosts.pop(host, None)
        return Services(hosts, sources, parts)


def combined(group: tuple[Service, ...]) -> tuple[Service, ...]:
    """Services of a host: entries of a namespace that differ in ports and endpoints are one (Istio)."""
    if len(group) == 1:
        return group
    contested = len({service.namespace for service in group}) > 1
    made: list[list[Service]] = []
    for service in group:
        known = next((known for known in made if _completes(service, known[0])), None)
        if known is None:
            made.append([service])
        else:
            known.append(service)
    whole = (_joined(known) for known in made)
    return tuple(replace(service, contested=True) if contested else service for service in whole)


def _completes(one: Service, other: Service) -> bool:
    return (
        not (one.kubernetes or other.kubernetes)
        and one.namespace == other.namespace
        and one.resolution is other.resolution
        and one.external == other.external
        and one.selector == other.selector
        and set(one.export_to) == set(other.export_to)
    )


def _joined(parts: Sequence[Service]) -> Service:
    """The first with what the others add; endpoints serve the ports of their own entry."""
    first = parts[0]
    if len(parts) == 1:
        return first
    ports: dict[int, Port] = {}
    for part in parts:
        for port in part.ports:
            ports.setdefault(port.number, port)
    same = all(len(part.ports) == len(ports) for part in parts)
    endpoints = (part.endpoints if same else _serving(part) for part in parts)
    return replace(
        first,
        ports=tuple(ports.values()),
        endpoints=tuple(chain.from_iterable(endpoints)),
        addresses=tuple(dict.fromkeys(chain.from_iterable(part.addresses for part in parts))),
        accounts=tuple(dict.fromkeys(chain.from_iterable(part.accounts for part in parts))),
    )


def _serving(service: Service) -> tuple[Instance, ...]:
    numbers = tuple(port.number for port in service.ports)
    return tuple(replace(item, serves=item.serves or numbers) for item in service.endpoints)
