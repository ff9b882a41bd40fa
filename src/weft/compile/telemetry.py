"""What a proxy tells of its traffic, as the mesh's settings say."""

from __future__ import annotations

from weft import ir
from weft.compile.settings import Settings
from weft.names import TELEMETRY_CLUSTER


def telemetry_of(settings: Settings) -> ir.Telemetry:
    """Spans and flows go to the telemetry store, over a cluster that every bootstrap has."""
    return ir.Telemetry(
        access_log=settings.access_log,
        tracing_cluster=TELEMETRY_CLUSTER if settings.tracing else None,
        flows_cluster=TELEMETRY_CLUSTER,
        flow_share=settings.flow_share,
    )
