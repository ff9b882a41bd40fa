"""The only registry of kinds. A row names its model; the class is imported when somebody needs it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from weft.model.resource import Resource

NETWORKING: Final = "networking.istio.io"
SECURITY: Final = "security.istio.io"
TELEMETRY: Final = "telemetry.istio.io"
GATEWAY_API: Final = "gateway.networking.k8s.io"
DISCOVERY: Final = "discovery.k8s.io"
RBAC: Final = "rbac.authorization.k8s.io"
WEFT: Final = "weft.dev"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``. ``path`` is kubectl's JSONPath; priority 1 shows with ``-o wide`` only.

    The name stands before these columns, the age after them. ``of`` is the path of the number that the
    first one is out of, as in ``1/2``; if they are not there, they are 0 and 1.
    """

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind. ``versions`` are those served, the one that is stored first; ``where`` is "module:class".

    ``names`` says what form the names of its objects have: "name" (DNS-1123 subdomain, dots allowed),
    "label" (without dots), "service" (that begins with a letter) or "path" (whatever one step of a path is).
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    where: str
    columns: tuple[Column, ...] = ()
    names: str = "name"
    categories: tuple[str, ...] = ()
    status: bool = True

    @property
    def id(self) -> str:
        """ "group/Kind", as in ``Key.kind``."""
        return f"{self.group}/{self.kind}"

    @property
    def api_version(self) -> str:
        """The stored version as ``apiVersion`` says it."""
        return self.api_version_of(self.versions[0])

    def api_version_of(self, version: str) -> str:
        """``networking.istio.io/v1``, or ``v1`` in the core group."""
        return f"{self.group}/{version}" if self.group else version

    @property
    def model(self) -> type[Resource]:
        """The class, imported now if nobody did before."""
        return _model(self.where)


@cache
def _model(where: str) -> type[Resource]:
    from weft.model.resource import Resource

    module, _, name = where.partition(":")
    found = getattr(importlib.import_module(f"weft.model.{module}"), name)
    if not (isinstance(found, type) and issubclass(found, Resource)):
        raise TypeError(f"{where} is no resource")
    return found


_ISTIO: Final = ("v1", "v1beta1", "v1alpha3")
_CATEGORIES: Final = {
    NETWORKING: ("istio-io", "networking-istio-io"),
    SECURITY: ("istio-io", "security-istio-io"),
    TELEMETRY: ("istio-io", "telemetry-istio-io"),
    GATEWAY_API: ("gateway-api",),
    WEFT: ("weft",),
}


def _row(
    group: str,
    versions: tuple[str, ...],
    kind: str,
    short: tuple[str, ...],
    where: str,
    *columns: Column,
    plural: str = "",
    namespaced: bool = True,
    names: str = "name",
    status: bool = True,
) -> KindRow:
    lower = kind.lower()
    many = plural or (f"{lower[:-1]}ies" if lower.endswith("y") and lower[-2] not in "aeiou" else f"{lower}s")
    categories = _CATEGORIES.get(group, ("all",) if kind == "Service" else ())
    return KindRow(
        group,
        versions,
        kind,
        many,
        lower,
        short,
        namespaced,
        f"{where}:{kind}",
        columns,
        names,
        categories,
        status,
    )


_CORE: Final = ("v1",)
_GIVES: Final = (
    Column("Role", ".roleRef.name"),
    Column("Subjects", ".subjects[*].name", priority=1),
)
_HOSTNAMES: Final = Column("Hostnames", ".spec.hostnames")
_ACCEPTED: Final = Column("Accepted", '.status.conditions[?(@.type=="Accepted")].status')
_PROGRAMMED: Final = Column("Programmed", '.status.conditions[?(@.type=="Programmed")].status')

