"""What the Gateway API's rules are decided by: gateways, routes, grants, and what they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.registry import Services
from weft.compile.service import Service
from weft.compile.settings import Settings
from weft.model.core import Namespace, Secret
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.http_route import HTTPRoute
from weft.model.reference_grant import ReferenceGrant
from weft.model.resource import Key
from weft.names import service_host

GROUP: Final = "gateway.networking.k8s.io"
BUILT_IN_CLASSES: Final = frozenset({"istio", "weft"})


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Tables by key; the same object as long as none of them differs."""

    classes: Mapping[Key, GatewayClass]
    gateways: Mapping[Key, Gateway]
    routes: Mapping[Key, HTTPRoute]
    grants: Mapping[Key, ReferenceGrant]
    namespaces: Mapping[Key, Namespace]
    secrets: Mapping[Key, Secret]
    services: Services
    settings: Settings

    def ours(self, gateway: Gateway) -> bool:
        """Whether a Gateway's class is one that weft controls."""
        name = str(gateway.spec.gateway_class_name)
        found = next((c for key, c in self.classes.items() if key.name == name), None)
        if found is None:
            return name in BUILT_IN_CLASSES
        return str(found.spec.controller_name) in self.settings.controllers

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace; its name is one of them, as in Kubernetes."""
        found = next((n for key, n in self.namespaces.items() if key.name == namespace), None)
        own = (found.metadata.labels or {}) if found is not None else {}
        return {"kubernetes.io/metadata.name": namespace, **own}

    def service(self, namespace: str, name: str) -> Service | None:
        """A Kubernetes Service by its name."""
        host = service_host(name, namespace, self.settings.domain)
        return next((s for s in self.services.by_host.get(host, ()) if s.kubernetes), None)

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
