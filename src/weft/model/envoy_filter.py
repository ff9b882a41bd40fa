"""EnvoyFilter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one
from weft.model.istio import IstioResource, IstioStatus, PolicyTargetReference, WorkloadSelector
from weft.model.scalars import Json, ProtoInt, ProtoPort, Text, UInt


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


class EnvoyFilterSpec(Shape):
    """Changes to the configuration of proxies."""

    config_patches: tuple[EnvoyConfigObjectPatch, ...] | None = None
    priority: ProtoInt | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None
    workload_selector: WorkloadSelector | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the change is attached to."""
        yield from at_most_one(self, "workload_selector", "target_refs")


class EnvoyFilter(IstioResource):
    """Changes what is sent to proxies, as a last resort."""

    spec: EnvoyFilterSpec = Field(default_factory=lambda: EnvoyFilterSpec())
    status: IstioStatus | None = None
