"""What a sidecar takes: Istio's filter chain matches by PeerAuthentication and protocol."""

from __future__ import annotations

from textwrap import dedent

import pytest
from tests.support.compiled import cluster, instance, listener, proxy, service, world

from weft import ir
from weft.compile.endpoints import endpoint_set

NODE = "sidecar~10.0.0.1~reviews-1.default"


def peer(
    mode: str, *, name: str = "default", namespace: str = "default", app: str = "", ports: str = ""
) -> str:
    exceptions = f"portLevelMtls: {ports}" if ports else ""
    selector = f"selector: {{matchLabels: {{app: {app}}}}}" if app else ""
    return dedent(f"""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {{name: {name}, namespace: {namespace}}}
        spec:
          mtls: {{mode: {mode}}}
          {exceptions}
          {selector}
        """)


def inbound(port_name: str, *more: str) -> ir.Listener:
    of = world(
        service("reviews", 9080, port_name=port_name), instance("reviews-1", "reviews", "10.0.0.1"), *more
    )
    return listener(proxy(of, NODE), "virtualInbound")


def shapes(made: ir.Listener, port: int | None) -> list[tuple[str, str, bool]]:
    """(transport, handler, ends the mesh's TLS) of each chain of a port."""
    return [
        (
            chain.match.transport,
            "http" if isinstance(chain.handler, ir.HttpHandler) else "tcp",
            chain.tls is not None,
        )
        for chain in made.chains
        if chain.match.port == port
    ]


@pytest.mark.parametrize(
    ("mode", "port_name", "wanted"),
    [
        ("STRICT", "http", [("tls", "http", True)]),
        ("STRICT", "tcp", [("tls", "tcp", True)]),
        ("STRICT", "x", [("tls", "http", True), ("tls", "tcp", True)]),
        ("PERMISSIVE", "http", [("tls", "http", True), ("raw_buffer", "http", False)]),
        (
            "PERMISSIVE",
            "tcp",
            [("tls", "tcp", True), ("tls", "tcp", False), ("raw_buffer", "tcp", False)],
        ),
        (
            "PERMISSIVE",
            "x",
            [
                ("tls", "http", True),
                ("raw_buffer", "http", False),
                ("tls", "tcp", True),
                ("raw_buffer", "tcp", False),
                ("tls", "tcp", False),
            ],
        ),
        ("DISABLE", "http", [("raw_buffer", "http", False)]),
        ("DISABLE", "tcp", [("raw_buffer", "tcp", False)]),
    ],
)
def test_chains_of_a_port(mode: str, port_name: str, wanted: list[tuple[str, str, bool]]) -> None:
    assert shapes(inbound(port_name, peer(mode)), 9080) == wanted


def test_permissive_http_takes_the_meshs_alpn_only_over_tls() -> None:
    chains = [chain for chain in inbound("http", peer("PERMISSIVE")).chains if chain.match.port == 9080]
    assert set(chains[0].match.application_protocols) == {
        "istio",
        "istio-peer-exchange",
        "istio-http/1.0",
        "istio-http/1.1",
        "istio-h2",
    }
    assert chains[0].tls is not None
    assert chains[0].tls.require_client_certificate
    assert chains[0].tls.peer_trust_domains == ("cluster.local",)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ((), "PERMISSIVE"),
        ((peer("STRICT", namespace="istio-system"),), "STRICT"),
        ((peer("STRICT", namespace="istio-system"), peer("DISABLE")), "DISABLE"),
        ((peer("STRICT", namespace="istio-system"), peer("UNSET")), "STRICT"),
        ((peer("DISABLE"), peer("STRICT", name="own", app="reviews")), "STRICT"),
        ((peer("STRICT"), peer("UNSET", name="own", app="reviews")), "STRICT"),
        ((peer("STRICT"), peer("DISABLE", name="other", app="ratings")), "STRICT"),
        ((peer("STRICT", name="own", app="reviews", ports="{9080: {mode: DISABLE}}"),), "DISABLE"),
        ((peer("STRICT", name="own", app="reviews", ports="{9080: {mode: UNSET}}"),), "STRICT"),
    ],
    ids=["none", "mesh", "namespace", "unset", "workload", "workload unset", "other", "port", "port unset"],
)
def test_which_rule_holds(rules: tuple[str, ...], wanted: str) -> None:
    shape = {
        "STRICT": [("tls", "http", True)],
        "PERMISSIVE": [("tls", "http", True), ("raw_buffer", "http", False)],
        "DISABLE": [("raw_buffer", "http", False)],
    }
    assert shapes(inbound("http", *rules), 9080) == shape[wanted]


def test_of_two_rules_the_older_holds() -> None:
    young = peer("DISABLE", name="a").replace(
        "metadata: {", 'metadata: {creationTimestamp: "2026-02-01T00:00:00Z", '
    )
    old = peer("STRICT", name="b").replace(
        "metadata: {", 'metadata: {creationTimestamp: "2026-01-01T00:00:00Z", '
    )
    assert shapes(inbound("http", young, old), 9080) == [("tls", "http", True)]


def test_undeclared_ports_pass_through_under_the_same_rules() -> None:
    made = inbound("http", peer("STRICT", name="own", app="reviews", ports="{7777: {mode: DISABLE}}"))
    assert shapes(made, None) == [("tls", "http", True), ("tls", "tcp", True)]
    assert ("raw_buffer", "tcp", False) in shapes(made, 7777)
    assert 7777 in made.inspect_tls_except
    assert made.chains[0].match.port == 15006
    assert isinstance(made.chains[0].handler, ir.TcpHandler)
    assert made.chains[0].handler.destinations[0].cluster == "BlackHoleCluster"


def test_chain_names_and_matches_are_unique() -> None:
    chains = inbound("x", peer("PERMISSIVE")).chains
    assert len({chain.name for chain in chains}) == len(chains)
    assert len({chain.match for chain in chains}) == len(chains)


def test_the_applications_protocol_is_the_ports() -> None:
    of = world(service("reviews", 9080, port_name="grpc"), instance("reviews-1", "reviews", "10.0.0.1"))
    made = cluster(proxy(of, NODE), "inbound|9080||")
    assert made.protocol is ir.UpstreamProtocol.HTTP2
    assert made.discovery is ir.Discovery.ORIGINAL_DST
    assert made.source_address == "127.0.0.6"


def test_target_ports_by_name_and_declared_ports() -> None:
    of = world(
        service("reviews", 80).replace("port: 80}", "port: 80, targetPort: web}"),
        instance("reviews-1", "reviews", "10.0.0.1", ports="{web: 8080, tcp-admin: 9000}"),
    )
    made = listener(proxy(of, NODE), "virtualInbound")
    assert shapes(made, 8080) == [("tls", "http", True), ("raw_buffer", "http", False)]
    assert ("raw_buffer", "tcp", False) in shapes(made, 9000)
    found = endpoint_set(of, "outbound|80||reviews.default.svc.cluster.local").endpoints
    assert [(endpoint.address, endpoint.port) for endpoint in found] == [("10.0.0.1", 8080)]


def test_a_port_without_mtls_is_called_in_plain_text() -> None:
    of = world(
        service("reviews", 9080),
        instance("reviews-1", "reviews", "10.0.0.1"),
        peer("STRICT", name="own", app="reviews", ports="{9080: {mode: DISABLE}}"),
    )
    found = endpoint_set(of, "outbound|9080||reviews.default.svc.cluster.local").endpoints
    assert [endpoint.mesh_tls for endpoint in found] == [False]
