"""Gateways' listeners and those of ListenerSets: conflicts, certificates, and which routes are bound where."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import json

import pytest
from tests.support.certificates import TestAuthority
from tests.support.compiled import instance, listener, proxy, service, table, world

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.gatewayapi.binding import Parent, parents_of
from weft.compile.gatewayapi.listeners import Listener, listeners_of
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key

NODE, LABELS = "router~10.0.0.3~edge-1.default", {"gateway.networking.k8s.io/gateway-name": "edge"}
AUTHORITY = TestAuthority()
PAIR = AUTHORITY.issue("a.example.com")
GROUP = "gateway.networking.k8s.io"


def secret(name: str = "cert", namespace: str = "default") -> str:
    data = json.dumps({"tls.crt": PAIR.certificate, "tls.key": PAIR.key})
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {data}\n"


def authorities(name: str = "people", body: str = AUTHORITY.pem) -> str:
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {json.dumps({'ca.crt': body})}\n"
    )


def gateway(listeners: str, more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec: {{gatewayClassName: weft, listeners: {listeners}{more}}}
"""


def listener_set(name: str, listeners: str, created: str = "", namespace: str = "default") -> str:
    stamp = f", creationTimestamp: {created}" if created else ""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}{stamp}}}
spec: {{parentRef: {{name: edge, namespace: default}}, listeners: {listeners}}}
"""


def route(kind: str, parent: str = "{name: edge}", name: str = "r", more: str = "", created: str = "") -> str:
    stamp = f", creationTimestamp: {created}" if created else ""
    version = "v1alpha2" if kind in {"TCPRoute", "UDPRoute"} else "v1"
    return f"""
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}{stamp}}}
spec: {{parentRefs: [{parent}], {more} rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}
"""


ALL = ", allowedListeners: {namespaces: {from: All}}"


def declared(of: World, kind: str, name: str, namespace: str = "default") -> dict[str, Listener]:
    facts = of.gateway_facts
    owners: dict[Key, Gateway | ListenerSet] = {**facts.gateways, **facts.listener_sets}
    return {item.name: item for item in listeners_of(owners[Key(f"{GROUP}/{kind}", namespace, name)], facts)}


def parent(of: World, kind: str, name: str = "r") -> Parent:
    (route,) = (r for routes in of.gateway_facts.all_routes for r in routes.values() if r.kind == kind)
    (found,) = parents_of(route, of.gateway_facts)
    return found


HTTP = "{name: %s, port: 80, protocol: HTTP, hostname: %s}"


def test_listeners_of_a_gateway_that_cannot_be_told_apart_are_all_in_conflict() -> None:
    made = declared(
        world(
            gateway(
                "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP},"
                " {name: c, port: 81, protocol: TCP}, {name: d, port: 81, protocol: UDP}]"
            )
        ),
        "Gateway",
        "edge",
    )
    assert {name: item.conflict for name, item in made.items()} == {
        "a": "ProtocolConflict",
        "b": "ProtocolConflict",
        "c": "NoConflicts",
        "d": "NoConflicts",  # UDP has ports of its own
    }


def test_a_listener_set_yields_to_the_gateway_and_to_older_ones() -> None:
    of = world(
        gateway(f"[{HTTP % ('own', 'own.org')}]", ALL),
        listener_set(
            "young", f"[{HTTP % ('x', 'own.org')}, {HTTP % ('z', 'z.org')}]", "2026-01-02T00:00:00Z"
        ),
        listener_set(
            "old",
            f"[{HTTP % ('z', 'z.org')}, {{name: t, port: 80, protocol: TCP}}]",
            "2026-01-01T00:00:00Z",
        ),
        listener_set("third", "[{name: u, port: 80, protocol: HTTP}]"),
    )
    assert declared(of, "Gateway", "edge")["own"].sound
    old, young = declared(of, "ListenerSet", "old"), declared(of, "ListenerSet", "young")
    assert {name: item.conflict for name, item in old.items()} == {
        "z": "NoConflicts",
        "t": "ProtocolConflict",
    }
    assert {name: item.conflict for name, item in young.items()} == {
        "x": "HostnameConflict",
        "z": "HostnameConflict",
    }
    # What was refused takes no place: the TCP listener is in nobody's way.
    assert declared(of, "ListenerSet", "third")["u"].sound


@pytest.mark.parametrize(
    ("allowed", "namespace", "reason"),
    [
        ("", "default", "NoMatchingParent"),
        (", allowedListeners: {namespaces: {from: Same}}", "default", "Accepted"),
        (", allowedListeners: {namespaces: {from: Same}}", "team", "NoMatchingParent"),
        (
            ", allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}",
            "team",
            "Accepted",
        ),
        (
            ", allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {a: c}}}}",
            "team",
            "NoMatchingParent",
        ),
        (ALL, "team", "Accepted"),
    ],
)
def test_a_gateway_says_which_listener_sets_it_takes(allowed: str, namespace: str, reason: str) -> None:
    of = world(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {a: b}}\n",
        gateway("[{name: http, port: 80, protocol: HTTP}]", allowed),
        listener_set(
            "more",
            "[{name: x, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]",
            "",
            namespace,
        ),
        route("HTTPRoute", f"{{kind: ListenerSet, name: more, namespace: {namespace}}}"),
    )
    assert parent(of, "HTTPRoute").reason == reason
    made = proxy(of, NODE, labels=LABELS)
    assert ("http.81" in {found.name for found in made.routes}) == (reason == "Accepted")


@pytest.mark.parametrize(
    ("kind", "protocol", "tls", "reason"),
    [
        ("TLSRoute", "TLS", ", tls: {mode: Passthrough}", "Accepted"),
        ("TLSRoute", "TLS", ", tls: {mode: Terminate, certificateRefs: [{name: cert}]}", "Accepted"),
        ("TCPRoute", "TLS", ", tls: {mode: Terminate, certificateRefs: [{name: cert}]}", "Accepted"),
        ("TCPRoute", "TLS", ", tls: {mode: Passthrough}", "NotAllowedByListeners"),
        ("TCPRoute", "TCP", "", "Accepted"),
        ("TCPRoute", "HTTP", "", "NotAllowedByListeners"),
        ("UDPRoute", "UDP", "", "Accepted"),
        ("UDPRoute", "TCP", "", "NotAllowedByListeners"),
        ("TLSRoute", "HTTPS", ", tls: {certificateRefs: [{name: cert}]}", "NotAllowedByListeners"),
        ("GRPCRoute", "HTTPS", ", tls: {certificateRefs: [{name: cert}]}", "Accepted"),
    ],
)
def test_kinds_of_routes_go_with_protocols(kind: str, protocol: str, tls: str, reason: str) -> None:
    more = "hostnames: [a.example.com]," if kind == "TLSRoute" else ""
    of = world(
        secret(),
        gateway(f"[{{name: x, port: 80, protocol: {protocol}{tls}}}]"),
        route(kind, more=more),
        service("web", 80),
    )
    assert parent(of, kind).reason == reason


def test_a_route_may_leave_the_choice_of_the_gateway_to_its_admin() -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP}]"
    of = world(
        gateway(listeners, ", defaultScope: All"),
        route("HTTPRoute", more="useDefaultGateways: All,").replace("parentRefs: [{name: edge}], ", ""),
        service("web", 80),
    )
    found = parent(of, "HTTPRoute")
    assert (found.place, found.ref.name, found.reason) == (0, "edge", "Accepted")
    assert table(proxy(of, NODE, labels=LABELS), "http.80").virtual_hosts[0].routes


def test_the_oldest_tcp_route_has_the_listener_and_the_other_is_told() -> None:
    of = world(
        gateway("[{name: tcp, port: 80, protocol: TCP}]"),
        route("TCPRoute", name="young", created="2026-01-02T00:00:00Z"),
        route("TCPRoute", name="old", created="2026-01-01T00:00:00Z"),
        service("web", 80, port_name="tcp"),
    )
    made, problems = compile_proxy(of, _identity())
    (chain,) = listener(made, "0.0.0.0_80").chains
    assert chain.handler.stat_prefix == "old.default"
    (problem,) = problems
    assert problem.resource == "TCPRoute default/young"
    assert "TCPRoute default/old is older" in problem.message


def _identity() -> ir.ProxyIdentity:
    from tests.support.compiled import identity

    return identity(NODE, LABELS)


def test_backends_without_weight_get_nothing_and_lost_ones_their_share() -> None:
    rule = "{name: web, port: 80, weight: 0}, {name: web, port: 80, weight: 2}, {name: nobody, port: 80}"
    text = route("TCPRoute").replace("{name: web, port: 80}", rule)
    of = world(gateway("[{name: tcp, port: 80, protocol: TCP}]"), text, service("web", 80, port_name="tcp"))
    (chain,) = listener(proxy(of, NODE, labels=LABELS), "0.0.0.0_80").chains
    assert isinstance(chain.handler, ir.TcpHandler)
    assert [(part.cluster, part.weight) for part in chain.handler.destinations] == [
        ("outbound|80||web.default.svc.cluster.local", 2),
        ("UnknownService", 1),
    ]


def test_a_udp_port_has_a_cluster_at_its_gateway_only() -> None:
    dns = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: dns, port: 80, protocol: UDP}]}
"""
    of = world(gateway("[{name: udp, port: 80, protocol: UDP}]"), route("UDPRoute"), dns)
    name = "outbound_udp|80||web.default.svc.cluster.local"
    made = proxy(of, NODE, labels=LABELS)
    (cluster,) = (unit for unit in made.clusters if unit.name == name)
    assert cluster.tls is None
    handler = listener(made, "udp_0.0.0.0_80").udp
    assert handler is not None
    assert [part.cluster for part in handler.destinations] == [name]
    assert name not in {unit.name for unit in proxy(of).clusters}
    assert name not in {
        unit.name for unit in proxy(of, "router~10.0.0.4~other.default", labels={"a": "b"}).clusters
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_port_of_tcp_and_udp_leads_each_to_its_own(order: tuple[int, int]) -> None:
    ports = (
        "{name: tcp, port: 80, targetPort: 5353}",
        "{name: dns, port: 80, targetPort: 5300, protocol: UDP}",
    )
    dns = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{", ".join(ports[number] for number in order)}]}}
