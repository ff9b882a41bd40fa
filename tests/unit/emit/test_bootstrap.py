"""Bootstraps are plain data, built without protobuf, and a real Envoy takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.certificates import TestAuthority
from tests.support.envoy import validate

from weft.emit.bootstrap import Place, Settings, bootstrap, environment
from weft.names import ProxyName
from weft.protos.wire import from_dict

SETTINGS = Settings(
    name=ProxyName("sidecar", "10.0.0.1", "reviews-0", "default"),
    metadata={"LABELS": {"app": "reviews", "version": "v1"}, "INTERCEPTION_MODE": "REDIRECT"},
    xds_host="10.0.0.2",
    control_plane=("spiffe://cluster.local/ns/istio-system/sa/weft", "weft.example.com"),
    health=Place(address="127.0.0.1", port=15021),
    prometheus=Place(address="127.0.0.1", port=15090),
    locality=("eu", "a", ""),
)


def test_a_real_envoy_accepts_it(tmp_path: Path) -> None:
    TestAuthority().write_identity(tmp_path, "spiffe://cluster.local/ns/default/sa/reviews")
    validate(bootstrap(SETTINGS), tmp_path)


def test_a_host_name_is_resolved(tmp_path: Path) -> None:
    TestAuthority().write_identity(tmp_path, "spiffe://cluster.local/ns/default/sa/reviews")
    named = Settings(name=SETTINGS.name, xds_host="control.example.com")
    validate(bootstrap(named), tmp_path)
    (control,) = [
        row for row in bootstrap(named)["static_resources"]["clusters"] if row["name"] == "xds-grpc"
    ]
    assert control["type"] == "STRICT_DNS"
    assert control["transport_socket"]["typed_config"]["sni"] == "control.example.com"


def test_it_is_envoys_message() -> None:
    from_dict(bootstrap(SETTINGS), "envoy.config.bootstrap.v3.Bootstrap")


def test_it_says_who_it_is() -> None:
    node = bootstrap(SETTINGS)["node"]
    assert node["id"] == "sidecar~10.0.0.1~reviews-0.default~default.svc.cluster.local"
    assert node["cluster"] == "reviews.default"
    assert node["metadata"] == {
        "NAME": "reviews-0",
        "NAMESPACE": "default",
        "LABELS": {"app": "reviews", "version": "v1"},
        "INTERCEPTION_MODE": "REDIRECT",
    }


def test_admin_is_for_its_user_only() -> None:
    assert bootstrap(SETTINGS)["admin"]["address"] == {"pipe": {"path": "admin.sock", "mode": 0o600}}


def test_it_comes_back_soon_after_the_control_plane() -> None:
    (service,) = bootstrap(SETTINGS)["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service["envoy_grpc"]["retry_policy"]["retry_back_off"] == {
        "base_interval": "0.1s",
        "max_interval": "1s",
    }


def test_the_control_plane_is_verified() -> None:
    (control,) = [
        row for row in bootstrap(SETTINGS)["static_resources"]["clusters"] if row["name"] == "xds-grpc"
    ]
    common = control["transport_socket"]["typed_config"]["common_tls_context"]
    names = common["combined_validation_context"]["default_validation_context"][
        "match_typed_subject_alt_names"
    ]
    assert [(row["san_type"], row["matcher"]["exact"]) for row in names] == [
        ("URI", "spiffe://cluster.local/ns/istio-system/sa/weft"),
        ("DNS", "weft.example.com"),
    ]


@pytest.mark.parametrize("kept", [(), ("cluster.outbound",)])
def test_statistics_are_a_list_of_what_is_kept(kept: tuple[str, ...]) -> None:
    made = bootstrap(Settings(name=SETTINGS.name, kept_stats=kept))
    patterns = made["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    prefixes = [row["prefix"] for row in patterns if "prefix" in row]
    assert "istio_" in prefixes
    assert set(kept) <= set(prefixes)


def test_metrics_know_the_proxy_from_its_environment() -> None:
    found = environment(SETTINGS)
    assert found["WEFT_CANONICAL_SERVICE"] == "reviews"
    assert found["WEFT_CANONICAL_REVISION"] == "v1"
    assert "service.name=reviews.default" in found["OTEL_RESOURCE_ATTRIBUTES"]


def test_the_node_agent_can_build_it_without_protobuf() -> None:
    script = """
import json, sys
from weft.emit.bootstrap import Settings, bootstrap
from weft.names import ProxyName

bootstrap(Settings(name=ProxyName("sidecar", "10.0.0.1", "a", "b")))
heavy = ("google", "pydantic", "grpc", "envoy", "weft.protos")
print(json.dumps([name for name in sys.modules if name.startswith(heavy)]))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


def test_every_proxy_pushes_what_grew_and_that_it_lives() -> None:
    (sink,) = bootstrap(SETTINGS)["stats_sinks"]
    config = sink["typed_config"]
    assert config["report_counters_as_deltas"] is config["report_histograms_as_deltas"] is True
    assert config["grpc_service"]["envoy_grpc"]["cluster_name"] == "weft-telemetry"
    (dropped,) = config["custom_metric_conversions"]["matcher_list"]["matchers"]
    kept = dropped["predicate"]["not_matcher"]["or_matcher"]["predicate"]
    assert [each["single_predicate"]["value_match"]["prefix"] for each in kept] == [
        "istio_", "server.uptime", "server.memory_", "server.total_connections",
        "control_plane.connected_state", "cluster_manager.active_clusters",
        "listener_manager.total_listeners_active",
        *(f"cluster.weft-telemetry.upstream_{what}_total" for what in ("rq", "rq_pending", "cx")),
    ]  # fmt: skip
    assert "weft.workload=reviews" in environment(SETTINGS)["OTEL_RESOURCE_ATTRIBUTES"]
