"""What a proxy tells of its traffic, as the mesh's settings say."""

from __future__ import annotations

from weft import ir
from weft.compile.settings import Settings
from weft.names import TELEMETRY_CLUSTER


def telemetry_of(settings: Settings) -> ir.Telemetry:
    """Spans and flows go to the telemetry store, over a cluster that every bootstrap has."""
    tracer = ir.OtlpTracer(call=ir.GrpcCall(cluster=TELEMETRY_CLUSTER))
    told = ir.Reports(
        logs=(ir.AccessLog(to=ir.FileLog(path=settings.access_log)),) if settings.access_log else (),
        tracing=ir.Tracing(tracer=tracer) if settings.tracing else None,
    )
    return ir.Telemetry(
        client=told, server=told, flows_cluster=TELEMETRY_CLUSTER, flow_share=settings.flow_share
    )
