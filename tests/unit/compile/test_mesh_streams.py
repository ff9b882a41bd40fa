"""TCPRoute and TLSRoute at Services: which connections of sidecars they lead where."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, proxy, service, world

from weft import ir
from weft.compile.proxy import compile_proxy

DB, NEXT = service("db", 5432, port_name="tcp"), service("next", 5432, port_name="tcp")
HOST = "outbound|5432||{}.default.svc.cluster.local"


def route(namespace: str = "default", parent: str = "", backends: str = "") -> str:
    own = "{name: db, namespace: default, port: 5432, weight: 9}"
    backends = backends or f"{own}, {{name: next, namespace: default, port: 5432}}"
    return f"""
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: split, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: db, namespace: default{parent}}}]
  rules: [{{backendRefs: [{backends}]}}]
"""


def led(*texts: str, client: str = "default") -> list[tuple[str, int]]:
    """Where connections to the database go."""
    made = proxy(world(DB, NEXT, *texts), f"sidecar~10.9.9.9~app.{client}")
    found = [
        [(part.cluster, part.weight) for part in chain.handler.destinations]
        for listener in made.listeners
        for chain in listener.chains
        if listener.port == 5432 and isinstance(chain.handler, ir.TcpHandler)
    ]
    (wanted,) = (parts for parts in found if parts != [(HOST.format("next"), 1)])
    return wanted


BOTH = [(HOST.format("db"), 9), (HOST.format("next"), 1)]
ALONE = [(HOST.format("db"), 1)]


@pytest.mark.parametrize(
    ("namespace", "client", "wanted"),
    [
        ("default", "default", BOTH),  # the producer's holds for everybody
        ("default", "other", BOTH),
        ("other", "other", BOTH),  # a consumer's for its own namespace
        ("other", "default", ALONE),
    ],
)
def test_for_whom_a_route_holds(namespace: str, client: str, wanted: list[tuple[str, int]]) -> None:
    assert led(route(namespace), client=client) == wanted


@pytest.mark.parametrize(
    ("parent", "wanted"),
    [
        (", port: 5432", BOTH),
        (", sectionName: tcp", BOTH),
        (", port: 1", ALONE),
        (", sectionName: nope", ALONE),
    ],
)
def test_a_route_may_mean_one_port(parent: str, wanted: list[tuple[str, int]]) -> None:
    assert led(route(parent=parent)) == wanted


def test_a_route_that_leads_nowhere_closes_connections() -> None:
    nothing = route(backends="{name: db, port: 5432, weight: 0}")
    assert led(nothing) == [("outbound|1||unknown.invalid", 1)]
    lost = led(route(backends="{name: db, port: 5432}, {name: nobody, port: 1}"))
    assert lost == [(HOST.format("db"), 1), ("outbound|1||nobody.default.svc.cluster.local", 1)]


def test_tls_is_told_apart_by_its_name() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: tls}
spec:
  parentRefs: [{group: "", kind: Service, name: vault}]
  hostnames: [a.example.com]
  rules: [{backendRefs: [{name: other, port: 443}]}]
"""
    names = ("vault", "other")
    made = proxy(world(*(service(name, 443, port_name="tls") for name in names), text))
    found = {
        chain.match.server_names: chain.handler.destinations[0].cluster
        for listener in made.listeners
        for chain in listener.chains
        if isinstance(chain.handler, ir.TcpHandler) and chain.match.server_names == ("a.example.com",)
    }
    assert found == {("a.example.com",): "outbound|443||other.default.svc.cluster.local"}


def test_what_no_sidecar_can_do_is_told() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: dns}
spec:
  parentRefs: [{group: "", kind: Service, name: db}, {group: example.com, kind: Bucket, name: x}]
  rules: [{backendRefs: [{name: db, port: 5432}]}]
"""
    _, problems = compile_proxy(world(DB, text), identity())
    assert [(problem.path, problem.message.split(":")[0]) for problem in problems][:2] == [
        ("spec.parentRefs[0]", "sidecars take no datagrams"),
        ("spec.parentRefs[1].kind", "weft has no parents of kind example.com/Bucket"),
    ]
