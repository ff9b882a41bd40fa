"""Takes the spans that proxies send: OpenTelemetry's ``TraceService/Export`` on the port of xDS.

They are counted. Proxies make spans, and with them the tracing headers, whether or not somebody keeps them.
"""

from __future__ import annotations

from typing import Final

from weft.control.metrics import Counter
from weft.protos import otlp_trace_service_v1
from weft.xds.server import Unary

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_ACCEPTED: Final = otlp_trace_service_v1.ExportTraceServiceResponse().SerializeToString()


def count_spans(counter: Counter) -> Unary:
    """A handler that adds up what comes; the caller's certificate was checked by the port."""

    async def export(message: bytes, _caller: str | None) -> bytes:
        request = otlp_trace_service_v1.ExportTraceServiceRequest.FromString(message)
        counter.add(
            count=sum(len(scope.spans) for each in request.resource_spans for scope in each.scope_spans)
        )
        return _ACCEPTED

    return export
