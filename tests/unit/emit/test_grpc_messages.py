"""Messages of gRPC are counted where calls of gRPC may come, and cost nothing elsewhere."""

from __future__ import annotations

import pytest

from weft import ir
from weft.compile.protocol import Protocol
from weft.emit.filters import grpc_messages
from weft.emit.filters.table import chain
from weft.emit.metrics import http_metrics
from weft.ir.telemetry import MetricChange, Metrics
from weft.protos import stats_log_v3


def _names(*, grpc: bool) -> list[str]:
    handler = ir.HttpHandler(stat_prefix="x", routes="x", grpc=grpc)
    return [one.name for one in chain(handler, ir.Direction.INBOUND)]


def test_the_note_is_taken_of_what_was_counted() -> None:
    """Answers pass the filters from the last to the first."""
    assert _names(grpc=True)[-3:-1] == [grpc_messages.NOTE, grpc_messages.COUNT]


def test_plain_http_has_neither() -> None:
    assert not {grpc_messages.NOTE, grpc_messages.COUNT} & set(_names(grpc=False))


@pytest.mark.parametrize(
    ("protocol", "may"),
    [
        (Protocol.GRPC, True),
        (Protocol.GRPC_WEB, True),
        (Protocol.HTTP2, True),
        (Protocol.AUTO, True),
        (Protocol.HTTP, False),
        (Protocol.TCP, False),
        (Protocol.HTTPS, False),
    ],
)
def test_which_ports_may_have_it(protocol: Protocol, may: bool) -> None:
    assert protocol.may_be_grpc is may


def _counters(metrics: Metrics, *, grpc: bool = True) -> list[str]:
    logs = http_metrics("source", "none", metrics, grpc=grpc)
    configs = [stats_log_v3.Config.FromString(log.typed_config.value) for log in logs]
    return [counter.stat.name for config in configs for counter in config.counters]


def test_they_have_a_log_of_their_own() -> None:
    both = ["istio_request_messages_total", "istio_response_messages_total"]
    assert _counters(Metrics())[-2:] == both
    assert not set(both) & set(_counters(Metrics(), grpc=False))


def test_the_telemetry_api_can_do_without_one_and_change_the_other() -> None:
    disabled = MetricChange(metric="istio_request_messages_total", disabled=True)
    changed = MetricChange(
        metric="istio_response_messages_total", tags=(("source_workload", None), ("mine", "x"))
    )
    (log,) = http_metrics("destination", "mutual_tls", Metrics(changes=(disabled, changed)), grpc=True)[2:]
    (counter,) = stats_log_v3.Config.FromString(log.typed_config.value).counters
    tags = {tag.name: tag.value_format for tag in counter.stat.tags}
    assert "source_workload" not in tags
    assert tags["mine"] == "x"
    assert tags["source_app"] == "%FILTER_STATE(weft.caller.app:PLAIN)%"
