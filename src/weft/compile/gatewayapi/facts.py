"""What the Gateway API's rules are decided by: gateways, routes, grants, and what they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.memo import Memo
from weft.compile.registry import Services
from weft.compile.service import Service
from weft.compile.settings import Settings
from weft.model.backend_tls_policy import BackendTLSPolicy
from weft.model.core import ConfigMap, Namespace, Secret
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute
from weft.model.listener_set import ListenerSet
from weft.model.reference_grant import ReferenceGrant
from weft.model.resource import Key
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.model.udp_route import UDPRoute
from weft.names import service_host

GROUP: Final = "gateway.networking.k8s.io"
BUILT_IN_CLASSES: Final = frozenset({"istio", "weft"})

Route = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute

_NO_HTTP: Final[Mapping[Key, HTTPRoute]] = {}
_NO_GRPC: Final[Mapping[Key, GRPCRoute]] = {}
_NO_TLS: Final[Mapping[Key, TLSRoute]] = {}
_NO_TCP: Final[Mapping[Key, TCPRoute]] = {}
_NO_UDP: Final[Mapping[Key, UDPRoute]] = {}
_NO_SERVICES: Final = Services()
_NO_POLICIES: Final[Mapping[Key, BackendTLSPolicy]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether something stands. ``reason`` is the specification's word for its condition."""

    holds: bool = True
    reason: str = "Accepted"
    message: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Tables by key; the same object as long as none of them differs. ``routes`` are HTTPRoutes."""

    classes: Mapping[Key, GatewayClass]
    gateways: Mapping[Key, Gateway]
    listener_sets: Mapping[Key, ListenerSet]
    routes: Mapping[Key, HTTPRoute]
    grpc_routes: Mapping[Key, GRPCRoute]
    tls_routes: Mapping[Key, TLSRoute]
    tcp_routes: Mapping[Key, TCPRoute]
    udp_routes: Mapping[Key, UDPRoute]
    tls_policies: Mapping[Key, BackendTLSPolicy]
    grants: Mapping[Key, ReferenceGrant]
    namespaces: Mapping[Key, Namespace]
    secrets: Mapping[Key, Secret]
    config_maps: Mapping[Key, ConfigMap]
    services: Services
    settings: Settings
    memo: Memo

    @property
    def all_routes(self) -> tuple[Mapping[Key, Route], ...]:
        """The tables of every kind of routes."""
        return (self.routes, self.grpc_routes, self.tls_routes, self.tcp_routes, self.udp_routes)

    @property
    def ground(self) -> Facts:
        """These without routes and policies: what decides about one route, whatever becomes of others."""
        return self.memo(_bare, self, self.services)

    @property
    def doors(self) -> Facts:
        """These without services, too: what decides about listeners, and which routes are bound to them."""
        return self.memo(_bare, self, _NO_SERVICES)

    def ours(self, gateway: Gateway) -> bool:
        """Whether a Gateway's class is one that weft controls."""
        name = str(gateway.spec.gateway_class_name)
        found = self.classes.get(Key(f"{GROUP}/GatewayClass", "", name))
        if found is None:
            return name in BUILT_IN_CLASSES
        return str(found.spec.controller_name) in self.settings.controllers

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace; its name is one of them, as in Kubernetes."""
        found = self.namespaces.get(Key("/Namespace", "", namespace))
        own = (found.metadata.labels or {}) if found is not None else {}
        return {"kubernetes.io/metadata.name": namespace, **own}

    def service(self, namespace: str, name: str) -> Service | None:
        """A Kubernetes Service by its name."""
        host = service_host(name, namespace, self.settings.domain)
        return next((s for s in self.services.by_host.get(host, ()) if s.kubernetes), None)

    def secret(self, namespace: str, name: str) -> Secret | None:
        """A Secret by its name."""
        return self.secrets.get(Key("/Secret", namespace, name))

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """A ConfigMap by its name."""
        return self.config_maps.get(Key("/ConfigMap", namespace, name))

    def permits(self, kind: str, owner: str, group: str, to: str, namespace: str, name: str) -> bool:
        """Whether a ``kind`` of the Gateway API in namespace ``owner`` may refer to an object elsewhere."""
        if owner == namespace:
            return True
        for key, grant in self.grants.items():
            if key.namespace != namespace:
                continue
            comes = any(
                str(f.group) == GROUP and str(f.kind) == kind and str(f.namespace) == owner
                for f in grant.spec.from_ or ()
            )
            goes = any(
                str(t.group) == group and str(t.kind) == to and (not t.name or str(t.name) == name)
                for t in grant.spec.to or ()
            )
            if comes and goes:
                return True
        return False


def _bare(facts: Facts, services: Services) -> Facts:
    return facts.memo(
        Facts,
        facts.classes,
        facts.gateways,
        facts.listener_sets,
        _NO_HTTP,
        _NO_GRPC,
        _NO_TLS,
        _NO_TCP,
        _NO_UDP,
        _NO_POLICIES,
        facts.grants,
        facts.namespaces,
        facts.secrets,
        facts.config_maps,
        services,
        facts.settings,
        facts.memo,
    )
