"""Which Envoys at the edge ``weft up`` runs, and where people reach them."""

from __future__ import annotations

from typing import Any

import pytest

from weft.app.gateways import EdgeProxy, edge_proxies
from weft.model.gateway import Gateway
from weft.model.istio_gateway import Gateway as IstioGateway
from weft.model.parse import parse_object


def istio(name: str, selector: dict[str, str], *ports: tuple[int, str]) -> IstioGateway:
    servers: list[dict[str, Any]] = [
        {
            "port": {"number": number, "name": f"p{number}", "protocol": protocol},
            "hosts": ["*"],
            **({"tls": {"mode": "SIMPLE", "credentialName": "cert"}} if protocol == "HTTPS" else {}),
        }
        for number, protocol in ports
    ]
    found, problems = parse_object(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": selector, "servers": servers},
        }
    )
    assert isinstance(found, IstioGateway), problems
    return found


def api(name: str, class_name: str, *ports: int) -> Gateway:
    listeners = [{"name": f"p{port}", "port": port, "protocol": "HTTP"} for port in ports]
    found, problems = parse_object(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"gatewayClassName": class_name, "listeners": listeners},
        }
    )
    assert isinstance(found, Gateway), problems
    return found


def test_istio_gateways_that_nothing_bears_share_one_envoy() -> None:
    labels = {"istio": "ingressgateway"}
    found = edge_proxies([istio("a", labels, (80, "HTTP")), istio("b", labels, (443, "HTTPS"))], [], [])
    assert {key: edge.ports for key, edge in found.items()} == {
        "istio-system/istio-ingressgateway": (80, 443)
    }


def test_a_workload_that_bears_the_labels_is_the_gateway() -> None:
    labels = {"istio": "ingressgateway"}
    assert not edge_proxies([istio("a", labels, (80, "HTTP"))], [], [{**labels, "app": "mine"}])


def test_each_gateway_of_the_gateway_api_has_its_own_and_other_classes_none() -> None:
    found = edge_proxies([], [api("door", "weft", 80), api("back", "istio", 81), api("x", "other", 82)], [])
    assert set(found) == {"shop/door-weft", "shop/back-istio"}


def of_kind(kind: str, name: str, spec: dict[str, Any], namespace: str | None = "shop") -> Any:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    found, problems = parse_object(
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    )
    assert found is not None, problems
    return found


def test_a_class_is_ours_by_its_controller() -> None:
    classes = [
        of_kind("GatewayClass", "mine", {"controllerName": "weft.dev/gateway-controller"}, None),
        of_kind("GatewayClass", "istio", {"controllerName": "example.com/theirs"}, None),
    ]
    found = edge_proxies([], [api("door", "mine", 80), api("back", "istio", 81)], [], classes)
    assert set(found) == {"shop/door-mine"}


def test_a_listener_set_adds_its_ports_and_the_gateway_gives_its_labels() -> None:
    gateway = of_kind(
        "Gateway",
        "door",
        {
            "gatewayClassName": "weft",
            "infrastructure": {"labels": {"team": "edge"}},
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    )
    entries = [
        {"name": "a", "port": 80, "protocol": "HTTP"},
        {"name": "b", "port": 53, "protocol": "UDP"},
    ]
    added = of_kind("ListenerSet", "more", {"parentRef": {"name": "door"}, "listeners": entries})
    other = of_kind("ListenerSet", "other", {"parentRef": {"name": "else"}, "listeners": entries[:1]})
    (edge,) = edge_proxies([], [gateway], [], [], [added, other]).values()
    assert edge.protocols == {80: "HTTP", 53: "UDP"}
    assert edge.url(53, 10053) == "udp://localhost:10053"
    assert edge.labels == {"team": "edge", "gateway.networking.k8s.io/gateway-name": "door"}


@pytest.mark.parametrize(
    ("protocol", "port", "host_port", "url"),
    [
        ("HTTP", 80, 80, "http://localhost/"),
        ("HTTP", 80, 10080, "http://localhost:10080/"),
        ("HTTPS", 443, 443, "https://localhost/"),
        ("HTTPS", 8443, 8443, "https://localhost:8443/"),
        ("GRPC", 7000, 7000, "http://localhost:7000/"),
        ("TCP", 5432, 5432, "tcp://localhost:5432"),
    ],
)
def test_people_are_told_the_scheme(protocol: str, port: int, host_port: int, url: str) -> None:
    edge = EdgeProxy("door", "shop", "door", {}, {port: protocol})
    assert edge.url(port, host_port) == url


def test_a_gateway_may_ask_for_addresses_by_number() -> None:
    addresses = [{"value": "192.0.2.1"}, {"type": "Hostname", "value": "a.example"}, {"type": "IPAddress"}]
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    spec = {"gatewayClassName": "weft", "addresses": addresses, "listeners": listeners}
    (edge,) = edge_proxies([], [of_kind("Gateway", "door", spec)], []).values()
    assert edge.addresses == ("192.0.2.1",)
    assert edge.url(80, 80, "192.0.2.1") == "http://192.0.2.1/"
