"""Istio Gateways that share a proxy: which servers share a port, what their TLS is, where streams go."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import (
    cluster,
    forward,
    host,
    identity,
    instance,
    listener,
    proxy,
    service,
    table,
    world,
)
from tests.unit.compile.test_router import LABELS, NODE, gateway

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy

HASH, SPKI = "ab" * 32, "a" * 43 + "="
HTTP = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [%s]}"
TCP = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: [%s]}"
HTTPS = (
    "{port: {number: 443, name: %s, protocol: HTTPS}, hosts: [%s], tls: {mode: SIMPLE, credentialName: c}}"
)
SNI = "{port: {number: 443, name: %s, protocol: TLS}, hosts: ['%s'], tls: {mode: PASSTHROUGH}}"


def rules(name: str, hosts: str, body: str, gateways: str = "[edge]") -> str:
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n"
        f"spec: {{hosts: {hosts}, gateways: {gateways}, {body}}}\n"
    )


def made(*texts: str, port_map: tuple[tuple[int, int], ...] = ()) -> ir.Proxy:
    return proxy(world(*texts), NODE, labels=LABELS, port_map=port_map)


def found(*texts: str) -> list[str]:
    _, problems = compile_proxy(world(*texts), identity(NODE, labels=LABELS))
    return [f"{problem.code} {problem.resource} {problem.path}" for problem in problems]


def names(of: ir.Proxy) -> list[str]:
    return [item.name for item in of.listeners]


def sent_to(chain: ir.FilterChain) -> list[str]:
    assert isinstance(chain.handler, ir.TcpHandler)
    return [target.cluster for target in chain.handler.destinations]


WEB, DB = service("web"), service("db", 5432, port_name="tcp-db")
TO_DB = "tcp: [{route: [{destination: {host: db}}]}]"
ANSWER = "http: [{directResponse: {status: 201}}]"


def test_the_first_server_makes_a_port_plain_http_or_tcp() -> None:
    http_first = (gateway(HTTP % "a.com", name="alpha"), gateway(TCP % "a.com", name="beta"), DB)
    (opened,) = made(*http_first, rules("r", "[a.com]", TO_DB, "[beta]")).listeners
    assert isinstance(opened.chains[0].handler, ir.HttpHandler)
    assert found(*http_first) == ["WEFT0111 Gateway default/beta spec.servers[0]"]
    # TCP was first, and no rule is about it: the port opens for nobody.
    tcp_first = (gateway(TCP % "a.com", name="alpha"), gateway(HTTP % "a.com", name="beta"), DB)
    assert names(made(*tcp_first, rules("r", "[a.com]", ANSWER, "[beta]"))) == []


def test_of_two_servers_for_a_host_inside_tls_the_older_holds() -> None:
    texts = (
        gateway(
            HTTPS % ("one", "a.com, b.com"), name="young", more=", creationTimestamp: '2024-01-01T00:00:00Z'"
        ),
        gateway(HTTPS % ("two", "b.com"), name="older", more=", creationTimestamp: '2023-01-01T00:00:00Z'"),
        gateway(HTTPS % ("three", "c.com"), name="last", more=", creationTimestamp: '2025-01-01T00:00:00Z'"),
    )
    chains = listener(made(*texts), "0.0.0.0_443").chains
    assert [chain.match.server_names for chain in chains] == [("b.com",), ("c.com",)]
    assert found(*texts) == ["WEFT0111 Gateway default/young spec.servers[0]"]


def test_other_addresses_are_other_listeners() -> None:
    server = HTTPS.replace("{port:", "{bind: %s, port:")
    texts = (
        gateway(server % ("10.0.0.1", "a", "a.com"), name="one"),
        gateway(server % ("10.0.0.2", "b", "a.com"), name="two"),
    )
    assert names(made(*texts)) == ["10.0.0.1_443", "10.0.0.2_443"]
    assert found(*texts) == []


def test_plain_http_after_tls_shares_the_port() -> None:
    plain = HTTP.replace("80", "443")
    opened = listener(made(gateway(HTTPS % ("s", "'*'"), plain % "'*'")), "0.0.0.0_443")
    assert [chain.match.transport for chain in opened.chains] == ["tls", ""]
    assert opened.inspect_tls


def test_hosts_with_the_same_routes_share_a_virtual_host() -> None:
    of = made(
        gateway(HTTP % "a.com, bb.com, c.com"),
        rules("r", "[a.com, bb.com]", ANSWER),
        rules("s", "[c.com]", ANSWER),
    )
    assert [(item.name, item.domains) for item in table(of, "http.80").virtual_hosts] == [
        ("bb.com:80", ("bb.com", "a.com")),
        ("c.com:80", ("c.com",)),
    ]


def test_rules_for_a_host_add_up_and_what_takes_everything_goes_last() -> None:
    of = made(
        gateway(HTTP % "a.com"),
        rules("a", "[a.com]", ANSWER),
        rules("b", "[a.com]", "http: [{match: [{uri: {prefix: /b}}], directResponse: {status: 202}}]"),
        rules("c", "[a.com]", "http: [{match: [{uri: {regex: '/.*'}}], directResponse: {status: 203}}]"),
    )
    statuses = [
        route.action.status
        for route in host(table(of, "http.80"), "a.com").routes
        if isinstance(route.action, ir.Respond)
    ]
    assert statuses == [202, 203, 201]


def test_a_service_in_front_moves_the_port() -> None:
    front = "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: istio-system}\nspec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}\n"
    texts = (
        gateway(HTTP % "a.com"),
        rules("r", "[a.com]", "http: [{match: [{port: 80}], directResponse: {status: 201}}]"),
        front,
    )
    of = made(*texts)
    assert names(of) == ["0.0.0.0_8080"]
    assert host(table(of, "http.8080"), "a.com").name == "a.com:80"
    # Where the operator says the port, that is where it opens.
    assert listener(made(*texts, port_map=((80, 10080),)), "0.0.0.0_8080").port == 10080
    label = front.replace(
        "name: front,",
        "name: front, labels: {experimental.istio.io/disable-gateway-port-translation: 'true'},",
    )
    assert names(made(*texts[:2], label)) == ["0.0.0.0_80"]


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        ("match: [{port: 80}], ", True),
        ("match: [{port: 81}], ", False),
        ("match: [{gateways: [edge]}], ", True),
        ("match: [{gateways: [mesh]}], ", False),
        # Nothing else counts at a gateway (Istio).
        ("match: [{destinationSubnets: [10.0.0.0/8], sourceLabels: {app: x}}], ", True),
    ],
)
def test_the_first_tcp_rule_for_the_port_takes_all_connections(match: str, taken: bool) -> None:
    first = f"tcp: [{{{match}route: [{{destination: {{host: db}}}}]}}]"
    of = made(
        gateway(TCP % "a.com"),
        rules("a", "[a.com]", first),
        rules("b", "[a.com]", TO_DB.replace("host: db", "host: db, subset: second")),
        DB,
    )
    (chain,) = listener(of, "0.0.0.0_80").chains
    assert chain.match == ir.ChainMatch()
    subset = "" if taken else "second"
    assert sent_to(chain) == [f"outbound|5432|{subset}|db.default.svc.cluster.local"]


def test_a_rule_for_all_addresses_is_one_without_addresses() -> None:
    all_ = f"tcp: [{{match: [{{sourceSubnet: 10.0.0.0/0}}], {TO_DB[7:]}"
    other = TO_DB.replace("host: db", "host: db, subset: never")
    of = made(gateway(TCP % "a.com"), rules("a", "[a.com]", all_), rules("b", "[a.com]", other), DB)
    (chain,) = listener(of, "0.0.0.0_80").chains
    assert chain.match == ir.ChainMatch()
    assert sent_to(chain) == ["outbound|5432||db.default.svc.cluster.local"]


def test_a_rule_for_addresses_that_are_none_opens_no_port() -> None:
    body = "tcp: [{match: [{sourceSubnet: 1h}], route: [{destination: {host: db}}]}]"
    assert names(made(gateway(TCP % "a.com"), rules("a", "[a.com]", body), DB)) == []


def test_sni_of_the_first_rule_holds() -> None:
    def sni(name: str, hosts: str) -> str:
        return rules(
            name,
            f"[{hosts}]",
            f"tls: [{{match: [{{sniHosts: [{hosts}]}}], route: [{{destination: {{host: {name}}}}}]}}]",
        )

    of = made(gateway(SNI % ("p", "*.com")), sni("a", "x.com"), sni("b", "'x.com', y.com"), sni("c", "z.com"))
    chains = listener(of, "0.0.0.0_443").chains
    assert [chain.match.server_names for chain in chains] == [("x.com",), ("z.com",)]


TLS = "{port: {number: 443, name: s, protocol: %s}, hosts: [a.com], tls: {%s}}"


def ended(tls: str, protocol: str = "HTTPS", rule: str = ANSWER) -> ir.DownstreamTls:
    (chain,) = listener(
        made(gateway(TLS % (protocol, tls)), rules("r", "[a.com]", rule), DB), "0.0.0.0_443"
    ).chains
    assert chain.tls is not None
    return chain.tls


SECRET = "kubernetes-gateway://istio-system/"


def test_modes_of_tls() -> None:
    simple = ended("mode: SIMPLE, credentialName: c")
    assert [ref.name for ref in simple.certificates] == [f"{SECRET}c"]
    assert simple.trust is None
    assert simple.alpn == ("h2", "http/1.1")
    mutual = ended(
        f"mode: MUTUAL, credentialName: c, subjectAltNames: [x], verifyCertificateHash: [{HASH}], "
        f"verifyCertificateSpki: [{SPKI}]"
    )
    assert mutual.trust is not None
    assert mutual.trust.name == f"{SECRET}c-cacert"
    assert mutual.require_client_certificate
    assert (mutual.peer_names[0].value, mutual.peer_certificate_hashes, mutual.peer_certificate_spkis) == (
        "x",
        (HASH,),
        (SPKI,),
    )
    optional = ended(
        "mode: OPTIONAL_MUTUAL, credentialName: c, caCertCredentialName: ca, insecureSkipVerify: true"
    )
    assert optional.trust is not None
    assert optional.trust.name == f"{SECRET}ca-cacert"
    assert (optional.require_client_certificate, optional.accept_untrusted) == (False, True)
    mesh = ended("mode: ISTIO_MUTUAL, minProtocolVersion: TLSV1_3")
    assert mesh.certificates[0].source is ir.SecretFrom.FILE
    assert mesh.require_client_certificate
    two = ended("mode: MUTUAL, credentialNames: [rsa, ecdsa]")
    assert [ref.name for ref in two.certificates] == [f"{SECRET}rsa", f"{SECRET}ecdsa"]
    assert two.trust is not None
    assert two.trust.name == f"{SECRET}rsa-cacert"
    tcp = ended("mode: ISTIO_MUTUAL", "TLS", TO_DB)
    assert tcp.alpn == ("istio-peer-exchange", "h2", "http/1.1")


def test_limits_and_files_of_tls() -> None:
    files = ended(
        "mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl, "
        "minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA, AES128-SHA, NO-SUCH]"
    )
    assert files.trust is not None
    assert (files.trust.bundle_path, files.trust.revoked_path) == ("/ca", "/crl")
    assert files.limits == ir.TlsLimits(
        minimum=ir.TlsVersion.V1_3, maximum=ir.TlsVersion.V1_3, cipher_suites=("AES128-SHA",)
    )


def test_tls_without_a_mode_passes_through() -> None:
    rule = "tls: [{match: [{sniHosts: [a.com]}], route: [{destination: {host: db}}]}]"
    of = made(gateway(TLS % ("HTTPS", "credentialName: c")), rules("r", "[a.com]", rule), DB)
    (chain,) = listener(of, "0.0.0.0_443").chains
    assert chain.tls is None
    assert sent_to(chain) == ["outbound|5432||db.default.svc.cluster.local"]


def test_tls_of_the_mesh_is_handed_on_to_the_service_that_its_sni_names() -> None:
    auto = "{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.default.svc.cluster.local'], tls: {mode: AUTO_PASSTHROUGH}}"
    subset = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}\n"
    of = world(
        gateway(auto),
        WEB,
        subset,
        service("far", namespace="other"),
        instance("web-1", "web", "10.1.0.1"),
        instance("web-2", "web", "10.1.0.2", account="").replace(
            "labels: {", "labels: {security.istio.io/tlsMode: disabled, "
        ),
    )
    built = proxy(of, NODE, labels=LABELS)
    opened = listener(built, "0.0.0.0_15443")
    assert [chain.match.server_names for chain in opened.chains] == [
        ("outbound_.80_._.web.default.svc.cluster.local",),
        ("outbound_.80_.v1_.web.default.svc.cluster.local",),
    ]
    assert "istio" in opened.chains[0].match.application_protocols
    name = "outbound_.80_.v1_.web.default.svc.cluster.local"
    to = cluster(built, name)
    assert (to.tls, to.protocol, to.discovery) == (None, ir.UpstreamProtocol.TCP, ir.Discovery.EDS)
    # Only workloads that take mTLS: nobody gets in without.
    assert [endpoint.address for endpoint in endpoint_set(of, name).endpoints] == ["10.1.0.1"]


def test_a_redirect_knows_that_its_server_redirects_to_https() -> None:
    server = HTTP % "a.com"
    plain = rules("r", "[a.com]", "http: [{redirect: {authority: b.com, derivePort: FROM_REQUEST_PORT}}]")
    secured = server[:-1] + ", tls: {httpsRedirect: true}}"
    (route,) = host(table(made(gateway(secured), plain), "http.80"), "a.com").routes
    # Inside https port 80 would have to be said.
    assert isinstance(route.action, ir.Redirect)
    assert route.action.port == 80
    (route,) = host(table(made(gateway(server), plain), "http.80"), "a.com").routes
    assert isinstance(route.action, ir.Redirect)
    assert route.action.port is None


def test_destinations_take_the_services_only_port() -> None:
    texts = (
        gateway(HTTP % "a.com"),
        rules("r", "[a.com]", "http: [{route: [{destination: {host: db}}]}]"),
        DB,
    )
    (route,) = host(table(made(*texts), "http.80"), "a.com").routes
    assert forward(route).destinations[0].cluster == "outbound|5432||db.default.svc.cluster.local"
