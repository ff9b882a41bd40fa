"""Clusters: each field lands where Envoy reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from weft import ir
from weft.emit.clusters import cluster
from weft.protos.wire import to_dict

MESH_TLS = ir.UpstreamTls(
    sni="outbound_.80_._.a.default.svc.cluster.local",
    certificate=ir.SecretRef(source=ir.SecretFrom.FILE, name="default"),
    trust=ir.SecretRef(source=ir.SecretFrom.FILE, name="ROOTCA"),
    peer_names=(ir.TextMatch(test=ir.TextTest.EXACT, value="spiffe://cluster.local/ns/default/sa/a"),),
    alpn=("istio-h2", "istio", "h2"),
)
PLAIN = ir.Cluster(name="c", discovery=ir.Discovery.EDS, protocol=ir.UpstreamProtocol.HTTP1)
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _shown(unit: ir.Cluster) -> dict[str, Any]:
    return to_dict(cluster(unit))


def test_endpoints_come_over_the_same_stream() -> None:
    shown = _shown(PLAIN)
    assert shown["type"] == "EDS"
    assert shown["eds_cluster_config"] == {
        "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        "service_name": "c",
    }


def test_silence_about_limits_means_none() -> None:
    (limits,) = _shown(PLAIN)["circuit_breakers"]["thresholds"]
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    assert {limits[name] for name in names} == {2**32 - 1}


def test_each_endpoint_says_whether_it_takes_mtls() -> None:
    mesh, other = _shown(replace(PLAIN, tls=MESH_TLS))["transport_socket_matches"]
    assert mesh["match"] == {"tlsMode": "istio"}
    context = mesh["transport_socket"]["typed_config"]
    assert context["sni"] == MESH_TLS.sni
    common = context["common_tls_context"]
    assert common["alpn_protocols"] == ["istio-h2", "istio", "h2"]
    (certificate,) = common["tls_certificate_sds_secret_configs"]
    assert certificate["sds_config"]["path_config_source"] == {
        "path": "sds.json",
        "watched_directory": {"path": "."},
    }
    validation = common["combined_validation_context"]
    assert validation["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/a"}}
    ]
    trust = validation["validation_context_sds_secret_config"]
    assert trust["sds_config"]["path_config_source"]["path"] == "sds-rootca.json"
    assert other["match"] == {}
    assert "raw_buffer" in other["transport_socket"]["name"]


def test_tls_always_is_the_clusters_own_socket() -> None:
    shown = _shown(replace(PLAIN, tls=MESH_TLS, mutual=ir.MutualTls.ALWAYS))
    assert "transport_socket_matches" not in shown
    assert "UpstreamTlsContext" in shown["transport_socket"]["typed_config"]["@type"]


@pytest.mark.parametrize(
    ("protocol", "want"),
    [
        (ir.UpstreamProtocol.HTTP1, {"explicit_http_config": {"http_protocol_options": {}}}),
        (
            ir.UpstreamProtocol.HTTP2,
            {"explicit_http_config": {"http2_protocol_options": {"allow_connect": True}}},
        ),
        (
            ir.UpstreamProtocol.AS_RECEIVED,
            {
                "use_downstream_protocol_config": {
                    "http_protocol_options": {},
                    "http2_protocol_options": {"allow_connect": True},
                }
            },
        ),
    ],
)
def test_protocols(protocol: ir.UpstreamProtocol, want: dict[str, Any]) -> None:
    options = _shown(replace(PLAIN, protocol=protocol))["typed_extension_protocol_options"][HTTP]
    assert {key: options[key] for key in options if key.endswith("_config")} == want


def test_tcp_has_no_http_options() -> None:
    assert "typed_extension_protocol_options" not in _shown(replace(PLAIN, protocol=ir.UpstreamProtocol.TCP))


def test_istios_metadata() -> None:
    service = ir.ServiceRef(host="a.default.svc.cluster.local", name="a", namespace="default")
    shown = _shown(replace(PLAIN, service=service, subset="v1", source=ir.Source(path="/apis/dr")))
    assert shown["metadata"]["filter_metadata"]["istio"] == {
        "config": "/apis/dr",
        "subset": "v1",
        "services": [{"host": service.host, "name": "a", "namespace": "default"}],
    }


def test_only_the_outlier_tests_that_were_asked_for_run() -> None:
    rule = ir.OutlierDetection(consecutive_gateway_errors=3, ejection_time=timedelta(seconds=7))
    shown = _shown(replace(PLAIN, outlier=rule))["outlier_detection"]
    assert shown["consecutive_gateway_failure"] == 3
    assert shown["base_ejection_time"] == "7s"
    enforced = {key for key, value in shown.items() if key.startswith("enforcing") and value}
    assert enforced == {"enforcing_consecutive_gateway_failure"}


def test_no_panic_unless_asked_for() -> None:
    assert _shown(PLAIN)["common_lb_config"]["healthy_panic_threshold"] == {}
    assert _shown(replace(PLAIN, outlier=ir.OutlierDetection(min_health_percent=40)))["common_lb_config"][
        "healthy_panic_threshold"
    ] == {"value": 40.0}


def test_an_external_host_is_verified_by_its_own_name() -> None:
    tls = ir.UpstreamTls(sni_from_host=True, trust=ir.SecretRef(source=ir.SecretFrom.SYSTEM, name="system"))
    shown = _shown(replace(PLAIN, tls=tls, mutual=ir.MutualTls.ALWAYS))
    options = shown["typed_extension_protocol_options"][HTTP]
    assert options["upstream_http_protocol_options"] == {"auto_sni": True, "auto_san_validation": True}
