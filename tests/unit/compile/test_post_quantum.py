"""``compliancePolicy: pqc`` has the last word on every TLS connection, in every golden case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.golden.case import Case
from tests.support.compiled import world

from weft.compile.mesh import settings_from
from weft.compile.proxy import compile_proxy
from weft.compile.settings import Settings
from weft.compile.world import World
from weft.emit.bundle import emit
from weft.emit.static import message
from weft.model.mesh_config import MeshConfigSpec

CASES = sorted(path.parent for path in (Path(__file__).parents[2] / "golden").glob("*/in.yaml"))
CONTEXTS = ("UpstreamTlsContext", "DownstreamTlsContext", "QuicUpstreamTransport", "QuicDownstreamTransport")


def contexts(value: Any) -> Iterator[dict[str, Any]]:
    """All TLS contexts in a resource."""
    if isinstance(value, dict):
        if str(value.get("@type", "")).endswith(CONTEXTS):
            yield value
        for part in value.values():
            yield from contexts(part)
    elif isinstance(value, list):
        for part in value:
            yield from contexts(part)


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_no_connection_is_left_out(directory: Path) -> None:
    case = Case(directory)
    of = World.build(case.resources, replace(case.world.settings, post_quantum=True))
    proxy, _ = compile_proxy(of, case.identity)
    for units in emit(proxy).resources.values():
        for name, unit in units.items():
            for context in contexts(message(unit)):
                assert "Quic" not in context["@type"], name
                limits = context["common_tls_context"].get("tls_params", {})
                assert limits.get("tls_minimum_protocol_version") == "TLSv1_3", (name, context)
                assert limits.get("ecdh_curves") == ["X25519MLKEM768"], (name, context)


def test_some_case_has_each_kind_of_context() -> None:
    """Else the test above could not fail."""
    found = {
        context["@type"].rsplit(".", 1)[-1]
        for directory in CASES
        for units in Case(directory).bundle.resources.values()
        for unit in units.values()
        for context in contexts(message(unit))
    }
    assert {"UpstreamTlsContext", "DownstreamTlsContext", "QuicDownstreamTransport"} <= found


def test_it_is_said_by_a_mesh_config() -> None:
    said = world("""
        apiVersion: weft.dev/v1alpha1
        kind: MeshConfig
        metadata: {name: default, namespace: istio-system}
        spec: {compliancePolicy: pqc, meshMTLS: {minProtocolVersion: TLSV1_2}}
    """)
    assert said.settings.post_quantum
    assert not Settings().post_quantum
    assert not settings_from(MeshConfigSpec.model_validate({})).post_quantum
