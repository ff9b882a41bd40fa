"""What ``defaultConfig`` and ``proxy.istio.io/config`` say of an Envoy's start (istio pkg/bootstrap)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from weft.model.proxy_settings import ProxySettings, ProxyStatsMatcher
from weft.start import Json, ProxyStart

# Annotations of Istio's that go before ``proxyStatsMatcher``, each for itself; values are divided by commas.
_INCLUDED: Final = {
    "prefix": ("sidecar.istio.io/statsInclusionPrefixes", "inclusion_prefixes"),
    "suffix": ("sidecar.istio.io/statsInclusionSuffixes", "inclusion_suffixes"),
    "regexp": ("sidecar.istio.io/statsInclusionRegexps", "inclusion_regexps"),
}
_OWN_ADDRESS: Final = "{pod_ip}"
_BOOLEANS: Final = {"true": True, "false": False}
_LIMIT_TYPE: Final = (
    "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
    ".DownstreamConnectionsConfig"
)
_LIMIT: Final = "envoy.resource_monitors.global_downstream_max_connections"
_SECOND: Final = timedelta(seconds=1)


def told(
    start: ProxyStart,
    settings: ProxySettings | None,
    annotations: Mapping[str, str],
    addresses: Sequence[str],
) -> ProxyStart:
    """``start`` with what the settings say beside threads and variables. ``addresses``: the proxy's own."""
    fragments = tuple(_fragments(settings or ProxySettings(), annotations, addresses))
    start = replace(start, bootstrap=(*start.bootstrap, *fragments))
    if settings is None:
        return start
    probe = settings.readiness_probe
    written = None
    if probe is not None and probe.exec is None:  # a command would run on the host
        written = probe.model_dump(mode="json", by_alias=True, exclude_none=True)
    flush = settings.file_flush_interval
    return replace(
        start,
        probe=start.probe or written,
        drain_s=_seconds(settings.termination_drain_duration),
        listener_drain_s=_seconds(settings.drain_duration),
        log_flush_ms=None if flush is None else max(1, round(flush / _SECOND * 1000)),
        log_buffer_kb=settings.file_flush_min_size_kb,
    )


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time / _SECOND


def _fragments(
    settings: ProxySettings, annotations: Mapping[str, str], addresses: Sequence[str]
) -> Iterator[Json]:
    if settings.mesh_id:
        yield {"node": {"metadata": {"MESH_ID": settings.mesh_id}}}
    if settings.service_cluster:
        yield {"node": {"cluster": settings.service_cluster}}
    values = {
        key: _BOOLEANS.get(value, value) for key, value in (settings.runtime_values or {}).items() if value
    }
    if values:
        yield {"layered_runtime": {"layers": [{"name": "told", "static_layer": values}]}}
    patterns = list(_patterns(settings.proxy_stats_matcher, annotations, addresses))
    if patterns:
        yield {"stats_config": {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}}
    connections = settings.connection_settings
    most = connections.global_downstream_connection_limit if connections is not None else None
    if most is not None:
        monitor = {"@type": _LIMIT_TYPE, "max_active_downstream_connections": most}
        yield {"overload_manager": {"resource_monitors": [{"name": _LIMIT, "typed_config": monitor}]}}


def _patterns(
    said: ProxyStatsMatcher | None, annotations: Mapping[str, str], addresses: Sequence[str]
) -> Iterator[Json]:
    """Statistics that are made beside the usual ones."""
    for kind, (annotation, field) in _INCLUDED.items():
        noted = annotations.get(annotation, "")
        texts = noted.split(",") if noted else (getattr(said, field) or ()) if said is not None else ()
        for text in filter(None, texts):
            for one in addresses if _OWN_ADDRESS in text else ("",):
                value = text.replace(_OWN_ADDRESS, one)
                yield {"safe_regex": {"regex": value}} if kind == "regexp" else {kind: value}
