"""Networks: who is where, and through which gateway others are reached."""

from __future__ import annotations

from textwrap import indent

import pytest
from tests.support.compiled import identity, instance, service, world

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy

NAME = "outbound|80||web.default.svc.cluster.local"
SAID = """
networks:
  near:
    endpoints: [{fromRegistry: Kubernetes}]
    gateways: [{address: 192.0.2.1, port: 15443}]
  far:
    endpoints: [{fromCidr: 10.2.0.0/16}, {fromCidr: nonsense}]
    gateways:
    - {address: 192.0.2.2, port: 443}
    - {registryServiceName: east.default.svc.cluster.local, port: 15443}
    - {address: gateway.example.com, port: 443}
"""
EAST = service("east", 15443, port_name="tls", externalIPs="[192.0.2.3]")


def networks(text: str = SAID) -> str:
    return (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n"
        f"  meshNetworks: |\n{indent(text, '    ')}\n"
    )


def gateway(network: str, address: str, port: int = 15443) -> ir.NetworkGateway:
    return ir.NetworkGateway(network=network, address=address, port=port)


def test_addresses_are_on_the_network_of_their_block_else_of_their_registry() -> None:
    of = world(
        networks(),
        EAST,
        service("web"),
        instance("web-1", "web", "10.1.0.1"),
        instance("web-2", "web", "10.2.0.1"),
        instance("web-3", "web", "10.2.0.2") + "  network: own\n",
    )
    found = endpoint_set(of, NAME)
    assert [endpoint.network for endpoint in found.endpoints] == ["near", "far", "own"]
    assert set(found.gateways) == {
        gateway("near", "192.0.2.1"),
        gateway("far", "192.0.2.2", 443),
        gateway("far", "192.0.2.3"),
    }


@pytest.mark.parametrize(
    ("labels", "port", "wanted"),
    [
        ("topology.istio.io/network: far", 15443, (gateway("far", "192.0.2.3"),)),
        ("topology.istio.io/network: far", 443, ()),
        (
            'topology.istio.io/network: far, networking.istio.io/gatewayPort: "443"',
            443,
            (gateway("far", "192.0.2.3", 443),),
        ),
        ("app: east", 15443, ()),
    ],
)
def test_a_service_may_be_the_gateway_of_a_network(
    labels: str, port: int, wanted: tuple[ir.NetworkGateway, ...]
) -> None:
    east = service("east", port, port_name="tls", externalIPs="[192.0.2.3]")
    east = east.replace("{name: east,", f"{{name: east, labels: {{{labels}}},", 1)
    of = world(east, service("web"), instance("web-1", "web", "10.1.0.1"))
    assert endpoint_set(of, NAME).gateways == wanted


@pytest.mark.parametrize(
    ("address", "labels", "wanted"),
    [
        ("10.9.9.9", {}, "near"),
        ("10.2.9.9", {}, "far"),
        ("10.2.9.9", {"topology.istio.io/network": "own"}, "own"),
    ],
)
def test_clients_are_on_a_network_too(address: str, labels: dict[str, str], wanted: str) -> None:
    client = identity(f"sidecar~{address}~client.default", labels=labels)
    assert compile_proxy(world(networks(), EAST), client)[0].identity.network == wanted


def test_what_cannot_be_read_says_nothing() -> None:
    of = world(networks("networks: [a]"), service("web"), instance("web-1", "web", "10.1.0.1"))
    (endpoint,) = endpoint_set(of, NAME).endpoints
    assert endpoint.network == ""
