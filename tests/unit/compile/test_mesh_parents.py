"""Routes whose parent is a Service: who obeys them, at which ports, and what goes before what."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from tests.support.compiled import host, identity, proxy, service, table, world

from weft import ir
from weft.compile.gatewayapi.rivals import settled
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.resource import Key

API = """
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80}, {name: alt, port: 81, appProtocol: http}, {name: db, port: 90, appProtocol: tcp}]}
"""
V1, V2 = service("v1", 80, namespace="shop"), service("v2", 80, namespace="shop")
HOST = "api.shop.svc.cluster.local"
OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def route(
    to: str = "v1",
    name: str = "api",
    namespace: str = "shop",
    parent: str = 'group: "", kind: Service, name: api, namespace: shop',
    kind: str = "HTTPRoute",
    match: str = "",
    created: str = "",
) -> str:
    when = f", creationTimestamp: '{created}'" if created else ""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}{when}}}
spec:
  parentRefs: [{{{parent}}}]
  rules: [{{{match}backendRefs: [{{name: {to}, namespace: shop, port: 80}}]}}]
"""


def virtual_service(to: str, created: str, more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api, namespace: shop, creationTimestamp: '{created}'}}
spec: {{hosts: [{HOST}], http: [{{route: [{{destination: {{host: {to}}}}}]}}]{more}}}
"""


def led(of: World, namespace: str = "shop", port: int = 80) -> list[str]:
    """Names of the services that the routes at a port lead to, in their order; ``404`` where there is none."""
    found = host(table(proxy(of, f"sidecar~10.0.0.9~client.{namespace}"), str(port)), HOST).routes
    return [
        route.action.destinations[0].cluster.split("|")[3].partition(".")[0]
        if isinstance(route.action, ir.Forward)
        else str(getattr(route.action, "status", ""))
        for route in found
    ]


def test_a_producers_route_holds_for_every_client_at_every_http_port() -> None:
    of = world(API, V1, V2, route())
    assert led(of) == led(of, "elsewhere") == led(of, port=81) == ["v1"]


def test_a_consumers_route_holds_in_its_namespace_in_place_of_the_producers() -> None:
    of = world(API, V1, V2, route(), route("v2", "mine", namespace="mine"))
    assert (led(of, "mine"), led(of, "elsewhere"), led(of)) == (["v2"], ["v1"], ["v1"])


def test_a_port_by_number_or_name() -> None:
    number = route("v1", "number", parent='group: "", kind: Service, name: api, port: 81')
    name = route("v2", "name", parent='group: "", kind: Service, name: api, sectionName: http')
    of = world(API, V1, V2, number, name)
    assert (led(of, port=80), led(of, port=81)) == (["v2"], ["v1"])


def test_where_no_rule_matches_nothing_is_there() -> None:
    of = world(API, V1, V2, route(match="matches: [{path: {value: /a}}], "))
    found = host(table(proxy(of), "80"), HOST).routes
    assert [item.match.path.value for item in found] == ["/a"]


def test_routes_of_one_namespace_are_merged_by_precedence_and_age() -> None:
    of = world(
        API,
        V1,
        V2,
        route("api", "first", created=OLD),
        route("v1", "later", created=NEW),
        route("v2", "longer", created=NEW, match="matches: [{path: {value: /a}}], "),
    )
    assert led(of) == ["v2", "api", "v1"]


def test_grpc_routes_go_before_http_routes_of_the_same_port() -> None:
    grpc = route(
        "v2", "grpc", kind="GRPCRoute", created=NEW, parent='group: "", kind: Service, name: api, port: 80'
    )
    of = world(API, V1, V2, route(created=OLD), grpc)
    assert (led(of, port=80), led(of, port=81)) == (["v2"], ["v1"])
    whole = world(API, V1, V2, route(created=OLD), route("v2", "grpc", kind="GRPCRoute", created=NEW))
    facts = whole.gateway_facts
    (lost,) = settled(facts.routes[Key("gateway.networking.k8s.io/HTTPRoute", "shop", "api")], facts)
    assert lost.reason == "Conflicted"


def test_among_virtual_services_the_older_holds_but_a_clients_own_routes_go_first() -> None:
    older, newer = virtual_service("v2", OLD), virtual_service("v2", NEW)
    mine = route("v1", created=NEW, namespace="mine")
    assert led(world(API, V1, V2, route(created=NEW), older), "elsewhere") == ["v2"]
    assert led(world(API, V1, V2, route(created=OLD), newer), "elsewhere") == ["v1"]
    assert led(world(API, V1, V2, mine, older), "mine") == ["v1"]
    assert led(world(API, V1, V2, mine, older), "elsewhere") == ["v2"]


def test_a_service_entry_as_parent_and_a_host_as_backend() -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [a.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
"""
    out = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: out, namespace: shop}
spec:
  parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: out}]
  rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: z}]}}], backendRefs: [{group: networking.istio.io, kind: Hostname, name: a.example, port: 80}]}]
"""
    made, problems = compile_proxy(world(entry, out), identity("sidecar~10.0.0.9~client.shop"))
    assert not problems
    (only,) = host(table(made, "80"), "a.example").routes
    assert only.request_headers.set == (("x", "z"),)


def test_what_a_sidecar_resource_admits_brings_what_its_routes_lead_to() -> None:
    limits = f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: mine}}
spec: {{egress: [{{hosts: ["shop/{HOST}"]}}]}}
"""
    made = proxy(world(API, V1, V2, route("v1"), limits), "sidecar~10.0.0.9~client.mine")
    hosts = {cluster.service.name for cluster in made.clusters if cluster.service is not None}
    assert hosts == {"api", "v1"}


def test_parents_that_are_not_there() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: gone}, {group: "", kind: Service, name: api, port: 99}, {group: "", kind: Service, name: api, port: 80}]}
"""
    facts = world(API, text).gateway_facts
    found = settled(next(iter(facts.routes.values())), facts)
    assert [parent.reason for parent in found] == ["NoMatchingParent", "NoMatchingParent", "Accepted"]
    assert [parent.owner for parent in found][-1] == Key("/Service", "shop", "api")
