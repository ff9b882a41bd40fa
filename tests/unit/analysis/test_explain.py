"""What becomes of requests in a small mesh of files, and which line of them decided it."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from weft.analysis.explain.answer import Action
from weft.analysis.explain.mesh import Mesh
from weft.analysis.explain.request import PROTOCOLS, ClientTls
from weft.model.gateway import Gateway
from weft.model.istio_gateway import Gateway as IstioGateway
from weft.model.parse import Part, parse, unwrap
from weft.model.resource import Resource
from weft.yaml import load

SHOP = """\
    apiVersion: v1
    kind: Service
    metadata: {name: reviews}
    spec: {selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: web}]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: db}
    spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: reviews-v1}
    spec:
      template:
        metadata: {labels: {app: reviews, version: v1}}
        spec:
          serviceAccountName: reviews
          containers: [{name: app, ports: [{name: web, containerPort: 9081}]}]
    ---
    apiVersion: networking.istio.io/v1
    kind: DestinationRule
    metadata: {name: reviews}
    spec:
      host: reviews
      subsets:
        - {name: v1, labels: {version: v1}}
        - {name: v2, labels: {version: v2}}
    ---
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: reviews}
    spec:
      hosts: [reviews]
      http:
        - match:
            - uri: {prefix: /old}
              headers: {end-user: {exact: jason}}
            - uri: {exact: /older}
          rewrite: {uri: /new, authority: reviews.example.com}
          headers:
            request: {set: {x-a: "1"}, add: {x-d: "3"}, remove: [x-b]}
            response: {add: {x-c: "2"}, remove: [x-internal]}
          timeout: 2s
          retries: {attempts: 3, retryOn: "5xx,503", perTryTimeout: 500ms}
          mirror: {host: reviews, subset: v2}
          mirrorPercentage: {value: 10}
          route:
            - {destination: {host: reviews, subset: v1}, weight: 90}
            - {destination: {host: reviews, subset: v2}, weight: 10}
        - match: [{uri: {prefix: /fail}}]
          fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
          route: [{destination: {host: reviews}}]
        - match: [{uri: {prefix: /maybe}}]
          fault:
            delay: {fixedDelay: 2s, percentage: {value: 50}}
            abort: {httpStatus: 503, percentage: {value: 1}}
          route: [{destination: {host: reviews}}]
        - match: [{uri: {prefix: /gone}}]
          directResponse: {status: 410, body: {string: gone}}
        - match: [{uri: {prefix: /moved}}]
          redirect: {uri: /here, authority: other.example.com, redirectCode: 302}
        - match: [{uri: {prefix: /nowhere}}]
          route: [{destination: {host: nowhere}}]
        - match: [{uri: {prefix: /cors}}]
          corsPolicy: {allowOrigins: [{exact: "https://a.org"}], allowMethods: [GET], maxAge: 1m}
          route: [{destination: {host: reviews}}]
        - route: [{destination: {host: reviews, subset: v1}}]
    ---
    apiVersion: networking.istio.io/v1
    kind: Gateway
    metadata: {name: edge}
    spec:
      selector: {istio: ingressgateway}
      servers:
        - port: {number: 80, name: http, protocol: HTTP}
          hosts: [shop.example.com]
          tls: {httpsRedirect: true}
        - port: {number: 443, name: https, protocol: HTTPS}
          hosts: [shop.example.com]
          tls: {mode: SIMPLE, credentialName: shop}
    ---
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: shop}
    spec:
      hosts: [shop.example.com]
      gateways: [edge]
      http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
    """
WEB = {"workload": "default/web"}
EDGE = {"gateway": "default/edge"}
REVIEWS = {"inbound": "default/reviews-v1"}
PERSON = "spiffe://cluster.local/ns/default/sa/web"


@cache
def mesh(*texts: str) -> Mesh:
    parts: list[Part] = []
    read: list[tuple[Part, Resource]] = []
    documents, problems = load("\n---\n".join(map(dedent, texts)), "shop.yaml")
    assert not problems
    for document in documents:
        for part in unwrap(document)[0]:
            parts.append(part)
            resource, _ = parse(part)
            if resource is not None:
                read.append((part, resource))
    return Mesh(parts, read)


def explain(sender: dict[str, Any], *more: str, **question: Any) -> dict[str, Any]:
    return mesh(SHOP, *more).explain({"id": 7, "from": sender, **question})


def get(path: str, *more: str, **headers: list[str]) -> dict[str, Any]:
    named = {name.replace("_", "-"): values for name, values in headers.items()}
    http = {"host": "reviews:9080", "path": path, "headers": named}
    return explain(WEB, *more, http=http)


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(dedent(SHOP).splitlines(), 1) if text in line)


def test_a_route_and_the_line_that_it_stands_on() -> None:
    found = get("/old/x?y=1", end_user=["jason"], x_b=["z"])
    assert found["id"] == 7
    assert found["listener"] == "0.0.0.0_9080"
    assert found["routeConfig"] == "9080"
    assert found["virtualHost"] == "reviews.default.svc.cluster.local:9080"
    assert found["route"] == {
        "kind": "VirtualService", "namespace": "default", "name": "reviews", "rule": 0, "match": 0,
        "file": "shop.yaml", "line": line_of("- uri: {prefix: /old}"),
    }  # fmt: skip
    assert (found["action"], found["error"], found["status"]) == ("forward", None, 200)
    other = get("/older")["route"]
    assert (other["rule"], other["match"], other["line"]) == (0, 1, line_of("- uri: {exact: /older}"))
    assert {step["line"] for step in found["trace"] if step["step"] == "route"} == {found["route"]["line"]}


def test_destinations_mirrors_and_limits() -> None:
    found = get("/older")
    assert [
        (target["service"], target["namespace"], target["port"], target["subset"], target["weight"])
        for target in found["upstream"]["destinations"]
    ] == [("reviews", "default", 9080, "v1", 90), ("reviews", "default", 9080, "v2", 10)]
    (mirror,) = found["mirrors"]
    assert (mirror["service"], mirror["subset"], mirror["percent"]) == ("reviews", "v2", 10)
    assert found["timeout"] == "2s"
    assert found["retries"] == {
        "attempts": 3, "on": ["5xx", "retriable-status-codes"], "codes": [503], "perTryTimeout": "500ms",
    }  # fmt: skip


def test_the_request_and_the_answer_as_they_arrive() -> None:
    http = {"host": "reviews:9080", "path": "/older?q=1", "headers": {"X-B": ["z"], "x-d": ["0"]}}
    found = explain(WEB, http=http, response={"status": 201, "headers": {"x-internal": ["i"], "x-c": ["1"]}})
    sent = found["upstream"]["request"]
    assert (sent["host"], sent["path"], sent["method"]) == ("reviews.example.com", "/new?q=1", "GET")
    assert sent["headers"]["x-a"] == ["1"]
    assert sent["headers"]["x-d"] == ["0", "3"]
    assert sent["removed"] == ["x-b"]
    assert found["status"] == 201
    assert found["response"] == {"headers": {"x-c": ["1", "2"]}, "removed": ["x-internal"]}


def test_faults() -> None:
    always = get("/fail")
    assert (always["action"], always["status"]) == ("direct", 418)
    assert always["fault"] == {"abort": {"status": 418, "percent": 100}, "delay": None}
    sometimes = get("/maybe")
    assert (sometimes["action"], sometimes["status"]) == ("forward", 200)
    assert sometimes["fault"] == {
        "abort": {"status": 503, "percent": 1}, "delay": {"duration": "2s", "percent": 50},
    }  # fmt: skip


def test_answers_of_the_proxy_itself() -> None:
    gone = get("/gone")
    assert (gone["action"], gone["status"]) == ("direct", 410)
    moved = get("/moved")
    assert (moved["action"], moved["status"]) == ("redirect", 302)
    assert moved["redirect"] == {
        "scheme": None, "host": "other.example.com", "port": None, "path": "/here", "code": 302,
        "location": "http://other.example.com/here",
    }  # fmt: skip
    nowhere = get("/nowhere")
    assert (nowhere["action"], nowhere["error"], nowhere["status"]) == ("error", "no_cluster", 503)


def test_cross_origin_requests() -> None:
    def ask(method: str, origin: str) -> dict[str, Any]:
        headers = {"origin": [origin], "access-control-request-method": ["GET"]}
        return explain(
            WEB, http={"host": "reviews:9080", "path": "/cors", "method": method, "headers": headers}
        )

    preflight = ask("OPTIONS", "https://a.org")
    assert (preflight["action"], preflight["status"]) == ("direct", 200)
    assert preflight["response"]["headers"] == {
        "access-control-allow-origin": ["https://a.org"],
        "access-control-allow-methods": ["GET"],
        "access-control-max-age": ["60"],
    }
    marked = ask("GET", "https://a.org")
    assert marked["action"] == "forward"
    assert marked["response"]["headers"] == {"access-control-allow-origin": ["https://a.org"]}
    assert ask("GET", "https://b.org")["response"]["headers"] == {}


def test_what_an_injected_fault_and_no_route_are_to_grpc() -> None:
    http = {"host": "reviews:9080", "path": "/fail"}
    found = explain(WEB, protocol="grpc", http=http)
    assert (found["status"], found["grpcStatus"]) == (200, 2)
    found = explain(WEB, protocol="grpc", http={**http, "path": "/a.B/C"})
    assert (found["action"], found["grpcStatus"]) == ("forward", 0)
    found = explain(EDGE, protocol="grpc", tls="tls", sni="shop.example.com", http={"host": "other"})
    assert (found["error"], found["grpcStatus"]) == ("no_virtual_host", 12)


def test_what_nobody_declared() -> None:
    outside = explain(WEB, http={"host": "example.org"})
    assert (outside["action"], outside["status"]) == ("passthrough", 200)
    assert outside["upstream"]["destinations"][0]["cluster"] == "PassthroughCluster"
    assert explain(WEB, protocol="tcp", address="10.9.9.9", port=25)["status"] is None
    only = """
        apiVersion: weft.dev/v1alpha1
        kind: MeshConfig
        metadata: {name: default}
        spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
        """
    closed = explain(WEB, only, http={"host": "example.org:9080"})
    assert (closed["action"], closed["status"]) == ("blackhole", 502)
    closed = explain(WEB, only, protocol="tcp", address="10.9.9.9", port=25)
    assert (closed["action"], closed["status"]) == ("blackhole", None)


def test_bytes_to_a_service() -> None:
    found = explain(WEB, protocol="tcp", address="db.default.svc", port=5432)
    assert (found["action"], found["status"], found["error"]) == ("forward", None, None)
    (target,) = found["upstream"]["destinations"]
    assert (target["service"], target["port"]) == ("db", 5432)
    (step,) = (step for step in found["trace"] if step["step"] == "cluster")
    assert step["file"] == "shop.yaml"


def test_a_workload_from_within() -> None:
    found = explain(REVIEWS, port=9081, tls="mtls", source={"principal": PERSON})
    assert (found["action"], found["status"], found["filterChain"]) == (
        "forward",
        200,
        "0.0.0.0_9081-mtls-http",
    )
    assert found["authn"]["peer"] == PERSON
    (target,) = found["upstream"]["destinations"]
    assert (target["service"], target["port"], target["cluster"]) == ("reviews", 9081, "inbound|9081||")
    assert explain(REVIEWS, port=9081)["action"] == "forward"
    assert explain(REVIEWS, port=7777, protocol="tcp")["action"] == "passthrough"
    stranger = explain(REVIEWS, port=9081, tls="mtls", source={"principal": "spiffe://evil/ns/x/sa/y"})
    assert (stranger["error"], stranger["status"]) == ("mtls_error", None)


def test_what_a_strict_workload_takes() -> None:
    strict = """
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: default}
        spec: {mtls: {mode: STRICT}}
        """
    refused = explain(REVIEWS, strict, port=9081)
    assert refused["error"] == "no_filter_chain"
    (rule,) = (step for step in refused["trace"] if step["step"] == "peerAuthentication")
    assert "PeerAuthentication default/default" in rule["detail"]
    assert rule["line"] > line_of("name: shop")
    assert explain(REVIEWS, strict, port=9081, tls="tls")["error"] == "mtls_error"
    assert explain(REVIEWS, strict, port=9081, tls="mtls")["status"] == 200


def test_a_gateway_in_clear_text_and_inside_tls() -> None:
    plain = explain(EDGE, http={"host": "shop.example.com", "path": "/x"})
    assert (plain["action"], plain["error"], plain["status"]) == ("redirect", "tls_redirect", 301)
    assert plain["redirect"]["location"] == "https://shop.example.com/x"
    inside = explain(EDGE, tls="tls", http={"host": "shop.example.com"})
    assert (inside["action"], inside["status"], inside["route"]["name"]) == ("forward", 200, "shop")
    assert explain(EDGE, tls="tls", http={"host": "other.example.com"})["error"] == "no_filter_chain"
    assert explain(EDGE, port=443, http={"host": "shop.example.com"})["error"] == "no_filter_chain"
    assert explain(EDGE, tls="tls", port=80, http={"host": "shop.example.com"})["error"] == "protocol_error"
    assert explain(EDGE, port=81)["error"] == "no_listener"
    named = explain(
        {"gateway": "istio-system/istio-ingressgateway"}, tls="tls", http={"host": "shop.example.com"}
    )
    assert named["action"] == "forward"


def test_a_share_of_the_requests() -> None:
    routes = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: api}
        spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: api}
        spec:
          parentRefs: [{name: api}]
          rules:
            - backendRefs:
                - name: reviews
                  port: 9080
                  weight: 3
                  filters:
                    - type: URLRewrite
                      urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /v1}}
                - name: reviews
                  port: 9080
                  weight: 1
                  filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example.com}}]
        """
    found = explain({"gateway": "default/api"}, routes, http={"host": "x"})
    forward, away = found["upstream"]["destinations"]
    assert (forward["service"], forward["weight"], found["upstream"]["request"]["path"]) == (
        "reviews",
        3,
        "/v1",
    )
    assert (away["cluster"], away["weight"], away["action"], away["status"]) == (None, 1, "redirect", 302)


