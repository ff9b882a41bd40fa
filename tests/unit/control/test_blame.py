"""Whose fault it may be that a proxy refuses something: the resources that it was made of."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, service, world

from weft.compile.proxy import compile_proxy
from weft.control.status import sources
from weft.emit.bundle import emit
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from weft.xds.connection import brief

FILTERS = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: inbound}
spec:
  configPatches:
  - applyTo: NETWORK_FILTER
    match: {context: SIDECAR_INBOUND}
    patch: {operation: INSERT_FIRST, value: {name: ""}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: rest}
spec:
  configPatches:
  - applyTo: CLUSTER
    patch: {operation: ADD, value: {name: added}}
  - applyTo: VIRTUAL_HOST
    match: {context: SIDECAR_OUTBOUND}
    patch: {operation: MERGE, value: {domains: [more.example.com]}}
"""
VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"""
PATH = "/apis/networking.istio.io/v1alpha3/namespaces/default/envoy-filter"


def test_the_filters_that_had_a_hand_in_it() -> None:
    proxy, _ = compile_proxy(world(service("web"), VIRTUAL_SERVICE, FILTERS), identity())
    resources = emit(proxy).resources

    def of(kind: str, name: str) -> tuple[str, ...]:
        return tuple(sorted(sources(resources[kind][name])))

    assert of(LISTENER_TYPE, "virtualInbound") == (f"{PATH}/inbound",)
    assert of(LISTENER_TYPE, "0.0.0.0_80") == ()
    assert of(CLUSTER_TYPE, "added") == (f"{PATH}/rest",)
    assert of(CLUSTER_TYPE, "outbound|80||web.default.svc.cluster.local") == ()
    virtual_service = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/web"
    assert of(ROUTE_TYPE, "80") == (virtual_service, f"{PATH}/rest")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("cannot bind '0.0.0.0:80': in use", "cannot bind '0.0.0.0:80': in use"),
        ('listener a: goo.gle/debugproto  \nname: "a"\nx: 1\n: Proto constraint failed (b)',
         "listener a: Proto constraint failed (b)"),
        ("out of range: goo.gle/debugstr \nseconds: 9", "out of range: goo.gle/debugstr \nseconds: 9"),
    ],
)  # fmt: skip
def test_what_a_proxy_says_without_the_message_that_it_prints(said: str, kept: str) -> None:
    assert brief(said) == kept
