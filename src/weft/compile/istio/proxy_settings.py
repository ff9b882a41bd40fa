"""``defaultConfig`` of MeshConfig and ``proxy.istio.io/config``: what one proxy is told of its handling.

Rules: istio pkg/config/mesh (MergeProxyConfig), pilot networking (proxy_headers.go, connection_settings.go).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from weft import ir
from weft.compile.handling import Edge, Handling
from weft.model.proxy_settings import ConnectionSettings, ProxyHeaders, ProxySettings, Topology

# Of these the mesh's word holds where the proxy's own headers say nothing.
_INHERITED: Final = ("forwarded_client_cert", "request_id", "attempt_count", "server", "envoy_debug_headers")
_CERTIFICATES: Final = {kind.name: kind for kind in ir.ClientCertificate}
_UNDERSCORES: Final = {
    "HEADERS_WITH_UNDERSCORES_ALLOW": ir.Underscores.ALLOW,
    "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST": ir.Underscores.REJECT,
    "HEADERS_WITH_UNDERSCORES_DROP_HEADER": ir.Underscores.DROP,
}
_SLASHES: Final = {
    "KEEP_UNCHANGED": ir.EscapedSlashes.KEEP,
    "REJECT_REQUEST": ir.EscapedSlashes.REJECT,
    "UNESCAPE_AND_REDIRECT": ir.EscapedSlashes.REDIRECT,
    "UNESCAPE_AND_FORWARD": ir.EscapedSlashes.FORWARD,
}
# Envoy's advice for proxies that anybody can reach (the profile EDGE).
_EDGE_BUFFER: Final = 32 * 1024
_EDGE: Final = ir.HttpLimits(
    idle_timeout=timedelta(hours=1),
    stream_idle_timeout=timedelta(minutes=5),
    request_timeout=timedelta(minutes=5),
    headers_timeout=timedelta(minutes=1),
    max_concurrent_streams=100,
    stream_window=64 * 1024,
    connection_window=1024 * 1024,
    underscores=ir.Underscores.REJECT,
    merge_slashes=True,
    escaped_slashes=ir.EscapedSlashes.REDIRECT,
)


def merged(defaults: ProxySettings | None, own: ProxySettings | None) -> ProxySettings | None:
    """The mesh's settings with a proxy's own over them, field by field; variables add up."""
    if defaults is None or own is None:
        return own if defaults is None else defaults
    said = {name: getattr(own, name) for name in own.model_fields_set}
    if defaults.proxy_metadata and own.proxy_metadata:
        said["proxy_metadata"] = {**defaults.proxy_metadata, **own.proxy_metadata}
    if defaults.proxy_headers is not None and own.proxy_headers is not None:
        before, now = defaults.proxy_headers, own.proxy_headers
        kept = {
            name: value
            for name in _INHERITED
            if getattr(now, name) is None and (value := getattr(before, name)) is not None
        }
        said["proxy_headers"] = now.model_copy(update=kept)
    return defaults.model_copy(update=said)


def handling_of(settings: ProxySettings | None, gateway: bool) -> Handling:
    """What they mean for listeners, routes and clusters. ``gateway``: it is one, no sidecar."""
    if settings is None:
        return Handling()
    made = _connections(settings.connection_settings, gateway)
    if gateway and settings.gateway_topology is not None:
        made = replace(made, edge=edge_of(settings.gateway_topology))
    headers = settings.proxy_headers
    return made if headers is None else _headers(made, headers)


def edge_of(topology: Topology) -> Edge:
    """``gatewayTopology``: what stands in front of a gateway."""
    said = str(topology.forward_client_cert_details)
    return Edge(
        trusted_hops=topology.num_trusted_proxies or 0,
        certificate=_CERTIFICATES.get(said, ir.ClientCertificate.SANITIZE_SET),
        announced=topology.proxy_protocol is not None,
    )


def _headers(made: Handling, said: ProxyHeaders) -> Handling:
    server, parts = said.server, said.set_current_client_cert_details
    kept = server is not None and bool(server.disabled)
    certificate = ir.CertificateParts()
    if parts is not None:
        certificate = ir.CertificateParts(
            subject=parts.subject is not False,
            uri=parts.uri is not False,
            dns=parts.dns is not False,
            certificate=bool(parts.cert),
            chain=bool(parts.chain),
        )
    return replace(
        made,
        server="" if server is None or kept else server.value or "",
        client_certificate=_CERTIFICATES.get(str(said.forwarded_client_cert)),
        count_attempts=not (said.attempt_count and said.attempt_count.disabled),
        forwarded_host=bool(said.x_forwarded_host and said.x_forwarded_host.enabled),
        headers=ir.OwnHeaders(
            keep_server=kept,
            request_id=not (said.request_id and said.request_id.disabled),
            debug=not (said.envoy_debug_headers and said.envoy_debug_headers.disabled),
            forwarded_port=bool(said.x_forwarded_port and said.x_forwarded_port.enabled),
            keep_case=bool(said.preserve_http1_header_case),
            certificate=certificate,
        ),
    )


def _connections(said: ConnectionSettings | None, gateway: bool) -> Handling:
    if said is None:
        return Handling()
    edge = gateway and said.profile == "EDGE"
    given: dict[str, Any] = {
        "idle_timeout": said.http_idle_timeout,
        "stream_idle_timeout": said.http_stream_idle_timeout,
        "request_timeout": said.http_request_timeout,
        "headers_timeout": said.http_request_headers_timeout,
        "drain_timeout": said.http_drain_timeout,
        "max_connection_duration": said.http_max_connection_duration,
        "max_stream_duration": said.http_max_stream_duration,
        "max_concurrent_streams": said.http_max_concurrent_streams,
        "stream_window": said.http2_initial_stream_window_size,
        "connection_window": said.http2_initial_connection_window_size,
        "underscores": _UNDERSCORES.get(str(said.http_headers_with_underscores_action)),
        "merge_slashes": said.http_merge_slashes,
        "escaped_slashes": _SLASHES.get(str(said.http_path_with_escaped_slashes_action)),
    }
    limits = replace(
        _EDGE if edge else ir.HttpLimits(),
        **{name: value for name, value in given.items() if value is not None},
    )
    ordinary = _EDGE_BUFFER if edge else None
    listener, cluster = (
        said.listener_per_connection_buffer_limit_bytes,
        said.cluster_per_connection_buffer_limit_bytes,
    )
    return Handling(
        limits=limits,
        listener_buffer=ordinary if listener is None else listener,
        cluster_buffer=ordinary if cluster is None else cluster,
    )
