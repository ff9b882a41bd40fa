"""What is remembered equals what is compiled from nothing, whatever changes in whatever order."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.certificates import TestAuthority
from tests.support.compiled import identity, instance, resources, service
from tests.unit.compile.test_inbound import peer

from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.resource import Key, Resource

NAMES = ("a", "b")
SPACES = ("default", "other")


def virtual_service(name: str, space: str, host: str, subset: str, weight: int, labels: bool) -> str:
    match = "match: [{sourceLabels: {app: a}}], " if labels else ""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {space}}}
spec:
  hosts: [{host}]
  gateways: [mesh, edge]
  http:
  - {{{match}route: [{{destination: {{host: {host}, subset: {subset}}}, weight: {weight}}}, {{destination: {{host: b}}, weight: 1}}]}}
"""


def destination_rule(name: str, space: str, host: str, mode: str, port: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {space}}}
spec:
  host: {host}
  trafficPolicy: {{tls: {{mode: {mode}}}, portLevelSettings: [{{port: {{number: {port}}}, loadBalancer: {{simple: RANDOM}}}}]}}
  subsets: [{{name: v1, labels: {{version: v1}}}}]
"""


EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""

DOOR = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door}
spec:
  gatewayClassName: weft
  allowedListeners: {namespaces: {from: All}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: tcp, port: 90, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
"""
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: x}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}], to: [{group: "", kind: Service}]}
"""


def request_route(kind: str, name: str, space: str, parent: str, backend: str, weight: int) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {space}}}
spec:
  parentRefs: [{{{parent}}}]
  rules: [{{backendRefs: [{{name: {backend}, namespace: default, port: 80, weight: {weight}}}, {{name: b, port: 80}}]}}]
"""


def stream_route(name: str, space: str, parent: str, backend: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: {name}, namespace: {space}}}
spec:
  parentRefs: [{{{parent}}}]
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
"""


def listener_set(name: str, space: str, port: int, protocol: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {space}}}
spec:
  parentRef: {{name: door, namespace: default}}
  listeners: [{{name: more, port: {port}, protocol: {protocol}}}]
"""


def backend_policy(name: str, target: str, host: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {target}}}]
  validation:
    hostname: {host}.example.com
    caCertificateRefs: [{{group: "", kind: ConfigMap, name: trusted}}]
"""


TRUSTED = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: trusted}}
data: {json.dumps({"ca.crt": TestAuthority().pem})}
"""
UNTRUSTED = """
apiVersion: v1
kind: ConfigMap
metadata: {name: trusted}
data: {ca.crt: nothing}
"""

names, spaces = st.sampled_from(NAMES), st.sampled_from(SPACES)
texts = st.one_of(
    st.builds(
        lambda name, space, port, kind: service(name, port, port_name=kind, namespace=space),
        names,
        spaces,
        st.sampled_from((80, 90)),
        st.sampled_from(("http", "tcp", "x")),
    ),
    st.builds(
        lambda name, space, app, account, version: instance(
            f"{name}-1", app, "10.0.0.1", account=account, namespace=space, version=version
        ),
        names,
        spaces,
        names,
        st.sampled_from(("default", "")),
        st.sampled_from(("v1", "v2")),
    ),
    st.builds(
        virtual_service,
        names,
        spaces,
        names,
        st.sampled_from(("v1", "v2")),
        st.integers(1, 3),
        st.booleans(),
    ),
    st.builds(
        destination_rule,
        names,
        spaces,
        st.sampled_from(("a", "b.default.svc.cluster.local", '"*.default.svc.cluster.local"')),
        st.sampled_from(("DISABLE", "ISTIO_MUTUAL")),
        st.sampled_from((80, 90)),
    ),
    st.builds(
        lambda mode, space, app: peer(mode, namespace=space, app=app),
        st.sampled_from(("STRICT", "DISABLE", "UNSET")),
        st.sampled_from((*SPACES, "istio-system")),
        st.sampled_from(("", "a")),
    ),
    st.builds(
        request_route,
        st.sampled_from(("HTTPRoute", "HTTPRoute", "GRPCRoute")),
        names,
        spaces,
        st.sampled_from(
            ("name: door, namespace: default", 'group: "", kind: Service, name: a, namespace: default')
        ),
        names,
        st.integers(0, 2),
    ),
    st.builds(
        stream_route,
        names,
        spaces,
        st.sampled_from(
            (
                "name: door, namespace: default",
                "kind: ListenerSet, name: a, namespace: default",
                'group: "", kind: Service, name: a, namespace: default',
            )
        ),
        names,
    ),
    st.builds(listener_set, names, spaces, st.sampled_from((80, 90, 91)), st.sampled_from(("HTTP", "TCP"))),
    st.builds(backend_policy, names, names, names),
    st.sampled_from((EDGE, DOOR, GRANT, TRUSTED, UNTRUSTED)),
)
changes = st.lists(st.tuples(texts, st.booleans()), max_size=12)
PROXIES = (
    identity("sidecar~10.0.0.1~a-1.default", {"app": "a"}),
    identity("sidecar~10.0.0.2~b-1.other"),
    identity("router~10.0.0.3~edge-1.default", {"istio": "ingressgateway"}),
    identity("router~10.0.0.4~door-1.default", {"gateway.networking.k8s.io/gateway-name": "door"}),
)


@settings(max_examples=60, deadline=None)
@given(changes)
def test_incremental_equals_from_scratch(steps: list[tuple[str, bool]]) -> None:
    world = World.build()
    there: dict[Key, Resource] = {}
    for text, removed in steps:
        (resource,) = resources(text)
        if removed:
            there.pop(resource.key, None)
            world = world.replace((), [resource.key])
        else:
            there[resource.key] = resource
            world = world.replace([resource])
        scratch = World.build(there.values(), vips=world.vips)
        for proxy in PROXIES:
            one, problems = compile_proxy(world, proxy)
            other, same = compile_proxy(scratch, proxy)
            assert one == other
            assert problems == same
            for cluster in one.clusters:
                assert endpoint_set(world, cluster.name) == endpoint_set(scratch, cluster.name)


def test_a_changed_resource_leaves_all_other_units_alone() -> None:
    texts = [service(name, 80) for name in NAMES] + [service("c", 90)]
    before = World.build(resources(*texts))
    after = before.replace(resources(virtual_service("a", "default", "a", "v1", 1, False)))
    old, new = compile_proxy(before, PROXIES[1])[0], compile_proxy(after, PROXIES[1])[0]
    assert [x.name for x, y in zip(old.routes, new.routes, strict=True) if x is not y] == ["80"]
    assert all(x is y for x, y in zip(old.clusters, new.clusters, strict=True))
    assert all(x is y for x, y in zip(old.listeners, new.listeners, strict=True))
    hosts = dict(zip(("a", "b"), old.routes[0].virtual_hosts, strict=False))
    assert any(host is hosts["b"] for host in new.routes[0].virtual_hosts)


def test_a_world_without_a_change_is_the_same_world() -> None:
    (resource,) = resources(service("a"))
    world = World.build([resource])
    assert world.replace([resource]) is world
    assert world.replace((), [Key("/Service", "default", "zzz")]) is world


def test_proxies_of_one_namespace_share_their_units() -> None:
    world = World.build(resources(service("a"), service("b")))
    one = compile_proxy(world, PROXIES[0])[0]
    other = compile_proxy(world, replace(PROXIES[0], service_account="x"))[0]
    assert all(x is y for x, y in zip(one.routes, other.routes, strict=True))
    assert all(x is y for x, y in zip(one.clusters, other.clusters, strict=True))
