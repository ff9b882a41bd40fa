"""Values that are accepted and have no effect yet are told, never ignored in silence."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, world

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
