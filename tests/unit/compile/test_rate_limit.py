"""RateLimits: whose they are, what they are about, and what is told of those that cannot work."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, world

from weft import ir
from weft.compile.proxy import compile_proxy
from weft.compile.world import World

LIMIT = """
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""
WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-0, namespace: default}
spec: {address: 10.0.0.1, labels: {app: web}}
"""
ONE = "{name: one, requests: 1}"


def limit(name: str, spec: str, namespace: str = "default") -> str:
    """A RateLimit in one line."""
    return LIMIT.format(name=name, namespace=namespace, spec=spec)


def kept(found: World, **labels: str) -> list[str]:
    """The limits that a sidecar in ``default`` keeps on its way in."""
    who = identity("sidecar~10.0.0.1~web-0.default", labels)
    proxy, _ = compile_proxy(found, who)
    limits: list[str] = []
    for listener in proxy.listeners:
        chains = (*listener.chains, *((listener.default_chain,) if listener.default_chain else ()))
        for chain in chains:
            if isinstance(chain.handler, ir.HttpHandler) and chain.handler.rate_limits:
                assert listener.direction is ir.Direction.INBOUND, "calls of its own are not counted"
                limits = [one.name for one in chain.handler.rate_limits]
    return limits


def test_those_of_the_mesh_come_first_and_others_are_chosen_by_labels() -> None:
    found = world(
        WEB,
        limit("all", f"{{limits: [{ONE}]}}"),
        limit("web", f"{{selector: {{matchLabels: {{app: web}}}}, limits: [{ONE}]}}"),
        limit("db", f"{{selector: {{matchLabels: {{app: db}}}}, limits: [{ONE}]}}"),
        limit("mesh", f"{{limits: [{ONE}]}}", "istio-system"),
        limit("foreign", f"{{limits: [{ONE}]}}", "elsewhere"),
    )
    assert kept(found, app="web") == ["istio-system/mesh", "default/all", "default/web"]


@pytest.mark.parametrize(
    ("spec", "peers"),
    [
        (f"{{limits: [{ONE}]}}", "outbound|80||web.default.svc.cluster.local"),
        (f"{{scope: PROXY, limits: [{ONE}]}}", ""),
        (f"{{limits: [{ONE}], service: {{host: web, port: 80, domain: d}}}}", ""),
    ],
)
def test_replicas_are_known_where_a_limit_is_divided_among_them(spec: str, peers: str) -> None:
    found = world(WEB, limit("web", spec))
    proxy, problems = compile_proxy(found, identity("sidecar~10.0.0.1~web-0.default", labels={"app": "web"}))
    assert (proxy.peers, problems) == (peers, ())


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("{host: nowhere, port: 80, domain: d}", "nothing is limited"),
        ("{host: web, port: 81, domain: d, failOpen: false}", "every request is refused"),
    ],
)
def test_a_service_that_is_not_there_is_told(service: str, said: str) -> None:
    found = world(WEB, limit("web", f"{{limits: [{ONE}], service: {service}}}"))
    _, (problem,) = compile_proxy(found, identity("sidecar~10.0.0.1~web-0.default"))
    assert said in problem.message
    assert problem.path == "spec.service"
