"""What the mesh's settings say of logs, metrics and traces (MeshConfig), with Istio's defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """``log_file``: where requests are logged if no Telemetry resource says more; None: nowhere.

    ``log_json``: as JSON objects, else as text; ``log_format``: of a line, or a JSON object; empty: Istio's.
    ``log_service``: Envoy's access log service is told as well. ``log_refusals``: listeners log connections
    that they refuse. ``evidence``: what ``weft explain`` reads is written whatever form others have; None: if
    there is a ``log_file``. ``tracing``: spans go to the store if nobody is named. ``*_providers`` are the
    defaults, by their names.
    """

    log_file: str | None = None
    log_json: bool = False
    log_format: str = ""
    log_service: bool = False
    log_refusals: bool = True
    evidence: bool | None = None
    tracing: bool = True
    log_providers: tuple[str, ...] = ()
    metric_providers: tuple[str, ...] = ()
    trace_providers: tuple[str, ...] = ()

    @property
    def keeps_evidence(self) -> bool:
        """Whether requests are logged in the form that ``weft explain`` reads."""
        return bool(self.log_file) if self.evidence is None else self.evidence
