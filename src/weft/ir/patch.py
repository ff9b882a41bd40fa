"""Changes that people make to generated configuration themselves (Istio's EnvoyFilter)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """What a patch is applied to."""

    LISTENER = "LISTENER"
    LISTENER_FILTER = "LISTENER_FILTER"
    FILTER_CHAIN = "FILTER_CHAIN"
    NETWORK_FILTER = "NETWORK_FILTER"
    HTTP_FILTER = "HTTP_FILTER"
    ROUTE_CONFIGURATION = "ROUTE_CONFIGURATION"
    VIRTUAL_HOST = "VIRTUAL_HOST"
    HTTP_ROUTE = "HTTP_ROUTE"
    CLUSTER = "CLUSTER"
    EXTENSION_CONFIG = "EXTENSION_CONFIG"
    BOOTSTRAP = "BOOTSTRAP"


class Operation(StrEnum):
    """What it does. ``MERGE`` appends to lists, ``MERGE_AND_REPLACE_LIST`` puts others in their place."""

    MERGE = "MERGE"
    MERGE_AND_REPLACE_LIST = "MERGE_AND_REPLACE_LIST"
    ADD = "ADD"
    REMOVE = "REMOVE"
    REPLACE = "REPLACE"
    INSERT_BEFORE = "INSERT_BEFORE"
    INSERT_AFTER = "INSERT_AFTER"
    INSERT_FIRST = "INSERT_FIRST"


class FilterClass(StrEnum):
    """Beside which filters a new one is put: after those that say who it is, or who may do what; before what
    counts.
    """

    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"


class Context(StrEnum):
    """The part of a proxy that something belongs to."""

    ANY = "ANY"
    SIDECAR_INBOUND = "SIDECAR_INBOUND"
    SIDECAR_OUTBOUND = "SIDECAR_OUTBOUND"
    GATEWAY = "GATEWAY"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMatch:
    """Where a patch is applied. What is empty or 0 matches everything.

    ``listener`` to ``http_filter`` are about listeners, ``cluster…`` about clusters, the rest about routes.
    A ``filter`` of None is no condition, of "" one that no filter meets.
    """

    listener: str = ""
    listener_port: int = 0
    listener_filter: str = ""
    chain: str = ""
    sni: str = ""
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()
    destination_port: int = 0
    filter: str | None = None
    http_filter: str | None = None
    routes: str = ""
    routes_port: int = 0
    routes_port_name: str = ""
    routes_gateway: str = ""
    virtual_host: str = ""
    domain: str = ""
    by_route: bool = False
    route: str = ""
    route_action: str = ""
    cluster: str = ""
    cluster_service: str = ""
    cluster_port: int = 0
    cluster_subset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One change. ``value`` is the JSON form of the message, empty for none.

    ``filter_class``: where a new filter goes, if the match names none to put it beside.
    ``origin`` is who wants it (``namespace/name``), ``index`` which of its patches this is.
    """

    target: Target
    operation: Operation
    context: Context = Context.ANY
    match: PatchMatch = PatchMatch()
    value: str = ""
    filter_class: FilterClass | None = None
    origin: str = ""
    index: int = 0
