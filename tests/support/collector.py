"""A collector of spans, records and entries: what Envoys send to somebody else's tools."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from tests.support.envoy import wait_until
from weft.protos import otlp_logs_service_v1, otlp_trace_service_v1

_SECONDS = 30.0


@dataclass(frozen=True)
class Span:
    """One of OpenTelemetry's spans. ``kind``: 2 server, 3 client. Times in nanoseconds."""

    service: str
    trace: str
    id: str
    parent: str
    kind: int
    name: str
    start: int
    end: int
    attributes: dict[str, str]


@dataclass
class Collector:
    """What came: ``spans`` and ``records`` by OTLP, ``zipkin`` spans as they were, ``entries`` of Envoy's own
    log service; ``metadata`` of the calls.
    """

    port: int = 0
    http_port: int = 0
    spans: list[Span] = field(default_factory=list)
    records: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    zipkin: list[dict[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    entries: int = 0

    def wait_spans(self, count: int, trace: str = "") -> list[Span]:
        """Spans, of one trace if it is named, once there are so many."""
        wait_until(lambda: len(self.of(trace)) >= count, _SECONDS, f"{count} spans, of {len(self.spans)}")
        return self.of(trace)

    def of(self, trace: str = "") -> list[Span]:
        """Spans, of one trace if it is named."""
        return [span for span in list(self.spans) if trace in {"", span.trace}]

    def _take_spans(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = otlp_trace_service_v1.ExportTraceServiceRequest.FromString(body)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        for batch in request.resource_spans:
            told = {one.key: one.value.string_value for one in batch.resource.attributes}
            for scope in batch.scope_spans:
                self.spans += (
                    Span(
                        service=told.get("service.name", ""),
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        kind=span.kind,
                        name=span.name,
                        start=span.start_time_unix_nano,
                        end=span.end_time_unix_nano,
                        attributes={one.key: one.value.string_value for one in span.attributes},
                    )
                    for span in scope.spans
                )
        return b""

    def _take_records(self, body: bytes, _: grpc.ServicerContext) -> bytes:
        request = otlp_logs_service_v1.ExportLogsServiceRequest.FromString(body)
        for batch in request.resource_logs:
            for scope in batch.scope_logs:
                self.records += (
                    (
                        record.body.string_value,
                        {one.key: one.value.string_value for one in record.attributes},
                    )
                    for record in scope.log_records
                )
        return b""

    def _take_entries(self, stream: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        for _message in stream:
            self.entries += 1
        return b""


@contextmanager
def running_collector() -> Iterator[Collector]:
    """It listens on two ports of the loopback address: gRPC, and HTTP for Zipkin."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    unary = grpc.unary_unary_rpc_method_handler
    handlers = {
        "opentelemetry.proto.collector.trace.v1.TraceService": {"Export": unary(collector._take_spans)},
        "opentelemetry.proto.collector.logs.v1.LogsService": {"Export": unary(collector._take_records)},
        "envoy.service.accesslog.v3.AccessLogService": {
            "StreamAccessLogs": grpc.stream_unary_rpc_method_handler(collector._take_entries)
        },
    }
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items())
    )
    collector.port = server.add_insecure_port("127.0.0.1:0")

    class Zipkin(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = b""
            if "content-length" in self.headers:
                body = self.rfile.read(int(self.headers["content-length"]))
            else:  # in chunks
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            collector.zipkin += json.loads(body)
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Zipkin)
    collector.http_port = web.server_address[1]
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
        web.shutdown()
        web.server_close()
