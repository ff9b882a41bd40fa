"""What one Envoy runs, indexed for questions: listeners, route tables, clusters and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from weft.analysis.match import Scene
from weft.emit.bundle import emit, emit_cluster, emit_listener, emit_routes
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from weft.protos.pool import message_class

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.emit.bundle import Bundle
    from weft.emit.packed import Packed
    from weft.ir import Proxy
    from weft.protos import cluster_v3, endpoint_v3, listener_v3, route_v3, well_known

M = TypeVar("M", bound="Message")

_PREFIX: Final = "type.googleapis.com/"


def opened(packed: well_known.Any) -> Message | None:
    """The message inside an ``Any``; None when Envoy knows no such type."""
    try:
        kind = message_class(packed.type_url.removeprefix(_PREFIX))
    except KeyError:
        return None
    return kind.FromString(packed.value)


def short_type(packed: well_known.Any) -> str:
    """``envoy.extensions.filters.http.cors.v3.Cors`` of its type URL."""
    return packed.type_url.removeprefix(_PREFIX)


class Table:
    """A route table whose virtual hosts are found by host name as Envoy finds them."""

    def __init__(self, config: route_v3.RouteConfiguration) -> None:
        self.config = config
        self._exact: dict[str, route_v3.VirtualHost] = {}
        self._suffixes: dict[str, route_v3.VirtualHost] = {}
        self._prefixes: dict[str, route_v3.VirtualHost] = {}
        self._default: route_v3.VirtualHost | None = None
        for host in config.virtual_hosts:
            for domain in host.domains:
                name = domain.lower()
                if name == "*":
                    self._default = host
                elif name.startswith("*"):
                    self._suffixes[name[1:]] = host
                elif name.endswith("*"):
                    self._prefixes[name[:-1]] = host
                else:
                    self._exact[name] = host
        self._candidates: dict[str, list[tuple[str, route_v3.Route]]] = {}
        self._suffix_lengths = sorted({len(key) for key in self._suffixes}, reverse=True)
        self._prefix_lengths = sorted({len(key) for key in self._prefixes}, reverse=True)

    def candidates(self, host: route_v3.VirtualHost) -> list[tuple[str, route_v3.Route]]:
        """The routes of a host in their order, each with what a path must begin with to fit."""
        known = self._candidates.get(host.name)
        if known is None:
            known = self._candidates[host.name] = [(_beginning(route.match), route) for route in host.routes]
        return known

    def host(self, scene: Scene) -> route_v3.VirtualHost | None:
        """The virtual host of a request: exact, then the longest ``*suffix``, ``prefix*``, ``*``."""
        if not (self._exact or self._suffixes or self._prefixes):
            return self._default
        name = scene.first(self.config.vhost_header.lower() or ":authority")
        if not name:
            return None
        if self.config.ignore_port_in_host_matching:
            name = without_port(name)
        name = name.lower()
        if name in self._exact:
            return self._exact[name]
        for length in self._suffix_lengths:
            if length < len(name) and (found := self._suffixes.get(name[-length:])) is not None:
                return found
        for length in self._prefix_lengths:
            if length < len(name) and (found := self._prefixes.get(name[:length])) is not None:
                return found
        return self._default


def _beginning(match: route_v3.RouteMatch) -> str:
    """What every path that fits begins with: quicker to look at than all of a match."""
    kind = match.WhichOneof("path_specifier")
    if kind not in {"prefix", "path", "path_separated_prefix"}:
        return ""
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        return ""
    return str(getattr(match, kind))


def without_port(host: str) -> str:
    """``reviews:9080`` -> ``reviews``; ``[::1]:80`` -> ``[::1]``."""
    at = host.rfind(":")
    return host if at < 0 or host.rfind("]") > at else host[:at]


@dataclass(slots=True)
class Decoded:
    """Messages that were read before, by type and content, so that proxies share them."""

    # With the bytes that they were read from: who emits them again finds these.
    _known: dict[tuple[str, str, str], tuple[Packed, Message]] = field(default_factory=dict)
    _tables: dict[int, Table] = field(default_factory=dict)
    _configs: dict[bytes, Message | None] = field(default_factory=dict)

    def read(self, packed: Packed, type_url: str) -> Message:
        """The resource."""
        from weft.protos.wire import from_any

        key = (type_url, packed.name, packed.version)
        if key not in self._known:
            self._known[key] = packed, from_any(packed.body)
        return self._known[key][1]

    def table(self, config: route_v3.RouteConfiguration) -> Table:
        """The table with its index."""
        known = self._tables.get(id(config))
        if known is None or known.config is not config:
            known = self._tables[id(config)] = Table(config)
        return known

    def open(self, packed: well_known.Any) -> Any:
        """The message inside an ``Any`` of a configuration; None for a type that Envoy does not know."""
        key = packed.type_url.encode() + b"\0" + packed.value
        if key not in self._configs:
            self._configs[key] = opened(packed)
        return self._configs[key]


Makers = Mapping[str, Callable[[], "Packed"]]
Endpoints = Callable[[str], "endpoint_v3.ClusterLoadAssignment | None"]


class Configuration:
    """All that a proxy runs. ``endpoints`` gives those of an EDS cluster; None when nothing is known."""

    def __init__(
        self,
        listeners: Mapping[str, listener_v3.Listener],
        routes: Mapping[str, route_v3.RouteConfiguration],
        clusters: Mapping[str, cluster_v3.Cluster],
        endpoints: Endpoints,
        decoded: Decoded,
    ) -> None:
        self.listeners = listeners
        self._routes = routes
        self._clusters = clusters
        self._endpoints = endpoints
        self._loads: dict[str, endpoint_v3.ClusterLoadAssignment | None] = {}
        self.decoded = decoded

    @classmethod
    def of_proxy(cls, proxy: Proxy, endpoints: Endpoints, decoded: Decoded) -> Configuration:
        """What a proxy gets. Of its clusters and tables only those that are asked for are made."""
        if proxy.patches:  # they may add, change and remove anything
            return cls.of_bundle(emit(proxy), endpoints, decoded)
        return cls._of(
            {unit.name: partial(emit_listener, unit, proxy.telemetry) for unit in proxy.listeners},
            {unit.name: partial(emit_routes, unit) for unit in proxy.routes},
            {unit.name: partial(emit_cluster, unit) for unit in proxy.clusters},
            endpoints,
            decoded,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle, endpoints: Endpoints, decoded: Decoded) -> Configuration:
        """What a proxy is sent."""
        listeners, routes, clusters = (
            {name: partial(_itself, unit) for name, unit in bundle.resources[kind].items()}
            for kind in (LISTENER_TYPE, ROUTE_TYPE, CLUSTER_TYPE)
        )
        return cls._of(listeners, routes, clusters, endpoints, decoded)

    @classmethod
    def _of(
        cls, listeners: Makers, routes: Makers, clusters: Makers, endpoints: Endpoints, decoded: Decoded
    ) -> Configuration:
        return cls(
            dict(_Read(listeners, LISTENER_TYPE, decoded)),
            _Read(routes, ROUTE_TYPE, decoded),
            _Read(clusters, CLUSTER_TYPE, decoded),
            endpoints,
            decoded,
        )

    @classmethod
    def of_dump(cls, dump: Mapping[str, Any], decoded: Decoded) -> Configuration:
        """What an Envoy's ``/config_dump`` says that it runs.

        Raises:
            ValueError: when the dump cannot be read.
        """
        from google.protobuf.json_format import ParseError

        try:
            return _of_dump(dump, decoded)
        except (ParseError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"this is no configuration dump of the Envoy that weft has: {error}") from error

    def table(self, name: str) -> Table | None:
        """The route table of a name, as RDS has it."""
        config = self._routes.get(name)
        return None if config is None else self.decoded.table(config)

    def tables(self) -> Iterable[route_v3.RouteConfiguration]:
        """All route tables; of a dump those within listeners, too."""
        return self._routes.values()

    def cluster(self, name: str) -> cluster_v3.Cluster | None:
        """The cluster of a name."""
        return self._clusters.get(name)

    def endpoints(self, cluster: cluster_v3.Cluster) -> endpoint_v3.ClusterLoadAssignment | None:
        """The endpoints of a cluster; None when nobody knows them."""
        if cluster.HasField("load_assignment"):
            return cluster.load_assignment
        if cluster.name not in self._loads:
            self._loads[cluster.name] = self._endpoints(cluster.name)
        return self._loads[cluster.name]


def _itself(packed: Packed) -> Packed:
    return packed


class _Read(Mapping[str, M]):
    """Resources by name, each made and read when it is first asked for."""

    def __init__(self, makers: Makers, type_url: str, decoded: Decoded) -> None:
        self._makers = makers
        self._made: dict[str, M] = {}
        self._type = type_url
        self._decoded = decoded

    def __getitem__(self, name: str) -> M:
        if name not in self._made:
            self._made[name] = cast("M", self._decoded.read(self._makers[name](), self._type))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


_PARTS: Final = {
    "Listeners": (("static_listeners", "dynamic_listeners"), "listener"),
    "Routes": (("static_route_configs", "dynamic_route_configs"), "route_config"),
    "Clusters": (("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"), "cluster"),
    "Endpoints": (("static_endpoint_configs", "dynamic_endpoint_configs"), "endpoint_config"),
}


def _of_dump(dump: Mapping[str, Any], decoded: Decoded) -> Configuration:
    from weft.protos.wire import from_dict

    found: dict[str, dict[str, Any]] = {kind: {} for kind in _PARTS}
    for section in dump.get("configs", ()):
        for kind, (groups, member) in _PARTS.items():
            if not str(section.get("@type", "")).endswith(f".{kind}ConfigDump"):
                continue
            for entry in (entry for group in groups for entry in section.get(group, ())):
                resource = dict(entry.get("active_state", entry).get(member) or {})
                if resource:
                    full_name = resource.pop("@type").removeprefix(_PREFIX)
                    message: Any = from_dict(resource, full_name)
                    name = getattr(message, "name", "") or getattr(message, "cluster_name", "")
                    found[kind][name or f"#{len(found[kind])}"] = message
    return Configuration(
        found["Listeners"],
        found["Routes"],
        found["Clusters"],
        lambda name: found["Endpoints"].get(name),
        decoded,
    )
