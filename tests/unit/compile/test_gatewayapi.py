"""The Gateway API: who attaches where, which match goes first, and what the status says."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.certificates import TestAuthority
from tests.support.compiled import forward, host, listener, proxy, service, table, world

from weft import ir
from weft.compile.gatewayapi.status import statuses
from weft.compile.world import World
from weft.model.resource import Key

NODE, LABELS = "router~10.0.0.3~edge-1.default", {"gateway.networking.k8s.io/gateway-name": "edge"}
WEB, OTHER = service("web", 80), service("web", 80, namespace="other")
CLUSTER = "outbound|80||web.default.svc.cluster.local"


def gateway(listeners: str = "[{name: http, port: 80, protocol: HTTP}]", more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec: {{gatewayClassName: weft, listeners: {listeners}{more}}}
"""


def route(
    rules: str = "[{backendRefs: [{name: web, port: 80}]}]",
    name: str = "web",
    more: str = "",
    parent: str = "name: edge",
    namespace: str = "default",
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{{parent}}}]
  rules: {rules}
  {more}
"""


def routes(rules: str) -> tuple[ir.Route, ...]:
    made = proxy(world(WEB, gateway(), route(rules)), NODE, labels=LABELS)
    return host(table(made, "http.80"), "*").routes


def status(of: World, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
    found = statuses(of.gateway_facts)
    return found[Key(f"gateway.networking.k8s.io/{kind}", namespace, name)]


def conditions(of: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in of}


def test_the_more_specific_match_goes_first() -> None:
    rules = """
  - {matches: [{path: {value: /}}], backendRefs: [{name: web, port: 80}], name: all}
  - {matches: [{path: {value: /a}}, {path: {type: Exact, value: /a}}], backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /a}, method: GET}], backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /a}, headers: [{name: X, value: z}]}], backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /a}, queryParams: [{name: q, value: z}]}], backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /a/long}}], backendRefs: [{name: web, port: 80}]}
"""
    made = [
        (item.match.path.test.value, item.match.path.value, item.source.rule if item.source else 0)
        for item in routes(rules)
    ]
    assert made == [
        ("exact", "/a", 1),
        ("path_prefix", "/a/long", 5),
        ("path_prefix", "/a", 2),
        ("path_prefix", "/a", 3),
        ("path_prefix", "/a", 4),
        ("path_prefix", "/a", 1),
        ("prefix", "/", 0),
    ]


@pytest.mark.parametrize(
    ("backends", "wanted"),
    [
        ("[]", ir.Respond(status=500)),
        ("[{name: nobody, port: 80}]", ir.Respond(status=500)),
        ("[{name: web, port: 99}]", ir.Respond(status=500)),
        ("[{name: web, namespace: other, port: 80}]", ir.Respond(status=500)),
        ("[{name: web, port: 80, weight: 0}]", ir.Respond(status=500)),
        ("[{name: x, port: 80, group: example.com, kind: Bucket}]", ir.Respond(status=500)),
    ],
)
def test_a_rule_that_leads_nowhere_answers_500(backends: str, wanted: ir.Respond) -> None:
    made = proxy(world(WEB, OTHER, gateway(), route(f"[{{backendRefs: {backends}}}]")), NODE, labels=LABELS)
    assert host(table(made, "http.80"), "*").routes[0].action == wanted


def test_one_lost_backend_of_two_answers_500_for_its_share() -> None:
    (made,) = routes("[{backendRefs: [{name: web, port: 80, weight: 9}, {name: nobody, port: 80}]}]")
    action = forward(made)
    assert [(part.cluster, part.weight) for part in action.destinations] == [
        (CLUSTER, 9),
        ("UnknownService", 1),
    ]
    assert action.missing_status == 500


def test_a_grant_lets_a_backend_of_another_namespace_in() -> None:
    grant = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: ReferenceGrant
        metadata: {name: g, namespace: other}
        spec:
          from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
          to: [{group: "", kind: Service, name: web}]
    """
    rules = "[{backendRefs: [{name: web, namespace: other, port: 80}]}]"
    made = proxy(world(OTHER, gateway(), route(rules), grant), NODE, labels=LABELS)
    action = forward(host(table(made, "http.80"), "*").routes[0])
    assert action.destinations[0].cluster == "outbound|80||web.other.svc.cluster.local"


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ("{scheme: https}", ir.Redirect(code=302, scheme="https")),
        ("{scheme: https, port: 8443, statusCode: 301}", ir.Redirect(code=301, scheme="https", port=8443)),
        ("{hostname: x.example}", ir.Redirect(code=302, host="x.example")),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /b}}", ir.Redirect(code=302, path="/b")),
        (
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}",
            ir.Redirect(code=302, prefix="/b"),
        ),
        (
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}",
            ir.Redirect(code=302, regex=("^/a/*", "/")),
        ),
    ],
)
def test_redirects(filters: str, wanted: ir.Redirect) -> None:
    rules = f"[{{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {filters}}}]}}]"
    assert routes(rules)[0].action == wanted


def test_filters_of_a_rule() -> None:
    (made,) = routes("""
  - matches: [{path: {value: /a/}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "1"}], add: [{name: b, value: "2"}], remove: [c]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: d, value: "4"}]}}
    - {type: URLRewrite, urlRewrite: {hostname: x.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 10}}
    timeouts: {request: 3s, backendRequest: 1s}
    backendRefs: [{name: web, port: 80}]
""")
    assert made.request_headers == ir.HeaderEdit(set=(("a", "1"),), add=(("b", "2"),), remove=("c",))
    assert made.response_headers.set == (("d", "4"),)
    action = forward(made)
    assert action.rewrite == ir.Rewrite(prefix="/b")
    assert action.host_rewrite == "x.example"
    assert action.mirrors == (ir.Mirror(cluster=CLUSTER, fraction=100_000),)
    assert action.timeout is not None
    assert action.timeout.total_seconds() == 3
    assert action.retry is not None
    assert action.retry.per_try_timeout is not None