"""
    listeners = "[{name: udp, port: 80, protocol: UDP}, {name: tcp, port: 80, protocol: TCP}]"
    of = world(
        gateway(listeners), route("UDPRoute"), route("TCPRoute"), dns, instance("web-1", "web", "10.0.0.9")
    )
    made = proxy(of, NODE, labels=LABELS)
    (chain,) = listener(made, "0.0.0.0_80").chains
    datagrams = listener(made, "udp_0.0.0.0_80").udp
    assert isinstance(chain.handler, ir.TcpHandler)
    assert datagrams is not None
    for (destination,), port in ((chain.handler.destinations, 5353), (datagrams.destinations, 5300)):
        (endpoint,) = endpoint_set(of, destination.cluster).endpoints
        assert endpoint.port == port


HTTPS = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]%s}}"
VALIDATION = ", tls: {frontend: {default: {validation: {caCertificateRefs: [%s]%s}}}}"
PEOPLE = '{group: "", kind: ConfigMap, name: people}'


@pytest.mark.parametrize(
    ("options", "validation", "wanted"),
    [
        ("", "", (None, False, False)),
        ("", VALIDATION % (PEOPLE, ""), ("configmap://default/people-cacert", True, False)),
        (
            "",
            VALIDATION % (PEOPLE, ", mode: AllowInsecureFallback"),
            ("configmap://default/people-cacert", False, True),
        ),
        (
            "",
            VALIDATION % (f'{PEOPLE}, {{group: "", kind: ConfigMap, name: others}}', ""),
            ("configmap://default/people-cacert,configmap://default/others-cacert", True, False),
        ),
        (
            "",
            VALIDATION % (f'{{group: "", kind: ConfigMap, name: none}}, {PEOPLE}', ""),
            ("configmap://default/people-cacert", True, False),
        ),
        (
            ", options: {gateway.istio.io/tls-terminate-mode: MUTUAL}",
            "",
            ("kubernetes-gateway://default/cert-cacert", True, False),
        ),
        (", options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}", "", ("ROOTCA", True, False)),
    ],
)
def test_who_must_show_a_certificate(
    options: str, validation: str, wanted: tuple[str | None, bool, bool]
) -> None:
    of = world(secret(), authorities(), authorities("others"), gateway(f"[{HTTPS % options}]", validation))
    (chain,) = listener(proxy(of, NODE, labels=LABELS), "0.0.0.0_443").chains
    tls = chain.tls
    assert tls is not None
    trust = tls.trust.name if tls.trust is not None else None
    assert (trust, tls.require_client_certificate, tls.accept_untrusted) == wanted


@pytest.mark.parametrize(
    ("ref", "resolved"),
    [
        ('{group: "", kind: ConfigMap, name: none}', "InvalidCACertificateRef"),
        ('{group: "", kind: ConfigMap, name: broken}', "InvalidCACertificateRef"),
        ('{group: "", kind: Service, name: people}', "InvalidCACertificateKind"),
        ('{group: "", kind: ConfigMap, name: people, namespace: other}', "RefNotPermitted"),
    ],
)
def test_without_authorities_nobody_is_let_in(ref: str, resolved: str) -> None:
    of = world(
        secret(),
        authorities(),
        authorities("broken", "nothing"),
        gateway(f"[{HTTPS % ''}]", VALIDATION % (ref, "")),
    )
    made = declared(of, "Gateway", "edge")["https"]
    assert (made.accepted, made.resolved, made.sound) == ("NoValidCACertificate", resolved, False)
    assert proxy(of, NODE, labels=LABELS).listeners == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{example.com/x: z}", "nothing is known of the TLS option example.com/x"),
        ("{gateway.istio.io/tls-terminate-mode: SOME}", "'SOME' is no TLS mode"),
    ],
)
def test_an_option_that_is_not_known_is_told(options: str, message: str) -> None:
    of = world(secret(), gateway(f"[{HTTPS % f', options: {options}'}]"))
    (problem,) = compile_proxy(of, _identity())[1]
    assert problem.message == message
    assert problem.path.startswith("spec.listeners[0].tls.options.")


def test_http3_stands_beside_https_unless_its_port_is_taken() -> None:
    def made(listeners: str) -> ir.Proxy:
        text = gateway(listeners).replace(
            "{name: edge}", "{name: edge, annotations: {weft.dev/http3: 'true'}}"
        )
        return proxy(world(secret(), text, route("UDPRoute"), service("web", 80)), NODE, labels=LABELS)

    found = made(f"[{HTTPS % ''}]")
    quic = listener(found, "udp_0.0.0.0_443")
    assert quic.quic
    assert [chain.tls.alpn for chain in quic.chains if chain.tls] == [("h3",)]
    (told,) = (unit.response_headers.set for unit in found.routes)
    assert told == (("alt-svc", 'h3=":443"; ma=86400'),)
    found = made(f"[{HTTPS % ''}, {{name: udp, port: 443, protocol: UDP}}]")
    assert not listener(found, "udp_0.0.0.0_443").quic
    assert all(unit.response_headers == ir.HeaderEdit() for unit in found.routes)


@pytest.mark.parametrize(
    ("labels", "port", "options", "joins"),
    [
        ("", 15443, "", False),
        (", labels: {topology.istio.io/network: one}", 15443, "", True),
        (", labels: {topology.istio.io/network: one}", 443, "", False),
        ("", 443, ", options: {gateway.istio.io/listener-protocol: auto-passthrough}", True),
    ],
)
def test_a_gateway_between_networks_hands_on_by_server_name(
    labels: str, port: int, options: str, joins: bool
) -> None:
    item = (
        f'{{name: x, port: {port}, protocol: TLS, hostname: "*.local", tls: {{mode: Passthrough{options}}}}}'
    )
    text = gateway(f"[{item}]").replace("{name: edge}", f"{{name: edge{labels}}}")
    made = proxy(world(text, service("web", 80)), NODE, labels=LABELS)
    name = "outbound_.80_._.web.default.svc.cluster.local"
    chains = [chain for unit in made.listeners for chain in unit.chains]
    assert ((name,) in [chain.match.server_names for chain in chains]) is joins
    assert (name in {cluster.name for cluster in made.clusters}) is joins
