"""What proxies are told of headers, connections and their start: by mesh, annotation or Gateway."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.compiled import service, world

from weft import ir
from weft.compile.handling import Handling
from weft.compile.istio.annotation_flaws import annotation_problems
from weft.compile.istio.proxy_settings import handling_of, merged
from weft.compile.own_settings import handling, start
from weft.compile.proxy import compile_proxy
from weft.model.proxy_settings import ProxySettings
from weft.model.workload import Workload
from weft.names import ProxyName

WEB = ir.ProxyIdentity(name=ProxyName.parse("sidecar~10.0.0.1~web-0.default"), labels=(("app", "web"),))
EDGE = ir.ProxyIdentity(
    name=ProxyName.parse("router~10.0.0.3~edge.default"),
    labels=(("gateway.networking.k8s.io/gateway-name", "edge"),),
    attachment=ir.Attachment(capture=ir.Capture.NONE),
)


def mesh(defaults: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{defaultConfig: {{{defaults}}}}}
"""


def workload(said: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: web, labels: {{app: web}}, annotations: {{proxy.istio.io/config: "{said}"}}}}
spec: {{command: [web]}}
"""


def gateway(infrastructure: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, annotations: {{proxy.istio.io/config: "proxyHeaders: {{server: {{value: own}}}}"}}}}
spec:
  gatewayClassName: weft
  infrastructure: {{{infrastructure}}}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def settings(**said: object) -> ProxySettings:
    return ProxySettings.model_validate(said)


def test_nothing_said_changes_nothing() -> None:
    quiet, told = world(service("web")), world(service("web"), mesh("concurrency: 1"))
    assert handling(quiet, WEB) == handling(told, WEB) == Handling()


def test_a_proxy_s_own_word_goes_before_the_mesh_s_field_by_field() -> None:
    defaults = settings(
        drainDuration="9s",
        proxyMetadata={"A": "mesh", "B": "mesh"},
        proxyHeaders={"attemptCount": {"disabled": True}, "xForwardedPort": {"enabled": True}},
    )
    own = settings(proxyMetadata={"B": "own"}, proxyHeaders={"server": {"value": "x"}})
    made = merged(defaults, own)
    assert made is not None
    assert made.drain_duration == timedelta(seconds=9)
    assert made.proxy_metadata == {"A": "mesh", "B": "own"}
    told = handling_of(made, gateway=False)
    assert told.server == "x"
    assert not told.count_attempts  # inherited
    assert not told.headers.forwarded_port  # Istio keeps only some of the mesh's headers
    assert merged(None, own) is own
    assert merged(defaults, None) is defaults


def test_the_edge_profile_is_for_gateways_and_its_fields_can_be_said() -> None:
    said = settings(connectionSettings={"profile": "EDGE", "httpIdleTimeout": "5s"})
    edge = handling_of(said, gateway=True)
    assert edge.limits.idle_timeout == timedelta(seconds=5)
    assert edge.limits.max_concurrent_streams == 100
    assert edge.limits.underscores is ir.Underscores.REJECT
    assert edge.limits.escaped_slashes is ir.EscapedSlashes.REDIRECT
    assert edge.listener_buffer == edge.cluster_buffer == 32768
    sidecar = handling_of(said, gateway=False)
    assert sidecar.limits == ir.HttpLimits(idle_timeout=timedelta(seconds=5))
    assert sidecar.listener_buffer is None


def test_client_certificates_are_told_to_applications_as_asked() -> None:
    said = {
        "forwardedClientCert": "FORWARD_ONLY",
        "setCurrentClientCertDetails": {"cert": True, "uri": False},
    }
    of = world(service("web"), mesh(f"proxyHeaders: {said}"))
    made, _ = compile_proxy(of, WEB)
    rules = {
        (listener.direction, chain.handler.client_certificate, chain.handler.headers.certificate)
        for listener in made.listeners
        for chain in listener.chains
        if isinstance(chain.handler, ir.HttpHandler)
    }
    parts = ir.CertificateParts(uri=False, certificate=True)
    assert rules == {
        (ir.Direction.INBOUND, ir.ClientCertificate.FORWARD_ONLY, parts),
        (ir.Direction.OUTBOUND, ir.ClientCertificate.SANITIZE, ir.CertificateParts()),
    }


def test_equal_handling_gives_the_same_objects() -> None:
    of = world(service("web"), mesh("connectionSettings: {httpIdleTimeout: 5s}"))
    other = replace(WEB, name=ProxyName.parse("sidecar~10.0.0.2~web-1.default"))
    one, two = compile_proxy(of, WEB)[0], compile_proxy(of, other)[0]
    sending = [item for item in one.listeners if item.direction is ir.Direction.OUTBOUND]
    assert sending
    assert all(any(item is other for other in two.listeners) for item in sending)


def test_a_gateway_s_infrastructure_tells_its_proxy() -> None:
    said = (
        "annotations: {proxy.istio.io/config: 'gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}'}"
    )
    made, _ = compile_proxy(world(gateway(said)), EDGE)
    handler = made.listeners[0].chains[0].handler
    assert isinstance(handler, ir.HttpHandler)
    assert handler.trusted_hops == 2
    assert made.listeners[0].receive is ir.Receive.PROXY_PROTOCOL
    assert handling(world(gateway("")), EDGE).server == "own"  # its own annotations, where it has no other


def test_an_envoy_starts_as_it_is_told() -> None:
    of = world(
        mesh(
            "meshId: shop, serviceCluster: web, terminationDrainDuration: 7s, drainDuration: 20s, "
            "fileFlushInterval: 250ms, fileFlushMinSizeKb: 8, runtimeValues: {a: 'true', b: '3', c: ''}, "
            "proxyStatsMatcher: {inclusionPrefixes: [cluster.], inclusionRegexps: ['http.{pod_ip}_.*']}, "
            "connectionSettings: {globalDownstreamConnectionLimit: 500}, "
            "readinessProbe: {httpGet: {path: /ready, port: 8080}}"
        ),
        workload("drainDuration: 30s"),
    )
    told = start(of, WEB)
    assert (told.drain_s, told.listener_drain_s, told.log_flush_ms, told.log_buffer_kb) == (7, 30, 250, 8)
    assert told.probe == {"httpGet": {"path": "/ready", "port": 8080}}
    node, cluster, runtime, stats, limit = told.bootstrap
    assert node == {"node": {"metadata": {"MESH_ID": "shop"}}}
    assert cluster == {"node": {"cluster": "web"}}
    assert runtime["layered_runtime"]["layers"] == [{"name": "told", "static_layer": {"a": True, "b": "3"}}]
    assert stats["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"] == [
        {"prefix": "cluster."},
        {"safe_regex": {"regex": "http.10.0.0.1_.*"}},
    ]
    monitor = limit["overload_manager"]["resource_monitors"][0]["typed_config"]
    assert monitor["max_active_downstream_connections"] == 500


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("concurrency: many", "concurrency"),
        ("[1", "none of it is heeded"),
        ("noSuchField: 1", "noSuchField"),
        ("statusPort: 15020", "a node probes applications itself"),
    ],
)
def test_what_an_annotation_says_in_vain_is_told(said: str, word: str) -> None:
    (problem,) = annotation_problems(world(workload(said)).all(Workload))
    assert word in problem.message
    assert problem.path == "metadata.annotations.proxy.istio.io/config"
    assert problem.resource == "Workload default/web"


def test_what_holds_anyway_is_no_finding() -> None:
    quiet = world(workload("holdApplicationUntilProxyStarts: true"))
    assert annotation_problems(quiet.all(Workload)) == ()
