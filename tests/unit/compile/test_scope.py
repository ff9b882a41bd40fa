"""Sidecar resources: what a sidecar is told about."""

from __future__ import annotations

import pytest
from tests.support.compiled import listener, proxy, service, table, world

from weft import ir

NODE = "sidecar~10.9.9.9~client.default"
ALL = (service("a"), service("b", namespace="shop"), service("c", namespace="shop"))


def sidecar(spec: str, name: str = "default", namespace: str = "default") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def seen(*resources: str, labels: dict[str, str] | None = None) -> str:
    made = proxy(world(*ALL, *resources), NODE, labels=labels)
    names = (c.service.name for c in made.clusters if c.service is not None and c.name.startswith("outbound"))
    return "".join(sorted(names))


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        ('["*/*"]', "abc"),
        ('["./*"]', "a"),
        ('["shop/*"]', "bc"),
        ('["shop/b.shop.svc.cluster.local"]', "b"),
        ('["./*", "*/c.shop.svc.cluster.local"]', "ac"),
        ('["~/*"]', ""),
    ],
)
def test_egress_hosts(hosts: str, wanted: str) -> None:
    assert seen(sidecar(f"{{egress: [{{hosts: {hosts}}}]}}")) == wanted


def test_the_workloads_own_goes_before_the_namespaces_and_that_before_the_meshs() -> None:
    mesh = sidecar('{egress: [{hosts: ["shop/*"]}]}', namespace="istio-system")
    space = sidecar('{egress: [{hosts: ["./*"]}]}')
    own = sidecar('{workloadSelector: {labels: {app: x}}, egress: [{hosts: ["*/*"]}]}', name="own")
    assert seen(mesh) == "bc"
    assert seen(mesh, space) == "a"
    assert seen(mesh, space, own, labels={"app": "x"}) == "abc"
    assert seen(mesh, space, own, labels={"app": "y"}) == "a"


def test_where_a_rule_leads_is_seen_too() -> None:
    rule = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: a}
        spec: {hosts: [a], http: [{route: [{destination: {host: b.shop.svc.cluster.local}}]}]}
    """
    assert seen(sidecar('{egress: [{hosts: ["./*"]}]}'), rule) == "ab"


def test_registry_only_for_some() -> None:
    made = proxy(world(*ALL, sidecar("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")), NODE)
    assert table(made, "80").virtual_hosts[-1].name == "block_all"
    default = listener(made, "virtualOutbound").default_chain
    assert default is not None
    assert isinstance(default.handler, ir.TcpHandler)
    assert default.handler.destinations[0].cluster == "BlackHoleCluster"
