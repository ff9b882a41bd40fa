"""Two ways of telling of traffic that use, together, every field that there is for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft import ir

SECOND: Final = timedelta(seconds=1)
_HTTP: Final = ir.HttpCall(
    cluster="traces", uri="http://collector/v1/traces", timeout=SECOND, headers=(("token", "t"),)
)
_GRPC: Final = ir.GrpcCall(
    cluster="traces", authority="collector", timeout=SECOND, metadata=(("token", "t"),)
)
_FILES: Final = (
    ir.AccessLog(to=ir.FileLog(path="access.log")),
    ir.AccessLog(
        to=ir.FileLog(path="own.log", text="%REQ_WITHOUT_QUERY(:PATH)% %CEL(request.method)%\n"),
        only="response.code >= 400 || request.headers['x-id'].startsWith(string(1) + 'a')",
    ),
    ir.AccessLog(
        to=ir.FileLog(path="own.json", fields='{"a": "%PROTOCOL%", "b": {"c": 1}}', omit_empty=True)
    ),
)
_CALLED: Final = (
    ir.AccessLog(
        to=ir.OtlpLog(
            cluster="traces",
            authority="collector",
            name="otel",
            text="%REQ(:PATH)%",
            labels=(("code", "%RESPONSE_CODE%"),),
        )
    ),
    ir.AccessLog(
        to=ir.GrpcLog(
            cluster="traces",
            authority="collector",
            name="http",
            filter_state=("a",),
            request_headers=("b",),
            response_headers=("c",),
            response_trailers=("d",),
        ),
        streams=False,
    ),
    ir.AccessLog(
        to=ir.GrpcLog(cluster="traces", authority="collector", name="tcp", streams=True), requests=False
    ),
)
_TAGS: Final = tuple(
    ir.SpanTag(name=source.value, source=source, value="HOME", default="none") for source in ir.TagFrom
)
_CHANGED: Final = ir.Metrics(
    changes=(
        ir.MetricChange(
            metric="istio_requests_total",
            tags=(
                ("method", "%REQ(:METHOD)%"),
                ("length", "%CEL(size(request.path))%"),
                ("source_app", None),
                ("reporter", "both"),
            ),
        ),
        ir.MetricChange(metric="istio_request_bytes", disabled=True),
    )
)

TELEMETRY: Final = ir.Telemetry(
    client=ir.Reports(
        logs=_FILES,
        metrics=_CHANGED,
        tracing=ir.Tracing(
            tracer=ir.OtlpTracer(
                call=_HTTP,
                service="mine",
                dynatrace_host=True,
                sampler=ir.DynatraceSampler(tenant="t", cluster_id=-7, root_spans_per_minute=9, call=_HTTP),
            ),
            sampling=20_000,
            by_request_id=False,
            tags=_TAGS,
            longest_path=64,
            propagates=False,
            upstream_span=True,
        ),
        refusals=False,
    ),
    server=ir.Reports(
        logs=_CALLED,
        tracing=ir.Tracing(tracer=ir.ZipkinTracer(call=_HTTP, long_ids=False, w3c=True), own_tags=False),
    ),
    flows_cluster="flows",
    flow_share=500_000,
)
OTHERWISE: Final = ir.Telemetry(
    client=ir.Reports(
        tracing=ir.Tracing(tracer=ir.DatadogTracer(cluster="traces", host="agent", service="mine")),
        metrics=None,
    ),
    server=ir.Reports(
        tracing=ir.Tracing(
            tracer=ir.SkyWalkingTracer(call=_GRPC, service="mine", instance="one", token="secret")
        )
    ),
)
