"""Listeners: how a connection's destination is known, and what reads its first bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from weft import ir
from weft.emit.listeners import listener
from weft.protos.wire import to_dict

QUIET = ir.Reports(metrics=None)
TELEMETRY = ir.Telemetry(client=QUIET, server=QUIET)
TCP = ir.TcpHandler(stat_prefix="t", destinations=(ir.Destination(cluster="c"),))
PLAIN = ir.Listener(
    name="l",
    direction=ir.Direction.OUTBOUND,
    address="127.0.0.1",
    port=80,
    receive=ir.Receive.BOUND,
    chains=(ir.FilterChain(name="tcp", match=ir.ChainMatch(), handler=TCP),),
)


def _shown(unit: ir.Listener, telemetry: ir.Telemetry = TELEMETRY) -> dict[str, Any]:
    return to_dict(listener(unit, telemetry))


def _manager(handler: ir.HttpHandler, direction: ir.Direction = ir.Direction.OUTBOUND) -> dict[str, Any]:
    chain = ir.FilterChain(name="http", match=ir.ChainMatch(), handler=handler)
    shown = _shown(replace(PLAIN, direction=direction, chains=(chain,)))
    found: dict[str, Any] = shown["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@pytest.mark.parametrize(
    ("receive", "names"),
    [
        (ir.Receive.BOUND, []),
        (ir.Receive.HANDED_OVER, []),
        (ir.Receive.REDIRECTED, ["envoy.filters.listener.original_dst"]),
        (ir.Receive.PROXY_PROTOCOL, ["envoy.filters.listener.proxy_protocol"]),
    ],
)
def test_how_the_destination_is_known(receive: ir.Receive, names: list[str]) -> None:
    shown = _shown(replace(PLAIN, receive=receive))
    assert [row["name"] for row in shown.get("listener_filters", [])] == names
    assert shown.get("bind_to_port", True) is (receive is not ir.Receive.HANDED_OVER)


def test_a_proxy_header_has_the_last_word_when_connections_are_handed_over() -> None:
    """Envoy asks the kernel first, and where connections are tracked that names the listener itself."""
    shown = _shown(replace(PLAIN, receive=ir.Receive.PROXY_PROTOCOL, hand_over=True))
    assert "listener_filters" not in shown
    assert shown["use_original_dst"] is True
    assert shown["filter_chains"][0]["use_proxy_proto"] is True
    bare = replace(PLAIN, receive=ir.Receive.PROXY_PROTOCOL, hand_over=True, chains=())
    only = _shown(replace(bare, default_chain=PLAIN.chains[0]))
    assert only["filter_chains"][0]["use_proxy_proto"] is True
    assert "default_filter_chain" not in only


def test_envoys_never_share_a_port() -> None:
    assert _shown(PLAIN)["enable_reuse_port"] is False


def test_the_destination_is_known_before_anything_is_read() -> None:
    unit = replace(PLAIN, receive=ir.Receive.REDIRECTED, inspect_tls=True, inspect_http=True)
    assert [row["name"].rpartition(".")[2] for row in _shown(unit)["listener_filters"]] == [
        "original_dst",
        "tls_inspector",
        "http_inspector",
    ]


def test_nothing_waits_for_the_client_on_declared_ports() -> None:
    unit = replace(
        PLAIN, inspect_tls=True, inspect_http=True, inspect_tls_except=(3306,), inspect_http_except=(80, 81)
    )
    tls, http = _shown(unit)["listener_filters"]
    assert tls["filter_disabled"] == {"destination_port_range": {"start": 3306, "end": 3307}}
    assert http["filter_disabled"] == {
        "or_match": {
            "rules": [
                {"destination_port_range": {"start": 80, "end": 81}},
                {"destination_port_range": {"start": 81, "end": 82}},
            ]
        }
    }


def test_filters_run_in_the_tables_order_and_where_they_belong() -> None:
    handler = ir.HttpHandler(stat_prefix="h", routes="80")
    client = [row["name"].rpartition(".")[2] for row in _manager(handler)["http_filters"]]
    assert client == ["fault", "cors", "stateful_session", "router"]
    server = _manager(handler, ir.Direction.INBOUND)
    assert [row["name"].rpartition(".")[2] for row in server["http_filters"]] == ["router"]


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        (ir.PathNormalization.NONE, (False, False, None)),
        (ir.PathNormalization.BASE, (True, False, None)),
        (ir.PathNormalization.MERGE_SLASHES, (True, True, None)),
        (ir.PathNormalization.DECODE_AND_MERGE_SLASHES, (True, True, "UNESCAPE_AND_FORWARD")),
    ],
)
def test_paths_are_normalised(rule: ir.PathNormalization, want: tuple[bool, bool, str | None]) -> None:
    shown = _manager(ir.HttpHandler(stat_prefix="h", routes="80", path_normalization=rule))
    assert (
        shown.get("normalize_path", False),
        shown.get("merge_slashes", False),
        shown.get("path_with_escaped_slashes_action"),
    ) == want


def test_an_edge_believes_only_its_own_eyes() -> None:
    edge = _manager(ir.HttpHandler(stat_prefix="h", routes="80", edge=True, trusted_hops=2))
    assert edge["use_remote_address"] is True
    assert edge["xff_num_trusted_hops"] == 2
    assert _manager(ir.HttpHandler(stat_prefix="h", routes="80"))["use_remote_address"] is False


@pytest.mark.parametrize("rule", list(ir.ClientCertificate))
def test_callers_certificates(rule: ir.ClientCertificate) -> None:
    shown = _manager(ir.HttpHandler(stat_prefix="h", routes="80", client_certificate=rule))
    assert shown.get("forward_client_cert_details", "SANITIZE") == rule.name
    tells = rule in {ir.ClientCertificate.SANITIZE_SET, ir.ClientCertificate.APPEND_FORWARD}
    assert ("set_current_client_cert_details" in shown) is tells


def test_tcp_may_offer_its_own_alpn() -> None:
    chain = replace(PLAIN.chains[0], handler=replace(TCP, alpn=("istio",)))
    state, proxy = _shown(replace(PLAIN, chains=(chain,)))["filter_chains"][0]["filters"]
    (value,) = state["typed_config"]["on_new_connection"]
    assert value["object_key"] == "envoy.network.application_protocols"
    assert value["format_string"]["text_format_source"] == {"inline_string": "istio"}
    assert proxy["typed_config"]["cluster"] == "c"


def test_refused_connections_are_logged_too() -> None:
    told = replace(QUIET, logs=(ir.AccessLog(to=ir.FileLog(path="/dev/stdout")),))
    (log,) = _shown(PLAIN, ir.Telemetry(client=told, server=told))["access_log"]
    assert log["filter"] == {"response_flag_filter": {"flags": ["NR"]}}
    assert "access_log" not in _shown(PLAIN)


def test_tracing_honours_parents() -> None:
    chain = replace(PLAIN.chains[0], handler=ir.HttpHandler(stat_prefix="h", routes="80"))
    tracer = ir.OtlpTracer(call=ir.GrpcCall(cluster="traces"))
    told = ir.Reports(tracing=ir.Tracing(tracer=tracer, sampling=10_000))
    telemetry = ir.Telemetry(client=told, server=told)
    shown = _shown(replace(PLAIN, chains=(chain,)), telemetry)
    tracing = shown["filter_chains"][0]["filters"][0]["typed_config"]["tracing"]
    assert tracing["random_sampling"] == {"value": 1.0}
    sampler = tracing["provider"]["typed_config"]["sampler"]["typed_config"]
    assert "ParentBased" in sampler["@type"]
    ratio = sampler["wrapped_sampler"]["typed_config"]["sampling_percentage"]
    assert ratio == {"numerator": 10_000, "denominator": "MILLION"}
