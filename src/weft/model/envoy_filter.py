"""EnvoyFilter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, inside
from weft.model.istio import IstioResource, IstioStatus, PolicyTargetReference, WorkloadSelector
from weft.model.patterns import LONGEST, pattern
from weft.model.scalars import Json, ProtoInt, ProtoPort, Text, UInt

_LISTENERS: Final = frozenset({"LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER"})
_OBJECTS: Final = {
    "ROUTE_CONFIGURATION": "routeConfiguration",
    "VIRTUAL_HOST": "routeConfiguration",
    "HTTP_ROUTE": "routeConfiguration",
    "CLUSTER": "cluster",
}
_MANAGERS: Final = ("envoy.filters.network.http_connection_manager", "envoy.http_connection_manager")
# Names that Envoy's filters had before version 3 of its API.
RENAMED: Final = {
    **{
        f"envoy.{name}": f"envoy.filters.http.{name}"
        for name in (
            "buffer",
            "cors",
            "csrf",
            "ext_authz",
            "fault",
            "grpc_http1_bridge",
            "grpc_json_transcoder",
            "grpc_web",
            "gzip",
            "health_check",
            "ip_tagging",
            "lua",
            "router",
            "squash",
        )
    },
    "envoy.rate_limit": "envoy.filters.http.ratelimit",
    "envoy.http_dynamo_filter": "envoy.filters.http.dynamo",
    "envoy.listener.http_inspector": "envoy.filters.listener.http_inspector",
    "envoy.listener.original_dst": "envoy.filters.listener.original_dst",
    "envoy.listener.original_src": "envoy.filters.listener.original_src",
    "envoy.listener.proxy_protocol": "envoy.filters.listener.proxy_protocol",
    "envoy.listener.tls_inspector": "envoy.filters.listener.tls_inspector",
    **{
        f"envoy.{name}": f"envoy.filters.network.{name}"
        for name in (
            "client_ssl_auth",
            "http_connection_manager",
            "mongo_proxy",
            "ratelimit",
            "redis_proxy",
            "tcp_proxy",
        )
    },
}


class ClusterMatch(Shape):
    """Clusters that are changed."""

    name: Text | None = None
    port_number: UInt | None = None
    service: Text | None = None
    subset: Text | None = None


class SubFilterMatch(Shape):
    """The filter in a filter, as an HTTP filter."""

    name: Text | None = None


class FilterMatch(Shape):
    """The filter that is changed, or beside which another is put."""

    name: Text | None = None
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(Shape):
    """Filter chains that are changed."""

    application_protocols: Text | None = None
    destination_port: UInt | None = None
    filter: FilterMatch | None = None
    name: Text | None = None
    sni: Text | None = None
    transport_protocol: Text | None = None


class ListenerMatch(Shape):
    """Listeners that are changed."""

    filter_chain: FilterChainMatch | None = None
    listener_filter: Text | None = None
    name: Text | None = None
    port_name: Text | None = None
    port_number: UInt | None = None


class ProxyMatch(Shape):
    """Proxies that are changed."""

    metadata: dict[str, Text] | None = None
    proxy_version: Text | None = None


class RouteMatch(Shape):
    """Routes that are changed."""

    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] | None = None
    name: Text | None = None


class VirtualHostMatch(Shape):
    """Virtual hosts that are changed."""

    domain_name: Text | None = None
    name: Text | None = None
    route: RouteMatch | None = None


class RouteConfigurationMatch(Shape):
    """Route tables that are changed."""

    gateway: Text | None = None
    name: Text | None = None
    port_name: Text | None = None
    port_number: UInt | None = None
    vhost: VirtualHostMatch | None = None


class WaypointRouteMatch(Shape):
    """The waypoint's route that is changed."""

    name: Text | None = None


class WaypointMatch(Shape):
    """What is changed in a waypoint."""

    filter: FilterMatch | None = None
    port_number: ProtoPort | None = None
    route: WaypointRouteMatch | None = None


