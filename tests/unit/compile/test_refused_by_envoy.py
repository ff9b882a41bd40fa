"""What is valid, and what Envoy would refuse as it stands: it is left out and told, all else stays."""

from __future__ import annotations

import pytest
from tests.support.compiled import cluster, instance, proxy, service, world

from weft import ir
from weft.compile.chains import apart
from weft.compile.endpoints import endpoint_set
from weft.compile.istio.gateway import is_cipher
from weft.compile.problems import problems_of

ROUTER = "router~10.9.9.9~edge.default"


def test_an_address_that_is_a_name() -> None:
    made = world(
        service("web"),
        instance("web-0", "web", "10.0.0.1"),
        instance("web-1", "web", "db.example.com"),
        instance("web-2", "web", "unix:///run/web.sock").replace("ports: {}", ""),
    )
    found = endpoint_set(made, "outbound|80||web.default.svc.cluster.local")
    assert [endpoint.address for endpoint in found.endpoints] == ["10.0.0.1", "unix:///run/web.sock"]
    (problem,) = problems_of(made, "default")
    assert problem.resource == "WorkloadEntry default/web-1"
    assert problem.path == "spec.address"
    assert "db.example.com" in problem.message


def test_names_behind_a_headless_service_get_no_listener() -> None:
    made = world(
        service("web", 9000, port_name="tcp", clusterIP='"None"'),
        instance("web-0", "web", "10.0.0.1"),
        instance("web-1", "web", "db.example.com"),
    )
    names = [listener.name for listener in proxy(made).listeners if listener.port == 9000]
    assert names == ["10.0.0.1_9000"]


def test_the_ports_of_the_sidecar_itself() -> None:
    made = world(service("in", 15006), service("out", 15001), service("web", 80))
    listeners = proxy(made).listeners
    assert [item.name for item in listeners] == ["virtualOutbound", "0.0.0.0_80", "virtualInbound"]
    told = problems_of(made, "default")
    assert [(item.resource, item.path) for item in told] == [
        ("Service default/in", "spec.ports[0]"),
        ("Service default/out", "spec.ports[0]"),
    ]


PINNED = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - hosts: [a.example.com]
    port: {name: https, number: 443, protocol: HTTPS}
    tls: {mode: MUTUAL, credentialName: a, verifyCertificateHash: [HASHES], verifyCertificateSpki: [SPKIS]}
"""
HASH, SPKI = "ab" * 32, "a" * 43 + "="


def test_pins_that_are_no_hashes_let_nobody_in() -> None:
    def tls(hashes: str, spkis: str) -> ir.DownstreamTls:
        made = world(PINNED.replace("HASHES", hashes).replace("SPKIS", spkis))
        (listener,) = proxy(made, ROUTER, labels={"istio": "ingressgateway"}).listeners
        found = listener.chains[0].tls
        assert found is not None
        return found

    assert tls(f"nonsense, {HASH}", SPKI).peer_certificate_hashes == (HASH,)
    none = tls("nonsense", "nonsense")
    assert none.peer_certificate_hashes == ("0" * 64,)
    assert none.peer_certificate_spkis == ("A" * 43 + "=",)
    made = world(PINNED.replace("HASHES", f"{HASH}, nonsense").replace("SPKIS", SPKI))
    (problem,) = problems_of(made, "default")
    assert problem.path == "spec.servers[0].tls.verifyCertificateHash[1]"


def test_a_name_that_a_match_says_twice() -> None:
    handler = ir.TcpHandler(stat_prefix="a", destinations=(ir.Destination(cluster="a"),))
    match = ir.ChainMatch(
        server_names=("a.com", "b.com", "a.com"), addresses=("10.0.0.0/8", "10.1.1.1/8", "10.0.0.0/16")
    )
    (chain,) = apart([ir.FilterChain(name="a", match=match, handler=handler)])
    assert chain.match.server_names == ("a.com", "b.com")
    assert chain.match.addresses == ("10.0.0.0/8", "10.0.0.0/16")


def test_blocks_that_are_none_match_nothing() -> None:
    handler = ir.TcpHandler(stat_prefix="a", destinations=(ir.Destination(cluster="a"),))
    none = ir.ChainMatch(source_addresses=("10.0.0.0/255.0.0.0", "fe80::1%eth0", "outbound|80||a"))
    some = ir.ChainMatch(addresses=("10.0.0.0/33", "10.1.0.0/16"))
    (chain,) = apart([ir.FilterChain(name=name, match=match, handler=handler) for name, match in
                      (("none", none), ("some", some))])  # fmt: skip
    assert chain.match.addresses == ("10.1.0.0/16",)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", True),
        ("-ECDHE-RSA-AES128-GCM-SHA256", True),
        ("[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", True),
        ("!RSA", True),
        ("(a{900}){30}", False),
        ("-FOO", False),
        ("[", False),
    ],
)
def test_ciphers_that_envoy_knows(name: str, known: bool) -> None:
    assert is_cipher(name) is known


def test_a_name_is_asked_for_in_turn_only_where_it_is_the_only_one() -> None:
    entry = """
        apiVersion: networking.istio.io/v1
        kind: ServiceEntry
        metadata: {name: web}
        spec:
          hosts: [web.example.com]
          resolution: DNS_ROUND_ROBIN
          workloadSelector: {labels: {app: web}}
          ports: [{number: 80, name: http, protocol: HTTP}]
        """
    members = [instance(f"web-{number}", "web", f"{number}.example.com") for number in range(2)]
    name = "outbound|80||web.example.com"
    for count, discovery in ((0, "strict_dns"), (1, "logical_dns"), (2, "strict_dns")):
        found = cluster(proxy(world(entry, *members[:count])), name)
        assert (found.discovery.value, len(found.endpoints)) == (discovery, count)


def test_a_sidecar_is_not_bound_to_a_name() -> None:
    made = world(
        service("web"),
        """
        apiVersion: networking.istio.io/v1
        kind: Sidecar
        metadata: {name: all}
        spec: {egress: [{bind: "*.com", hosts: ["./*"]}]}
        """,
    )
    assert "0.0.0.0_80" in {listener.name for listener in proxy(made).listeners}
    (problem,) = problems_of(made, "default")
    assert problem.path == "spec.egress[0].bind"


def test_sockets_are_one_place_each() -> None:
    made = world(
        service("web"),
        service("more", 81),
        """
        apiVersion: networking.istio.io/v1
        kind: Sidecar
        metadata: {name: all}
        spec: {egress: [{bind: "unix:///tmp/web", hosts: ["./*"]}]}
        """,
    )
    assert [item.address for item in proxy(made).listeners].count("unix:///tmp/web") == 1


def test_a_limit_answers_with_a_status_that_envoy_has() -> None:
    limit = """
        apiVersion: weft.dev/v1alpha1
        kind: RateLimit
        metadata: {name: web}
        spec: {limits: [{name: all, requests: 1}], status: 517}
        """
    with pytest.raises(AssertionError, match=r"spec\.status"):
        world(limit)
