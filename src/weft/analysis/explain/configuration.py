"""What one Envoy runs, indexed for questions: listeners, route tables, clusters and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from weft.analysis.match import Scene
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from weft.protos.pool import message_class

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.emit.bundle import Bundle
    from weft.emit.packed import Packed
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
        self._suffix_lengths = sorted({len(key) for key in self._suffixes}, reverse=True)
        self._prefix_lengths = sorted({len(key) for key in self._prefixes}, reverse=True)

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


def without_port(host: str) -> str:
    """``reviews:9080`` -> ``reviews``; ``[::1]:80`` -> ``[::1]``."""
    at = host.rfind(":")
    return host if at < 0 or host.rfind("]") > at else host[:at]


@dataclass(slots=True)
class Decoded:
    """Messages that were read before, by type and content, so that proxies share them."""

    _known: dict[tuple[str, str, str], Message] = field(default_factory=dict)
    _tables: dict[int, Table] = field(default_factory=dict)
    _configs: dict[bytes, Message | None] = field(default_factory=dict)

    def read(self, packed: Packed, type_url: str) -> Message:
        """The resource."""
        from weft.protos.wire import from_any

        key = (type_url, packed.name, packed.version)
        if key not in self._known:
            self._known[key] = from_any(packed.body)
        return self._known[key]

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


Endpoints = Callable[[str], "endpoint_v3.ClusterLoadAssignment | None"]


class Configuration:
    """All that a proxy runs. ``endpoints`` gives those of an EDS cluster; None when nothing is known."""

    def __init__(
        self,
        listeners: Mapping[str, listener_v3.Listener],
        routes: Mapping[str, route_v3.RouteConfiguration],
        clusters: Mapping[str, Callable[[], cluster_v3.Cluster]],
        endpoints: Endpoints,
        decoded: Decoded,
    ) -> None:
        self.listeners = listeners
        self._routes = routes
        self._clusters = clusters
        self._endpoints = endpoints
        self.decoded = decoded

    @classmethod
    def of_bundle(cls, bundle: Bundle, endpoints: Endpoints, decoded: Decoded) -> Configuration:
        """What a proxy gets."""

        def cluster(packed: Packed) -> Callable[[], cluster_v3.Cluster]:
            return lambda: cast("cluster_v3.Cluster", decoded.read(packed, CLUSTER_TYPE))

        resources = bundle.resources
        return cls(
            {
                name: cast("listener_v3.Listener", decoded.read(unit, LISTENER_TYPE))
                for name, unit in resources[LISTENER_TYPE].items()
            },
            _Lazy(resources[ROUTE_TYPE], decoded),
            {name: cluster(unit) for name, unit in resources[CLUSTER_TYPE].items()},
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

    def cluster(self, name: str) -> cluster_v3.Cluster | None:
        """The cluster of a name."""
        made = self._clusters.get(name)
        return None if made is None else made()

    @cached_property
    def _load(self) -> dict[str, endpoint_v3.ClusterLoadAssignment | None]:
        return {}

    def endpoints(self, cluster: cluster_v3.Cluster) -> endpoint_v3.ClusterLoadAssignment | None:
        """The endpoints of a cluster; None when nobody knows them."""
        if cluster.HasField("load_assignment"):
            return cluster.load_assignment
        if cluster.name not in self._load:
            self._load[cluster.name] = self._endpoints(cluster.name)
        return self._load[cluster.name]


class _Lazy(Mapping[str, "route_v3.RouteConfiguration"]):
    """Route tables, read when they are asked for."""

    def __init__(self, packed: Mapping[str, Packed], decoded: Decoded) -> None:
        self._packed = packed
        self._decoded = decoded

    def __getitem__(self, name: str) -> route_v3.RouteConfiguration:
        return cast("route_v3.RouteConfiguration", self._decoded.read(self._packed[name], ROUTE_TYPE))

    def __iter__(self) -> Any:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


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
                    found[kind][getattr(message, "name", "") or message.cluster_name] = message
    return Configuration(
        found["Listeners"],
        found["Routes"],
        {name: _given(cluster) for name, cluster in found["Clusters"].items()},
        lambda name: found["Endpoints"].get(name),
        decoded,
    )


def _given(cluster: cluster_v3.Cluster) -> Callable[[], cluster_v3.Cluster]:
    return lambda: cluster