class EnvoyConfigObjectMatch(Shape):
    """Where a change is made."""

    cluster: ClusterMatch | None = None
    context: Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"] | None = None
    listener: ListenerMatch | None = None
    proxy: ProxyMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    waypoint: WaypointMatch | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One kind of object."""
        yield from at_most_one(self, "listener", "route_configuration", "cluster", "waypoint")
        if (self.waypoint is not None) != (self.context == "WAYPOINT"):
            yield Flaw(("waypoint",), "waypoint goes with context WAYPOINT, and with it only")


class Patch(Shape):
    """What is changed."""

    filter_class: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] | None = None
    operation: (
        Literal[
            "INVALID",
            "MERGE",
            "ADD",
            "REMOVE",
            "INSERT_BEFORE",
            "INSERT_AFTER",
            "INSERT_FIRST",
            "REPLACE",
            "MERGE_AND_REPLACE_LIST",
        ]
        | None
    ) = None
    value: Json | None = None


class EnvoyConfigObjectPatch(Shape):
    """A change, and where it is made."""

    apply_to: (
        Literal[
            "INVALID",
            "LISTENER",
            "FILTER_CHAIN",
            "NETWORK_FILTER",
            "HTTP_FILTER",
            "ROUTE_CONFIGURATION",
            "VIRTUAL_HOST",
            "HTTP_ROUTE",
            "CLUSTER",
            "EXTENSION_CONFIG",
            "BOOTSTRAP",
            "LISTENER_FILTER",
        ]
        | None
    ) = None
    match: EnvoyConfigObjectMatch | None = None
    patch: Patch | None = None

    def flaws(self) -> Iterator[Flaw]:
        """What is changed, where and how fit each other (Istio's validation of EnvoyFilter)."""
        match = self.match
        if match is not None and match.context == "WAYPOINT":
            return
        for wrong in (self._incomplete(), self._unfit()):
            first = next(wrong, None)
            if first is not None:
                yield first
                return
        if match is None or match.listener is None or match.listener.filter_chain is None:
            return
        chosen = match.listener.filter_chain.filter
        if chosen is not None and self.apply_to in {"LISTENER", "FILTER_CHAIN"}:
            message = f"a filter is not looked at with applyTo {self.apply_to}"
            yield Flaw(("match", "listener", "filterChain", "filter"), message, "remove it", warns=True)
        if chosen is not None and self.apply_to in _LISTENERS:
            yield from inside(("match", "listener", "filterChain", "filter"), self._filter(chosen))

    def _incomplete(self) -> Iterator[Flaw]:
        if self.apply_to in {None, "INVALID"}:
            yield Flaw(("applyTo",), "applyTo is missing", "as HTTP_FILTER or CLUSTER")
        if self.patch is None:
            yield Flaw(("patch",), "patch is missing", "add operation and value")
        elif self.patch.operation in {None, "INVALID"}:
            yield Flaw(("patch", "operation"), "operation is missing", "as MERGE or INSERT_BEFORE")
        elif self.patch.operation != "REMOVE" and self.patch.value is None:
            yield Flaw(("patch", "value"), "value is missing", "add what is put there")

    def _unfit(self) -> Iterator[Flaw]:
        match = self.match
        if match is None:
            return
        version = match.proxy.proxy_version if match.proxy is not None else None
        if version and len(version.encode(errors="replace")) <= LONGEST and (wrong := pattern(version)):
            yield Flaw(("match", "proxy", "proxyVersion"), wrong)
        objects = {
            "listener": match.listener,
            "routeConfiguration": match.route_configuration,
            "cluster": match.cluster,
        }
        wanted = "listener" if self.apply_to in _LISTENERS else _OBJECTS.get(self.apply_to or "")
        for name, value in objects.items():
            if value is not None and wanted is not None and name != wanted:
                message = f"applyTo {self.apply_to} is not looked for in a {name}"
                yield Flaw(("match", name), message, f"write {wanted}")

    def _filter(self, chosen: FilterMatch) -> Iterator[Flaw]:
        if not chosen.name:
            yield Flaw(("name",), "the name is missing", "as envoy.filters.network.http_connection_manager")
        elif chosen.sub_filter is not None:
            if self.apply_to != "HTTP_FILTER":
                yield Flaw(("subFilter",), "a filter in a filter goes with applyTo HTTP_FILTER", "remove it")
            elif chosen.name not in _MANAGERS:
                yield Flaw(("name",), f"{chosen.name!r} has no filters in it", f"write {_MANAGERS[0]}")
            elif not chosen.sub_filter.name:
                yield Flaw(("subFilter", "name"), "the name is missing", "as envoy.filters.http.router")
        for path, name in (
            (("name",), chosen.name),
            (("subFilter", "name"), chosen.sub_filter.name if chosen.sub_filter is not None else None),
        ):
            if name in RENAMED:
                yield Flaw(path, f"{name!r} is an old name", f"write {RENAMED[name]!r}", warns=True)


class EnvoyFilterSpec(Shape):
    """Changes to the configuration of proxies."""

    config_patches: tuple[EnvoyConfigObjectPatch, ...] | None = None
    priority: ProtoInt | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None
    workload_selector: WorkloadSelector | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the change is attached to."""
        yield from at_most_one(self, "workload_selector", "target_refs")
        hint = "try other resources first, and look after it at each update of Envoy"
        yield Flaw((), "an EnvoyFilter depends on how proxies are configured inside", hint, warns=True)


class EnvoyFilter(IstioResource):
    """Changes what is sent to proxies, as a last resort."""

    spec: EnvoyFilterSpec = Field(default_factory=lambda: EnvoyFilterSpec())
    status: IstioStatus | None = None
