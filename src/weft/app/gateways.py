"""Which gateways ``weft up`` runs, by the Gateways that there are: pure.

Rules: Istio Gateways whose labels no workload bears share one Envoy, as Istio's default installation has it;
each Gateway of the Gateway API gets one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from weft.compile.gatewayapi.infrastructure import labels_of
from weft.compile.settings import Settings
from weft.model.core import ConfigMap
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.istio_gateway import Gateway as IstioGateway
from weft.model.listener_set import ListenerSet
from weft.names import GATEWAY_NAME_LABEL, ROOT_NAMESPACE

INGRESS = "istio-ingressgateway"
INGRESS_ACCOUNT = "istio-ingressgateway-service-account"
INGRESS_LABELS: Mapping[str, str] = {"istio": "ingressgateway", "app": INGRESS}
OURS = frozenset({"istio", "weft"})
_SCHEMES = {"HTTPS": "https", "TLS": "tls", "TCP": "tcp", "MONGO": "tcp", "UDP": "udp"}


@dataclass(frozen=True, slots=True)
class EdgeProxy:
    """One Envoy at the edge. ``protocols`` are those of its listeners, by port, as the Gateways say.

    ``addresses`` are the IPs where its Gateway asks to be reached, if it does.
    """

    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]
    protocols: Mapping[int, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of its listeners."""
        return tuple(sorted(self.protocols))

    def url(self, port: int, host_port: int, host: str = "localhost") -> str:
        """Where people of this machine reach one of its ports, which is open on ``host_port``."""
        protocol = self.protocols[port].upper()
        scheme = _SCHEMES.get(protocol, "http")
        if (scheme, host_port) in {("http", 80), ("https", 443)}:
            return f"{scheme}://{host}/"
        return f"{scheme}://{host}:{host_port}" + ("/" if scheme.startswith("http") else "")


def edge_proxies(
    istio: Iterable[IstioGateway],
    gateways: Iterable[Gateway],
    borne: Iterable[Mapping[str, str]],
    classes: Iterable[GatewayClass] = (),
    added: Iterable[ListenerSet] = (),
    maps: Iterable[ConfigMap] = (),
) -> dict[str, EdgeProxy]:
    """The Envoys that are needed, by id. ``borne`` are the labels of all workloads.

    ``classes`` are GatewayClasses, ``added`` the ListenerSets: the ports of those that name a Gateway are
    kept for it, whether or not it lets them in. ``maps``: ConfigMaps, which may have more labels for it.
    """
    found: dict[str, EdgeProxy] = {}
    bearers = list(borne)
    protocols: dict[int, str] = {}
    for gateway in istio:
        selector = gateway.spec.selector or {}
        if any(selector.items() <= labels.items() for labels in bearers):
            continue
        if selector.items() <= INGRESS_LABELS.items():
            protocols |= {one.port.number: one.port.protocol for one in gateway.spec.servers or ()}
    if protocols:
        edge = EdgeProxy(INGRESS, ROOT_NAMESPACE, INGRESS_ACCOUNT, INGRESS_LABELS, protocols)
        found[edge.id] = edge
    controlled = {one.metadata.name: str(one.spec.controller_name) for one in classes}
    sets, known = list(added), {one.key: one for one in maps}
    for api_gateway in gateways:
        class_name = str(api_gateway.spec.gateway_class_name)
        if not _ours(class_name, controlled):
            continue
        metadata = api_gateway.metadata
        name = f"{metadata.name}-{class_name}"
        labels = labels_of(api_gateway, known, ROOT_NAMESPACE)
        declared = {listener.port: str(listener.protocol) for listener in api_gateway.spec.listeners or ()}
        for one in sets:
            ref = one.spec.parent_ref
            if (ref.namespace or one.metadata.namespace, ref.name) == (metadata.namespace, metadata.name):
                for entry in one.spec.listeners:
                    declared.setdefault(entry.port, str(entry.protocol))
        asked = (one for one in api_gateway.spec.addresses or () if (one.type or "IPAddress") == "IPAddress")
        edge = EdgeProxy(
            name,
            metadata.namespace,
            name,
            {**labels, GATEWAY_NAME_LABEL: metadata.name},
            declared,
            tuple(str(one.value) for one in asked if one.value),
        )
        found[edge.id] = edge
    return found


def _ours(class_name: str, controlled: Mapping[str, str]) -> bool:
    """Whether weft serves a class: by its GatewayClass, or by its name where there is none."""
    if class_name in controlled:
        return controlled[class_name] in Settings().controllers
    return class_name in OURS
