"""What a proxy tells of its traffic, as the mesh's settings say."""

from __future__ import annotations

from weft import ir
from weft.compile.settings import Settings
from weft.names import XDS_CLUSTER


def telemetry_of(settings: Settings) -> ir.Telemetry:
    """Spans go to the control plane, over the connection's cluster that every bootstrap has."""
    return ir.Telemetry(
        access_log=settings.access_log, tracing_cluster=XDS_CLUSTER if settings.tracing else None
    )
