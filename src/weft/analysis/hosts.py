"""Names that routes lead to, and who may see them, as Istio's analyzers decide it.

After istio/istio, pkg/config/analysis/analyzers/util/{hosts,service_lookup}.go; in addition, ``reviews.ns``
and the like are not names of services there, nor here: only a name without a dot is a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from weft.analysis.objects import Object, Objects
from weft.analysis.tree import number, pairs, rows, words
from weft.names import expand_host

ALL = "*"
OWN = "."


@dataclass(frozen=True, eq=False)
class Target:
    """What has a host. ``selector`` chooses its workloads in its namespace; None: it lists them."""

    owner: Object
    ports: tuple[int, ...]
    selector: Mapping[str, str] | None


def scopes(export: Iterable[str], namespace: str) -> set[str]:
    """Namespaces that ``exportTo`` means; ``*`` alone when it means all of them."""
    said = list(export)
    if not said or ALL in said:
        return {ALL}
    return {namespace if name == OWN else name for name in said}


class Hosts:
    """Every host of Services and ServiceEntries, with the namespaces that see it."""

    def __init__(self, objects: Objects) -> None:
        self._exact: dict[tuple[str, str], Target] = {}
        self._wild: list[tuple[str, str, Target]] = []
        for entry in objects.of("networking.istio.io/ServiceEntry"):
            ports = tuple(port for _, row in rows(entry.spec, "ports") if (port := number(row, "number")))
            chosen = pairs(entry.spec, "workloadSelector", "labels") or None
            target = Target(entry, ports, chosen)
            for scope in scopes(words(entry.spec, "exportTo"), entry.namespace):
                for host in words(entry.spec, "hosts"):
                    self._add(scope, expand_host(host, entry.namespace), target)
        for service in objects.of("/Service"):
            ports = tuple(port for _, row in rows(service.spec, "ports") if (port := number(row, "port")))
            target = Target(service, ports, pairs(service.spec, "selector") or None)
            said = service.annotations.get("networking.istio.io/exportTo", "")
            export = [name.strip() for name in said.split(",") if name.strip()]
            for scope in scopes(export, service.namespace):
                self._add(scope, expand_host(service.name, service.namespace), target)

    def _add(self, scope: str, host: str, target: Target) -> None:
        self._exact[scope, host] = target
        if host.startswith("*"):
            self._wild.append((scope, host, target))

    def known(self, namespace: str) -> Iterator[str]:
        """What a resource of a namespace may write: hosts in full, and short names of its own namespace."""
        for scope, host in self._exact:
            if scope in {ALL, namespace}:
                yield host
                name, dot, rest = host.partition(".")
                if dot and rest.startswith(f"{namespace}.svc."):
                    yield name

    def find(self, host: str, namespace: str, export: Iterable[str] = ()) -> Target | None:
        """What ``host`` means in a resource of a namespace that is exported to ``export``."""
        full = expand_host(host, namespace)
        seen = scopes(export, namespace) if export else {namespace}
        for scope in (ALL, *sorted(seen)):
            if (target := self._exact.get((scope, full))) is not None:
                return target
        bare = host.removeprefix("*")
        for scope, wildcard, target in self._wild:
            if scope in {ALL, namespace} and bare.endswith(wildcard.removeprefix("*")):
                return target
        return None


def overlap(one: str, other: str) -> bool:
    """Whether hosts, wildcards perhaps, have a name in common (istio/istio, pkg/config/host/name.go)."""
    wild, wide = one.startswith("*"), other.startswith("*")
    if wild and wide:
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    if wild:
        return other.endswith(one[1:])
    return one.endswith(other[1:]) if wide else one == other