def test_host_names_meet_and_the_exact_listener_keeps_its_own() -> None:
    listeners = """[
      {name: any, port: 80, protocol: HTTP, hostname: "*.example.com"},
      {name: one, port: 80, protocol: HTTP, hostname: one.example.com}]"""
    wide = route(
        name="wide",
        parent="name: edge, sectionName: any",
        more='hostnames: ["one.example.com", "two.example.com", "x.org"]',
    )
    made = proxy(world(WEB, gateway(listeners), wide), NODE, labels=LABELS)
    hosts = table(made, "http.80")
    assert host(hosts, "two.example.com").routes
    assert host(hosts, "one.example.com").routes == ()
    assert not any("x.org" in item.domains for item in hosts.virtual_hosts)


@pytest.mark.parametrize(
    ("allowed", "labels", "attached"),
    [
        ("", "{}", False),
        (", allowedRoutes: {namespaces: {from: All}}", "{}", True),
        (
            ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
            "{team: a}",
            True,
        ),
        (
            ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
            "{team: b}",
            False,
        ),
    ],
)
def test_which_namespaces_may_attach(allowed: str, labels: str, attached: bool) -> None:
    of = world(
        OTHER,
        gateway(f"[{{name: http, port: 80, protocol: HTTP{allowed}}}]"),
        route(namespace="other", parent="name: edge, namespace: default"),
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: other, labels: {labels}}}\n",
    )
    made = proxy(of, NODE, labels=LABELS)
    assert bool(host(table(made, "http.80"), "*").routes) is attached
    (parent,) = status(of, "HTTPRoute", "web", "other")["parents"]
    wanted = ("True", "Accepted") if attached else ("False", "NotAllowedByListeners")
    assert conditions(parent["conditions"])["Accepted"] == wanted
    assert status(of, "Gateway", "edge")["listeners"][0]["attachedRoutes"] == int(attached)


HTTPS = "[{name: tls, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: cert}]}}]"
PAIR = TestAuthority().issue("a.example.com")
CERT = f"""
apiVersion: v1
kind: Secret
metadata: {{name: cert}}
type: kubernetes.io/tls
stringData: {{tls.crt: {json.dumps(PAIR.certificate)}, tls.key: {json.dumps(PAIR.key)}}}
"""


def test_https_ends_with_the_listeners_secret_and_its_own_table() -> None:
    of = world(WEB, CERT, gateway(HTTPS), route())
    made = proxy(of, NODE, labels=LABELS, port_map=((443, 10443),))
    (chain,) = listener(made, "0.0.0.0_443").chains
    assert listener(made, "0.0.0.0_443").port == 10443
    assert chain.match.server_names == ("a.example.com",)
    assert chain.tls is not None
    assert chain.tls.certificates[0].name == "kubernetes-gateway://default/cert"
    assert isinstance(chain.handler, ir.HttpHandler)
    assert chain.handler.routes == "https.443.tls.edge.default"
    assert chain.handler.edge


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ((), "InvalidCertificateRef"),
        ((CERT.replace("name: cert", "name: cert, namespace: other"),), "InvalidCertificateRef"),
    ],
)
def test_a_listener_without_its_certificate_is_not_opened(more: tuple[str, ...], reason: str) -> None:
    of = world(WEB, gateway(HTTPS), route(), *more)
    assert proxy(of, NODE, labels=LABELS).listeners == ()
    (made,) = status(of, "Gateway", "edge")["listeners"]
    assert conditions(made["conditions"])["ResolvedRefs"] == ("False", reason)
    assert conditions(made["conditions"])["Programmed"] == ("False", "Invalid")
    assert conditions(status(of, "Gateway", "edge")["conditions"])["Accepted"] == (
        "False",
        "ListenersNotValid",
    )


@pytest.mark.parametrize(
    ("parent", "more", "reason"),
    [
        ("name: edge", "", "Accepted"),
        ("name: edge, sectionName: nope", "", "NoMatchingParent"),
        ("name: edge, port: 81", "", "NoMatchingParent"),
        ("name: edge", "hostnames: [b.example.org]", "NoMatchingListenerHostname"),
    ],
)
def test_why_a_route_is_refused(parent: str, more: str, reason: str) -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'}]"
    of = world(WEB, gateway(listeners), route(parent=parent, more=more))
    (made,) = status(of, "HTTPRoute", "web")["parents"]
    assert conditions(made["conditions"])["Accepted"][1] == reason


def test_a_lost_backend_is_told() -> None:
    of = world(gateway(), route())
    (made,) = status(of, "HTTPRoute", "web")["parents"]
    assert conditions(made["conditions"])["ResolvedRefs"] == ("False", "BackendNotFound")
    assert made["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}


def test_listeners_in_conflict() -> None:
    listeners = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}]"
    for item in status(world(gateway(listeners)), "Gateway", "edge")["listeners"]:
        assert conditions(item["conditions"])["Conflicted"] == ("True", "ProtocolConflict")


def test_a_gateway_of_another_controller_is_not_ours() -> None:
    alien = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: GatewayClass
        metadata: {name: weft}
        spec: {controllerName: example.com/other}
    """
    of = world(WEB, gateway(), route(), alien)
    assert proxy(of, NODE, labels=LABELS).listeners == ()