def test_endpoints_that_are_known_are_counted() -> None:
    entry = """
        apiVersion: networking.istio.io/v1
        kind: WorkloadEntry
        metadata: {name: one}
        spec: {address: 10.1.1.1, labels: {app: reviews, version: v1}, ports: {web: 9081}}
        """
    assert get("/", entry)["status"] == 200
    found = get("/older", entry)
    assert found["status"] == 200
    assert found["upstream"]["destinations"][1]["error"] == "no_healthy_upstream"


@pytest.mark.parametrize("tls", ["DISABLE", "SIMPLE", "ISTIO_MUTUAL"])
def test_tls_to_the_upstream(tls: str) -> None:
    rule = f"""
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {{name: db}}
        spec: {{host: db, trafficPolicy: {{tls: {{mode: {tls}}}}}}}
        """
    found = explain(WEB, rule, protocol="tcp", address="db", port=5432)
    assert found["upstream"]["tls"] == {"DISABLE": "none", "SIMPLE": "tls", "ISTIO_MUTUAL": "mtls"}[tls]


def test_mutual_tls_to_workloads_that_get_sidecars() -> None:
    assert get("/")["upstream"]["tls"] == "mtls"
    plain = """
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: default}
        spec: {mtls: {mode: DISABLE}}
        """
    assert get("/", plain)["upstream"]["tls"] == "none"
    without = """
        apiVersion: v1
        kind: Pod
        metadata: {name: db, labels: {app: db, sidecar.istio.io/inject: "false"}}
        """
    found = explain(WEB, without, protocol="tcp", address="db", port=5432)
    assert found["upstream"]["tls"] == "none"


