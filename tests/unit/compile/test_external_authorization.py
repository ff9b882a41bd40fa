"""Which authorizers a proxy asks, and what it does where none can be asked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.compiled import identity, listener, service, world

from weft import ir
from weft.compile.delivery import on_demand
from weft.compile.proxy import compile_proxy

AUTHZ = service("authz", 9000, port_name="grpc", namespace="auth")
WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
"""
NODE = "sidecar~10.0.0.1~web-0.default"
HOST = "authz.auth.svc.cluster.local"


def mesh_config(*providers: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{extensionProviders: [{", ".join(providers)}]}}
"""


def grpc(name: str = "a", service: str = HOST, port: int = 9000, more: str = "") -> str:
    return f"{{name: {name}, envoyExtAuthzGrpc: {{service: {service}, port: {port}{more}}}}}"


def http(name: str = "a", more: str = "") -> str:
    return f"{{name: {name}, envoyExtAuthzHttp: {{service: {HOST}, port: 9000{more}}}}}"


def policy(name: str, provider: str, *, selector: str = "app: web", notes: str = "{}") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: default, annotations: {notes}}}
spec:
  selector: {{matchLabels: {{{selector}}}}}
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{to: [{{operation: {{paths: [/{name}]}}}}]}}]
"""


def asked(*texts: str) -> tuple[tuple[ir.Consultation, ...], tuple[ir.Consultation, ...], list[str]]:
    """Who is asked about requests and about connections, and what is told."""
    proxy, problems = compile_proxy(world(WEB, AUTHZ, *texts), identity(NODE, {"app": "web"}))
    chains = [chain.handler for chain in listener(proxy, "virtualInbound").chains]
    requests = {one.consultations for one in chains if isinstance(one, ir.HttpHandler)}
    streams = {one.consultations for one in chains if isinstance(one, ir.TcpHandler)}
    streams -= {()} if len(streams) > 1 else set()  # connections that go nowhere
    (of_requests,), (of_streams,) = requests, streams
    return of_requests, of_streams, [problem.message for problem in problems]


def test_istios_defaults_hold() -> None:
    (one,), (stream,), told = asked(mesh_config(grpc()), policy("p", "a"))
    assert (one.authorizer, told) == (stream.authorizer, [])
    assert one.authorizer == ir.Authorizer(
        name="a",
        cluster=f"outbound|9000||{HOST}",
        host=HOST,
        protocol=ir.AuthorizerProtocol.GRPC,
        timeout=timedelta(seconds=600),
    )
    assert [rule.name for rule in one.rules.rules] == ["istio-ext-authz-a-ns[default]-policy[p]-rule[0]"]


@pytest.mark.parametrize(
    ("providers", "words"),
    [
        ((), "no provider that decides about requests is named 'a'"),
        ((grpc("b"),), "no provider that decides about requests is named 'a'"),
        (("{name: a, zipkin: {service: x.example, port: 1}}",), "is named 'a'"),
        ((grpc(), http()), "2 providers are named 'a'"),
        ((grpc(service="gone.example"),), "there is no service 'gone.example'"),
        ((grpc(service="authz"),), "there is no service 'authz'"),
        ((grpc(service=f"default/{HOST}"),), f"there is no service 'default/{HOST}'"),
        ((grpc(port=0),), "0 is not a port"),
        ((grpc(more=', statusOnError: "999"'),), "'999' is not a status"),
        ((http(more=", pathPrefix: check"),), "its pathPrefix 'check' does not begin"),
        ((http(more=", pathPrefix: '/a b'"),), "is no path"),
        ((http(more=', includeAdditionalHeadersInCheck: {x-a: "1\\n2"}'),), "is no header"),
        ((http(more=", includeAdditionalHeadersInCheck: {'x a': b}"),), "is no header"),
        ((http(more=', headersToDownstreamOnDeny: ["*"]'),), "'*' alone"),
    ],
)
def test_where_nobody_can_be_asked_what_the_rules_fit_is_refused(
    providers: tuple[str, ...], words: str
) -> None:
    (one,), (stream,), (told,) = asked(mesh_config(*providers), policy("p", "a"))
    assert (one.authorizer, stream.authorizer) == (None, None)
    assert one.rules.action is ir.RuleAction.DENY
    (rule,) = one.rules.rules
    assert rule.name == "istio-ext-authz-a-ns[default]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action"
    assert words in told


