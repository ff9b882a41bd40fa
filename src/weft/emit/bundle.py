"""Everything one proxy gets but endpoints, as references to shared bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from weft.emit.clusters import cluster
from weft.emit.listeners import listener
from weft.emit.packed import Packed, packed_once
from weft.emit.patches.bundle import patched
from weft.emit.routes import route_configuration
from weft.ir.proxy import Proxy
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE

if TYPE_CHECKING:
    from weft.ir.cluster import Cluster
    from weft.ir.listener import Listener
    from weft.ir.route import RouteTable
    from weft.ir.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Bundle:
    """``resources``: by type URL, by name. Equal proxies give equal bundles of the very same resources."""

    resources: Mapping[str, Mapping[str, Packed]]


def emit_cluster(unit: Cluster) -> Packed:
    """One cluster, packed."""
    return packed_once(unit, unit.name, cluster)


def emit_routes(unit: RouteTable) -> Packed:
    """One route table, packed."""
    return packed_once(unit, unit.name, route_configuration)


def emit_listener(unit: Listener, telemetry: Telemetry) -> Packed:
    """One listener, packed."""
    return packed_once(unit, unit.name, listener, telemetry)


class _Table(dict[str, Packed]):
    """Resources by name. Holds the units that they were made of, so that these keep their identity."""

    __slots__ = ("__weakref__", "units")

    def __init__(self, units: tuple[object, ...], resources: Iterable[Packed]) -> None:
        super().__init__((resource.name, resource) for resource in resources)
        self.units = units


# By the very units: proxies that have the same ones share a table, and none is made twice.
_tables: Final[WeakValueDictionary[int, _Table]] = WeakValueDictionary()
_listener_tables: Final[WeakValueDictionary[tuple[object, ...], _Table]] = WeakValueDictionary()


def _clusters(units: tuple[Cluster, ...]) -> Mapping[str, Packed]:
    known = _tables.get(id(units))
    if known is None:
        known = _tables[id(units)] = _Table(units, map(emit_cluster, units))
    return known


def _routes(units: tuple[RouteTable, ...]) -> Mapping[str, Packed]:
    known = _tables.get(id(units))
    if known is None:
        known = _tables[id(units)] = _Table(units, map(emit_routes, units))
    return known


def _listeners(units: tuple[Listener, ...], telemetry: Telemetry) -> Mapping[str, Packed]:
    key = (telemetry, *map(id, units))  # not by the tuple: each proxy puts its own together
    known = _listener_tables.get(key)
    if known is None:
        packed = (emit_listener(unit, telemetry) for unit in units)
        known = _listener_tables[key] = _Table(units, packed)
    return known


def emit(proxy: Proxy, secrets: Mapping[str, Packed] | None = None) -> Bundle:
    """All resources of ``proxy``, and the ``secrets`` that it may have, by name."""
    resources: Mapping[str, Mapping[str, Packed]] = {
        CLUSTER_TYPE: _clusters(proxy.clusters),
        LISTENER_TYPE: _listeners(proxy.listeners, proxy.telemetry),
        ROUTE_TYPE: _routes(proxy.routes),
        **({SECRET_TYPE: secrets} if secrets else {}),
    }
    return Bundle(MappingProxyType(patched(resources, proxy) if proxy.patches else resources))
