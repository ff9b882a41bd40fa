"""``compliancePolicy: pqc`` has the last word on every TLS connection, in every golden case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.golden.case import Case
from tests.support.certificates import TestAuthority
from tests.support.compiled import identity, world

from weft.compile.mesh import settings_from
from weft.compile.proxy import compile_proxy
from weft.compile.settings import Settings
from weft.compile.world import World
from weft.emit.bundle import emit
from weft.emit.static import message
from weft.model.core import Secret
from weft.model.gateway import Gateway as ApiGateway
from weft.model.istio_gateway import Gateway
from weft.model.mesh_config import MeshConfigSpec
from weft.model.virtual_service import VirtualService
from weft.names import GATEWAY_NAME_LABEL

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


def test_http3_which_cannot_be_limited_is_told_and_not_served() -> None:
    def gateway(of: World) -> tuple[list[str], list[str]]:
        router = identity("router~10.0.0.1~edge.default", {"istio": "edge", GATEWAY_NAME_LABEL: "edge"})
        made, problems = compile_proxy(of, router)
        return [one.name for one in made.listeners if one.quic], [str(one.resource) for one in problems]

    pair = TestAuthority().issue("web.example.com")
    data = json.dumps({"tls.crt": pair.certificate, "tls.key": pair.key})
    secret = f"""
        apiVersion: v1
        kind: Secret
        metadata: {{name: web}}
        type: kubernetes.io/tls
        stringData: {data}
    """
    gateways = """
        apiVersion: networking.istio.io/v1
        kind: Gateway
        metadata: {name: old, annotations: {weft.dev/http3: "true"}}
        spec:
          selector: {istio: edge}
          servers:
          - port: {number: 8443, name: https, protocol: HTTPS}
            hosts: ["*"]
            tls: {mode: SIMPLE, credentialName: web}
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: web}
        spec: {hosts: ["*"], gateways: [old], http: [{directResponse: {status: 200}}]}
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, annotations: {weft.dev/http3: "true"}}
        spec:
          gatewayClassName: weft
          listeners:
          - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: web}]}}
    """
    of = world(gateways, secret)
    before, _ = gateway(of)
    demanding = World.build(
        [one for kind in (Gateway, VirtualService, ApiGateway, Secret) for one in of.all(kind).values()],
        replace(of.settings, post_quantum=True),
    )
    after, told = gateway(demanding)
    assert len(before) == 2
    assert after == []
    assert {"Gateway default/old", "Gateway default/edge"} <= set(told)
