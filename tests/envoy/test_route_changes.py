"""Routes of a gateway change under load: whatever becomes of weights, backends and filters, nothing fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.envoy.xds import Authority, Control, backend, envoy, free_port
from tests.support.compiled import instance, service, world
from tests.support.load import load
from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.emit.bundle import emit
from weft.emit.endpoints import pack
from weft.names import ProxyName

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"
GATEWAY = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {enableAutoMtls: false}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
REWRITTEN = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]"
STEPS = (
    "{backendRefs: [{name: one, port: 80}, {name: two, port: 80, weight: 0}]}",
    "{backendRefs: [{name: one, port: 80, weight: 0}, {name: two, port: 80}]}",
    "{backendRefs: [{name: one, port: 80}, {name: two, port: 80}]}",
    f"{{backendRefs: [{{name: one, port: 80, {REWRITTEN}}}, {{name: two, port: 80}}]}}",
    "{sessionPersistence: {}, backendRefs: [{name: one, port: 80}, {name: renamed, port: 80}]}",
    "{backendRefs: [{name: renamed, port: 80}]}",
    "{backendRefs: [{name: two, port: 80}, {name: one, port: 80}]}",
)


def _route(rule: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec: {{parentRefs: [{{name: edge}}], rules: [{rule}]}}
"""


async def test_no_request_fails(tmp_path: Path) -> None:
    control, edge = Control(Authority()), free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("router", "127.0.0.1", "edge", "default"),
        labels=(("gateway.networking.k8s.io/gateway-name", "edge"),),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
        port_map=((80, edge),),
    )

    def publish(revision: int, rule: str, ports: dict[str, int]) -> None:
        """What a control plane sends: services that no route leads to are gone."""
        named = {name: port for name, port in ports.items() if f"name: {name}," in rule}
        texts = [text for name in named for text in (service(name, 80), _member(name, named[name]))]
        of = world(GATEWAY, _route(rule), *texts)
        proxy, problems = compile_proxy(of, identity)
        assert not problems
        sets = [endpoint_set(of, item.name) for item in proxy.clusters if item.discovery is ir.Discovery.EDS]
        control.store.publish_endpoints(None, {item.cluster: pack(item) for item in sets})
        control.store.publish(PROXY, emit(proxy), revision)

    async with (
        control.running(),
        backend("one") as one,
        backend("two") as two,
        envoy(control, tmp_path) as proxy,
    ):
        ports = {"one": one, "two": two, "renamed": two}
        publish(1, STEPS[0], ports)
        await proxy.ready()
        await control.settled(1)
        # Left in a thread: the backends live in this loop, and the last requests want their answers.
        sending = load("127.0.0.1", edge, pause_s=0.002)
        sent = sending.__enter__()
        try:
            for revision, rule in enumerate(STEPS * 2, 2):
                await asyncio.to_thread(sent.wait_for, 20)
                publish(revision, rule, ports)
                await control.settled(revision)
            await asyncio.to_thread(sent.wait_for, 20)
        finally:
            await asyncio.to_thread(sending.__exit__, None, None, None)
    assert control.record.refusals() == []
    assert sent.failures == []
    assert set(sent.answers) == {200}


def _member(name: str, port: int) -> str:
    return instance(f"{name}-0", name, "127.0.0.1", ports=f"{{http: {port}}}")