def test_limits_that_count_a_request() -> None:
    limit = """
        apiVersion: weft.dev/v1alpha1
        kind: RateLimit
        metadata: {name: reviews}
        spec:
          selector: {matchLabels: {app: reviews}}
          limits:
            - {name: all, requests: 1000}
            - {name: writes, requests: 5, interval: 1m, match: {methods: [POST]}, per: [{header: x-user}]}
        """
    read = explain(REVIEWS, limit, port=9081, http={"path": "/x"})
    assert [(one["requests"], one["per"]) for one in read["rateLimits"]] == [(1000, "1s")]
    headers = {"x-user": ["ada"]}
    write = explain(REVIEWS, limit, port=9081, http={"path": "/x", "method": "POST", "headers": headers})
    assert [(one["requests"], one["status"]) for one in write["rateLimits"]] == [(1000, 429), (5, 429)]
    assert write["status"] == 200


GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*/in.yaml"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_every_golden_mesh_can_be_asked(path: Path) -> None:
    """Whatever is translated can be walked: nothing raises, and no filter is passed over."""
    asked = mesh(path.read_text())
    hosts = [*list(asked.world.services.by_host)[:4], "x.example.com"]
    kinds: tuple[type[Gateway] | type[IstioGateway], ...] = (Gateway, IstioGateway)
    gateways = [f"{key.namespace}/{key.name}" for kind in kinds for key in asked.world.all(kind)]
    senders = [WEB, {"inbound": "default/web-0"}, *({"gateway": name} for name in gateways)]
    for sender, host, tls, protocol in product(senders, hosts, ClientTls, PROTOCOLS):
        services = asked.world.services.by_host.get(host, ())
        for port in {port.number for service in services for port in service.ports} or {80, 443}:
            found = asked.explain(
                {
                    "from": sender,
                    "address": host if sender is WEB else "",
                    "port": port,
                    "protocol": protocol,
                    "tls": tls,
                    "http": {"host": host.replace("*", "w"), "path": "/a/b?c=1"},
                }
            )
            json.dumps(found)
            assert found["action"] in set(Action)
            assert not [step for step in found["trace"] if "not evaluated" in step["detail"]]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ({"protocol": "udp", "port": 53}, "UDPRoute"),
        ({"protocol": "tcp", "port": 5432}, "TCPRoute"),
        ({"protocol": "tcp", "port": 6443, "tls": "tls", "sni": "a.example.com"}, "TLSRoute"),
        ({"protocol": "tcp", "port": 6443, "tls": "tls", "sni": "x.org"}, None),
    ],
)
def test_streams_and_datagrams_at_a_gateway(question: dict[str, Any], kind: str | None) -> None:
    path = next(path for path in GOLDEN if path.parent.name == "gateway-layer4")
    found = mesh(path.read_text()).explain({"from": EDGE, **question})
    assert found["route"]["kind"] == kind
    assert found["status"] is None
    assert found["action"] == ("forward" if kind else "error")


def test_a_question_that_cannot_be_read_gets_its_answer() -> None:
    found = mesh(SHOP).explain({"id": "x", "from": {}})
    assert (found["id"], found["action"]) == ("x", "error")
    assert found["error"].startswith("from:")
    assert mesh(SHOP).explain("nonsense")["action"] == "error"
    for host in ("reviews:²", "[::1]:80", "[", "reviews:99999", "\x00"):
        assert explain(WEB, http={"host": host, "path": "/%"})["action"] in set(Action)
    assert set(found) == set(get("/"))


def test_a_demanded_key_exchange_is_named() -> None:
    demanded = """
        apiVersion: weft.dev/v1alpha1
        kind: MeshConfig
        metadata: {name: default, namespace: istio-system}
        spec: {compliancePolicy: pqc}
        """
    question: dict[str, Any] = {"port": 9081, "tls": "mtls", "source": {"principal": PERSON}}
    told = [step["detail"] for step in explain(REVIEWS, demanded, **question)["trace"]]
    assert any("with key exchange by X25519MLKEM768 only" in line for line in told), told
    assert "key exchange" not in json.dumps(explain(REVIEWS, **question)["trace"])