def test_a_namespace_tells_services_of_one_name_apart() -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: authz, namespace: {namespace}}}
spec: {{hosts: [authz.example], ports: [{{number: 9000, name: grpc, protocol: GRPC}}], resolution: DNS}}
"""
    both = (entry.format(namespace="one"), entry.format(namespace="two"), policy("p", "a"))
    _, _, told = asked(mesh_config(grpc(service="authz.example")), *both)
    assert "write one/authz.example" in told[0]
    (one,), _, told = asked(mesh_config(grpc(service="two/authz.example")), *both)
    assert (one.authorizer is None, told) == (False, [])


def test_one_workload_asks_one_authorizer() -> None:
    (one, other), _, told = asked(mesh_config(grpc("a"), grpc("b")), policy("p", "a"), policy("q", "b"))
    assert (one.authorizer, other.authorizer) == (None, None)
    assert len(told) == 2
    both = asked(mesh_config(grpc("a"), grpc("b")), policy("p", "a"), policy("q", "a"))
    ((one,), _, told) = both
    assert (one.authorizer is None, len(one.rules.rules), told) == (False, 2, [])
    elsewhere = policy("q", "b", selector="app: other")
    (one,), _, told = asked(mesh_config(grpc("a"), grpc("b")), policy("p", "a"), elsewhere)
    assert (one.authorizer is None, told) == (False, [])


def test_of_connections_an_authorizer_by_http_is_not_asked_and_that_is_told() -> None:
    (one,), streams, (told,) = asked(mesh_config(http()), policy("p", "a"))
    assert (one.authorizer is None, streams) == (False, ())
    assert "port 81 of web.default.svc.cluster.local" in told


def test_a_dry_run_asks_nobody() -> None:
    tried = policy("p", "a", notes='{istio.io/dry-run: "true"}').replace("CUSTOM", "DENY")
    assert asked(mesh_config(grpc()), tried.replace("  provider: {name: a}\n", ""))[0] == ()


def test_an_authorizer_that_the_proxy_cannot_see_is_told() -> None:
    hiding = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: all, namespace: default}
spec: {egress: [{hosts: [./*]}]}
"""
    _, _, (told,) = asked(mesh_config(grpc()), policy("p", "a"), hiding)
    assert f"web-0.default has no way to outbound|9000||{HOST}" in told
    _, _, (told,) = asked(mesh_config(grpc(port=1)), policy("p", "a"))
    assert f"has no way to outbound|1||{HOST}" in told


def test_an_authorizer_does_not_wait_until_it_is_needed() -> None:
    of = world(WEB, AUTHZ, mesh_config(grpc()), policy("p", "a"))
    proxy, _ = compile_proxy(of, identity(NODE, {"app": "web"}))
    lazy = on_demand(proxy, of.memo).lazy
    assert f"outbound|9000||{HOST}" not in lazy
    assert "outbound|80||web.default.svc.cluster.local" in lazy


def test_an_authorizer_of_a_route_of_the_mesh_does_not_wait_either() -> None:
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters:
    - type: ExternalAuth
      externalAuth: {protocol: GRPC, grpc: {}, backendRef: {name: authz, namespace: auth, port: 9000}}
    backendRefs: [{name: web, port: 80}]
"""
    of = world(WEB, AUTHZ, route)
    proxy, problems = compile_proxy(of, identity())
    assert not problems
    assert f"outbound|9000||{HOST}" not in on_demand(proxy, of.memo).lazy
    ((name, authorizers),) = {
        (chain.handler.routes, chain.handler.authorizers)
        for one in proxy.listeners
        for chain in one.chains
        if isinstance(chain.handler, ir.HttpHandler) and chain.handler.authorizers
    }
    assert name in {table.name for table in proxy.routes}
    assert [one.cluster for one in authorizers] == [f"outbound|9000||{HOST}"]
