"""OTLP messages as plain values. Text is what a stranger sent: control characters do not come through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from weft.names import ProxyName
from weft.protos import (
    otlp_logs_service_v1,
    otlp_trace_service_v1,
    otlp_trace_v1,
)
from weft.protos.octets import repaired
from weft.spiffe import SpiffeId

if TYPE_CHECKING:
    from weft.protos import otlp_common_v1, otlp_logs_v1

# Where none of these is, there is no query.
_QUERIES: Final = (b"?", b"#", b"url.query")
_LONGEST_TEXT: Final = 1024
_BIGGEST_SPAN: Final = 8 * 1024
_MOST_FIELDS: Final = 64
# As tracers have called them over the years; Envoy writes ``http.url`` whole.
_ADDRESSES: Final = frozenset({"http.url", "http.target", "url.full", "url.path", "url.query"})
# Control characters, and those that turn or hide what stands beside them.
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_NOTHING: Final = frozenset({"", "-"})  # what Envoy writes where there is nothing


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Reporter:
    """The proxy that tells. ``identity`` is from its certificate; ``instance`` and ``workload`` are its word.

    ``kind``: ``sidecar`` or ``router``.
    """

    identity: SpiffeId
    instance: str
    workload: str
    kind: str = "sidecar"


@dataclass(frozen=True, slots=True)
class Report:
    """One request or connection: ``fields`` as emit/flow_log.py names them; ``time_ms`` since the epoch."""

    reporter: Reporter
    time_ms: int
    fields: Mapping[str, str]
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """``body`` is the serialised opentelemetry.proto.trace.v1.Span. Times: microseconds since the epoch."""

    trace: bytes
    start_us: int
    duration_us: int
    service: str
    instance: str
    namespace: str
    failed: bool
    body: bytes


def harmless(text: str) -> str:
    """The text without what a terminal or a log would obey, cut to a kilobyte."""
    return _UNPRINTABLE.sub("\ufffd", text[:_LONGEST_TEXT])


def read(kind: type[M], message: bytes) -> M:
    """The message; also one that holds texts which are none, or a client could have a whole batch dropped."""
    try:
        return kind.FromString(message)
    except DecodeError:
        return kind.FromString(repaired(message, kind.DESCRIPTOR.full_name))


def _text(value: otlp_common_v1.AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        text = harmless(value.string_value)
        return "" if text in _NOTHING else text
    return harmless(str(getattr(value, kind))) if kind in {"int_value", "double_value", "bool_value"} else ""


def _fields(values: Iterable[otlp_common_v1.KeyValue]) -> dict[str, str]:
    made: dict[str, str] = {}
    for pair in values:
        if len(made) >= _MOST_FIELDS:
            break
        if text := _text(pair.value):
            made[harmless(pair.key)] = text
    return made


def reports(message: bytes, identity: SpiffeId, now_ms: int) -> list[Report]:
    """The records in an ``ExportLogsServiceRequest``. A time in the future is now.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    request = read(otlp_logs_service_v1.ExportLogsServiceRequest, message)
    made: list[Report] = []
    for resource in request.resource_logs:
        said = _fields(resource.resource.attributes)
        instance, kind = _instance(said.get("node_name", ""))
        workload = said.get("cluster_name", "").removesuffix(f".{identity.namespace}") or instance
        reporter = Reporter(identity, instance, workload, kind)
        for scope in resource.scope_logs:
            made += [_report(reporter, record, now_ms) for record in scope.log_records]
    return made


def _report(reporter: Reporter, record: otlp_logs_v1.LogRecord, now_ms: int) -> Report:
    time_ms = min(record.time_unix_nano // 1_000_000, now_ms) or now_ms
    return Report(reporter, time_ms, _fields(record.attributes), record.trace_id.hex())


def _instance(node: str) -> tuple[str, str]:
    try:
        name = ProxyName.parse(node)
    except ValueError:
        return "", "sidecar"
    return name.name, name.kind


def spans(message: bytes, identity: SpiffeId, keep: Callable[[bytes], bool]) -> Iterator[Span]:
    """The spans in an ``ExportTraceServiceRequest`` of traces that ``keep`` wants, by their ids.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    request = read(otlp_trace_service_v1.ExportTraceServiceRequest, message)
    failed = otlp_trace_v1.Status.StatusCode.STATUS_CODE_ERROR
    for resource in request.resource_spans:
        said = _fields(resource.resource.attributes)
        instance = said.get("service.instance.id", "")
        service = said.get("service.name", instance).removesuffix(f".{identity.namespace}")
        for scope in resource.scope_spans:
            for span in scope.spans:
                if not keep(span.trace_id):
                    continue
                body = span.SerializeToString()
                # To look at each attribute costs more than all the rest.
                if any(mark in body for mark in _QUERIES):
                    _cut_queries(span)
                    body = span.SerializeToString()
                if len(body) > _BIGGEST_SPAN:
                    span.ClearField("attributes")
                    body = span.SerializeToString()
                start = span.start_time_unix_nano // 1_000
                yield Span(
                    span.trace_id[:16],
                    start,
                    max(0, span.end_time_unix_nano // 1_000 - start),
                    service,
                    instance,
                    identity.namespace,
                    span.status.code == failed,
                    body if len(body) <= _BIGGEST_SPAN else b"",
                )


def _cut_queries(span: otlp_trace_v1.Span) -> None:
    """Takes what comes after ``?`` out of addresses: it may hold secrets, and is not kept."""
    for attribute in span.attributes:
        if attribute.key in _ADDRESSES:
            text = "" if attribute.key == "url.query" else attribute.value.string_value
            attribute.value.string_value = text.partition("?")[0].partition("#")[0]


def describe(body: bytes) -> dict[str, Any]:
    """A span as JSON: name, kind, ids in hex, times in microseconds, attributes as text."""
    span = otlp_trace_v1.Span.FromString(body)
    return {
        "spanId": span.span_id.hex(),
        "parentId": span.parent_span_id.hex(),
        "name": harmless(span.name),
        "kind": _word(otlp_trace_v1.Span.SpanKind, span.kind, "SPAN_KIND_"),
        "startUs": span.start_time_unix_nano // 1_000,
        "durationUs": max(0, (span.end_time_unix_nano - span.start_time_unix_nano) // 1_000),
        "status": _word(otlp_trace_v1.Status.StatusCode, span.status.code, "STATUS_CODE_"),
        "attributes": _fields(span.attributes),
    }


def _word(enum: Any, number: int, prefix: str) -> str:
    """The name of a value; the number itself for one that is newer than we are, or made up."""
    known = number in enum.values()
    return str(enum.Name(number)).removeprefix(prefix).lower() if known else str(number)
