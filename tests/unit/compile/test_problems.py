"""Values that are accepted and have no effect yet are told, never ignored in silence."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, service, world

from weft.compile.proxy import compile_proxy


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            """
            apiVersion: gateway.networking.k8s.io/v1
            kind: HTTPRoute
            metadata: {name: x}
            spec: {parentRefs: [{group: example.com, kind: Cloud, name: web}]}
            """,
            "spec.parentRefs[0].kind",
        ),
    ],
)
def test_values_without_effect(text: str, path: str) -> None:
    (problem,) = compile_proxy(world(text), identity())[1]
    assert (problem.code, problem.path) == ("WEFT0102", path)
    assert problem.resource.endswith(" default/x")
    assert problem.hint


ALIAS = """
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {type: ExternalName, externalName: NAME}
"""
TO_ALIAS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x, namespace: default}
spec: {hosts: [x], http: [{route: [{destination: {host: other, port: {number: PORT}, subset: v1}}]}]}
"""
SPLIT = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec: {host: web, subsets: [{name: v1}]}
"""


@pytest.mark.parametrize(
    ("name", "port", "path"),
    [
        ("web.default.svc.cluster.local", "80", ""),
        ("web.default.svc.cluster.local", "81", "spec.http[0].route[0].destination.port"),
        ("elsewhere.example", "80", "spec.http[0].route[0].destination.host"),
    ],
)
def test_another_name_is_looked_through(name: str, port: str, path: str) -> None:
    made = world(service("web"), SPLIT, ALIAS.replace("NAME", name), TO_ALIAS.replace("PORT", port))
    assert [problem.path for problem in compile_proxy(made, identity())[1]] == ([path] if path else [])
