"""What a proxy tells about the traffic it handles: access logs, metrics, traces."""

from __future__ import annotations

from weft.emit.access_logs import REPORTER, access_log, narrowed
from weft.emit.flow_log import http_flows, tcp_flows
from weft.emit.metrics import MUTUAL, http_metrics, tcp_metrics
from weft.ir.listener import Direction
from weft.ir.telemetry import Reports, Telemetry
from weft.protos import accesslog_data_v3, accesslog_v3


def reports(telemetry: Telemetry, direction: Direction) -> Reports:
    """What is told of traffic that goes this way."""
    return telemetry.server if direction is Direction.INBOUND else telemetry.client


def _policy(mutual: bool) -> str:
    return MUTUAL if mutual else "none"


def http_logs(
    telemetry: Telemetry,
    direction: Direction,
    *,
    mutual: bool = False,
    decider: str = "",
    grpc: bool = False,
) -> list[accesslog_v3.AccessLog]:
    """What is written at the end of each request. ``mutual``: the caller showed a certificate.

    ``decider``: the filter that leaves behind what policies came to; empty where there are none. ``grpc``:
    messages are counted.
    """
    told = reports(telemetry, direction)
    logs = [access_log(log, direction, decider) for log in told.logs if log.requests]
    if told.metrics is not None:
        logs.extend(http_metrics(REPORTER[direction], _policy(mutual), told.metrics, grpc=grpc))
    return [*logs, *http_flows(telemetry, direction)]


def tcp_logs(
    telemetry: Telemetry, direction: Direction, *, mutual: bool = False, decider: str = ""
) -> list[accesslog_v3.AccessLog]:
    """What is written about a connection: a line at its end, metrics also once it is connected."""
    told = reports(telemetry, direction)
    ended = accesslog_v3.AccessLogFilter()
    ended.log_type_filter.types.append(accesslog_data_v3.AccessLogType.TcpConnectionEnd)
    logs = [narrowed(access_log(log, direction, decider), ended) for log in told.logs if log.streams]
    if told.metrics is not None:
        logs.extend(tcp_metrics(REPORTER[direction], _policy(mutual), told.metrics))
    return [*logs, *tcp_flows(telemetry, direction)]


def refused_log(telemetry: Telemetry, direction: Direction) -> list[accesslog_v3.AccessLog]:
    """Connections that no filter chain takes (flag NR) are seen by the listener alone."""
    told = reports(telemetry, direction)
    if not told.refusals:
        return []
    refused = accesslog_v3.AccessLogFilter()
    refused.response_flag_filter.flags.append("NR")
    return [narrowed(access_log(log, direction), refused) for log in told.logs if log.streams]
