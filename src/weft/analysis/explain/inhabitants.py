"""Who will be behind the services of files: workloads that documents describe, whether they run or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from weft.analysis.explain.proxies import Bearer, entry_of
from weft.compile.istio.service_entry import TLS_MODE_LABEL
from weft.compile.world import World
from weft.model.resource import Resource
from weft.model.workload_entry import WorkloadEntry

# For testing between networks (RFC 2544): nobody in a mesh has one, so that each tells whose it is.
_FIRST: Final = IPv4Address("198.18.0.1")

By = Mapping[tuple[str, int], Bearer]


class Inhabitants:
    """``world`` has all of them as if they ran; ``at`` says who is at an address and a port."""

    def __init__(self, world: World, described: Iterable[Bearer]) -> None:
        placed: dict[str, list[Bearer]] = {}
        entries: list[Resource] = []
        for number, bearer in enumerate((*described, *_selected(world, described))):
            address = bearer.address or str(_FIRST + number)
            placed.setdefault(address, []).append(bearer)
            labels = dict(bearer.labels)
            if bearer.sidecar:
                labels = {TLS_MODE_LABEL: "istio", **labels}
            try:
                entry = entry_of(replace(bearer, labels=tuple(labels.items())), address)
            except ValueError:
                continue  # what it says of itself could not be registered either
            if entry is not None:
                entries.append(entry)
        self.world = world.replace(entries)
        self._placed = placed

    def at(self, address: str, port: int) -> Bearer | None:
        """Whose an address is; of several that share it, whose port it is."""
        found = self._placed.get(address, [])
        return next((one for one in found if port in dict(one.ports).values()), found[0] if found else None)


def _selected(world: World, described: Iterable[Bearer]) -> Iterable[Bearer]:
    """A workload for each service whose own nobody describes: with the labels and ports that it asks for."""
    known = [(bearer.namespace, set(bearer.labels)) for bearer in described]
    known += [
        (
            entry.metadata.namespace,
            set({**(entry.metadata.labels or {}), **(entry.spec.labels or {})}.items()),
        )
        for entry in world.all(WorkloadEntry).values()
    ]
    for group in world.services.by_host.values():
        for service in group:
            wanted = set(service.selector or ())
            if not wanted or world.backends(service) or service.external:
                continue
            if any(space == service.namespace and wanted <= labels for space, labels in known):
                continue
            yield Bearer(
                kind="Service",
                namespace=service.namespace,
                name=service.name,
                labels=tuple(sorted(wanted)),
                ports=tuple(
                    (port.target, port.number)
                    if isinstance(port.target, str)
                    else (port.name, port.target or port.number)
                    for port in service.ports
                ),
            )