KINDS: Final[tuple[KindRow, ...]] = (
    _row(
        "",
        _CORE,
        "Namespace",
        ("ns",),
        "core",
        Column("Status", ".status.phase"),
        namespaced=False,
        names="label",
    ),
    _row(
        "",
        _CORE,
        "Service",
        ("svc",),
        "service",
        Column("Type", ".spec.type"),
        Column("Cluster-IP", ".spec.clusterIP"),
        Column("External-IP", ".status.loadBalancer.ingress[*].ip"),
        Column("Port(s)", ".spec.ports[*].port"),
        Column("Selector", ".spec.selector", priority=1),
        names="service",
    ),
    _row("", _CORE, "ServiceAccount", ("sa",), "core", Column("Secrets", ".secrets[*].name"), status=False),
    _row(
        "",
        _CORE,
        "Secret",
        (),
        "core",
        Column("Type", ".type"),
        Column("Data", ".data"),
        status=False,
    ),
    _row("", _CORE, "ConfigMap", ("cm",), "core", Column("Data", ".data"), status=False),
    _row(
        "",
        _CORE,
        "Endpoints",
        ("ep",),
        "endpoints",
        Column("Endpoints", ".subsets[*].addresses[*].ip"),
        plural="endpoints",
        status=False,
    ),
    _row(
        DISCOVERY,
        _CORE,
        "EndpointSlice",
        (),
        "endpoints",
        Column("AddressType", ".addressType"),
        Column("Ports", ".ports[*].port"),
        Column("Endpoints", ".endpoints[*].addresses[*]"),
        status=False,
    ),
    _row(RBAC, _CORE, "Role", (), "rbac", names="path", status=False),
    _row(RBAC, _CORE, "ClusterRole", (), "rbac", namespaced=False, names="path", status=False),
    _row(RBAC, _CORE, "RoleBinding", (), "rbac", *_GIVES, names="path", status=False),
    _row(
        RBAC, _CORE, "ClusterRoleBinding", (), "rbac", *_GIVES, namespaced=False, names="path", status=False
    ),
    _row(
        NETWORKING,
        _ISTIO,
        "VirtualService",
        ("vs",),
        "virtual_service",
        Column("Gateways", ".spec.gateways"),
        Column("Hosts", ".spec.hosts"),
    ),
    _row(NETWORKING, _ISTIO, "DestinationRule", ("dr",), "destination_rule", Column("Host", ".spec.host")),
    _row(NETWORKING, _ISTIO, "Gateway", ("gw",), "istio_gateway"),
    _row(
        NETWORKING,
        _ISTIO,
        "ServiceEntry",
        ("se",),
        "service_entry",
        Column("Hosts", ".spec.hosts"),
        Column("Location", ".spec.location"),
        Column("Resolution", ".spec.resolution"),
    ),
    _row(
        NETWORKING,
        _ISTIO,
        "WorkloadEntry",
        ("we",),
        "workload_entry",
        Column("Address", ".spec.address"),
        plural="workloadentries",
    ),
    _row(NETWORKING, _ISTIO, "WorkloadGroup", ("wg",), "workload_group"),
    _row(NETWORKING, _ISTIO, "Sidecar", (), "sidecar"),
    _row(NETWORKING, ("v1beta1",), "ProxyConfig", (), "proxy_config"),
    _row(NETWORKING, ("v1alpha3",), "EnvoyFilter", (), "envoy_filter"),
    _row(
        SECURITY,
        ("v1", "v1beta1"),
        "PeerAuthentication",
        ("pa",),
        "peer_authentication",
        Column("Mode", ".spec.mtls.mode"),
    ),
    _row(
        SECURITY,
        ("v1", "v1beta1"),
        "AuthorizationPolicy",
        ("ap",),
        "authorization_policy",
        Column("Action", ".spec.action"),
    ),
    _row(SECURITY, ("v1", "v1beta1"), "RequestAuthentication", ("ra",), "request_authentication"),
    _row(TELEMETRY, ("v1", "v1alpha1"), "Telemetry", ("telemetry",), "telemetry"),
    _row(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "GatewayClass",
        ("gc",),
        "gateway_class",
        Column("Controller", ".spec.controllerName"),
        _ACCEPTED,
        Column("Description", ".spec.description", priority=1),
        plural="gatewayclasses",
        namespaced=False,
    ),
    _row(
        GATEWAY_API,
        ("v1", "v1beta1"),
        "Gateway",
        ("gtw",),
        "gateway",
        Column("Class", ".spec.gatewayClassName"),
        Column("Address", ".status.addresses[*].value"),
        _PROGRAMMED,
    ),
    _row(GATEWAY_API, ("v1",), "ListenerSet", ("lset",), "listener_set", _ACCEPTED, _PROGRAMMED),
    _row(GATEWAY_API, ("v1", "v1beta1"), "HTTPRoute", (), "http_route", _HOSTNAMES),
    _row(GATEWAY_API, ("v1",), "GRPCRoute", (), "grpc_route", _HOSTNAMES),
    _row(GATEWAY_API, ("v1", "v1alpha3", "v1alpha2"), "TLSRoute", (), "tls_route"),
    _row(GATEWAY_API, ("v1", "v1alpha2"), "TCPRoute", (), "tcp_route"),
    _row(GATEWAY_API, ("v1", "v1alpha2"), "UDPRoute", (), "udp_route"),
    _row(GATEWAY_API, ("v1", "v1beta1"), "ReferenceGrant", ("refgrant",), "reference_grant", status=False),
    _row(GATEWAY_API, ("v1", "v1alpha3"), "BackendTLSPolicy", ("btlspolicy",), "backend_tls_policy"),
    _row(
        WEFT,
        ("v1alpha1",),
        "Workload",
        ("wl",),
        "workload",
        Column("Ready", ".status.readyReplicas", of=".spec.replicas"),
        Column("Command", ".spec.command", priority=1),
        names="label",
    ),
    _row(WEFT, ("v1alpha1",), "MeshConfig", (), "mesh_config"),
    _row(
        WEFT,
        ("v1alpha1",),
        "RateLimit",
        (),
        "rate_limit",
        Column("Mode", ".spec.mode"),
        Column("Limits", ".spec.limits[*].name", priority=1),
        status=False,
    ),
)

_BY_KIND: Final[Mapping[tuple[str, str], KindRow]] = {
    (row.api_version_of(version), row.kind): row for row in KINDS for version in row.versions
}
_BY_PLURAL: Final[Mapping[tuple[str, str, str], KindRow]] = {
    (row.group, version, row.plural): row for row in KINDS for version in row.versions
}
_BY_ID: Final[Mapping[str, KindRow]] = {row.id: row for row in KINDS}


def by_kind(api_version: str, kind: str) -> KindRow | None:
    """The row of ``apiVersion`` and ``kind``; None when weft does not serve it."""
    return _BY_KIND.get((api_version, kind))


def by_plural(group: str, version: str, plural: str) -> KindRow | None:
    """The row of a path as ``/apis/GROUP/VERSION/…/PLURAL``."""
    return _BY_PLURAL.get((group, version, plural))


def by_id(kind: str) -> KindRow | None:
    """The row of a ``Key.kind``."""
    return _BY_ID.get(kind)


def group_versions() -> tuple[tuple[str, str], ...]:
    """Every (group, version) that is served, in the order of the catalog, preferred versions first."""
    return tuple(dict.fromkeys((row.group, version) for row in KINDS for version in row.versions))
