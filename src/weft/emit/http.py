"""HTTP connection managers: how requests are read before routes see them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft.emit.filters.jwt import unbelieved
from weft.emit.filters.rbac import NAME as RBAC
from weft.emit.filters.table import chain
from weft.emit.header_case import keep_case
from weft.emit.routes import CONNECT, route_configuration
from weft.emit.scalars import boolean, duration
from weft.emit.strangers import own_address, unvouched
from weft.emit.telemetry import http_logs, reports
from weft.emit.tls import ads_source
from weft.emit.tracing import request_ids, tracing
from weft.ir.listener import (
    CertificateParts,
    ClientCertificate,
    Direction,
    EscapedSlashes,
    HttpHandler,
    HttpLimits,
    HttpVersion,
    PathNormalization,
    Underscores,
)
from weft.ir.telemetry import Telemetry
from weft.protos import core_v3, early_header_mutation_v3, hcm_v3, listener_v3, mutation_rules_v3
from weft.protos.wire import pack

NAME: Final = "envoy.filters.network.http_connection_manager"
_NEVER: Final = timedelta(0)
_NO_LIMITS: Final = HttpLimits()
_UNDERSCORES: Final = {
    Underscores.ALLOW: "ALLOW",
    Underscores.REJECT: "REJECT_REQUEST",
    Underscores.DROP: "DROP_HEADER",
}
_SLASHES: Final = {
    EscapedSlashes.KEEP: "KEEP_UNCHANGED",
    EscapedSlashes.REJECT: "REJECT_REQUEST",
    EscapedSlashes.REDIRECT: "UNESCAPE_AND_REDIRECT",
    EscapedSlashes.FORWARD: "UNESCAPE_AND_FORWARD",
}


def _codec(version: HttpVersion) -> hcm_v3.HttpConnectionManager.CodecType.ValueType:
    codec = hcm_v3.HttpConnectionManager.CodecType
    match version:
        case HttpVersion.AUTO:
            return codec.AUTO
        case HttpVersion.HTTP1:
            return codec.HTTP1
        case HttpVersion.HTTP2:
            return codec.HTTP2
        case HttpVersion.HTTP3:
            return codec.HTTP3


def _client_certificate(
    made: hcm_v3.HttpConnectionManager, rule: ClientCertificate, parts: CertificateParts
) -> None:
    """``x-forwarded-client-cert``: what is passed on, and what is said of the caller's certificate."""
    details = hcm_v3.HttpConnectionManager.ForwardClientCertDetails
    match rule:
        case ClientCertificate.SANITIZE:
            made.forward_client_cert_details = details.SANITIZE
            return
        case ClientCertificate.FORWARD_ONLY:
            made.forward_client_cert_details = details.FORWARD_ONLY
            return
        case ClientCertificate.ALWAYS_FORWARD_ONLY:
            made.forward_client_cert_details = details.ALWAYS_FORWARD_ONLY
            return
        case ClientCertificate.SANITIZE_SET:
            made.forward_client_cert_details = details.SANITIZE_SET
        case ClientCertificate.APPEND_FORWARD:
            made.forward_client_cert_details = details.APPEND_FORWARD
    current = made.set_current_client_cert_details
    current.subject.CopyFrom(boolean(parts.subject))
    current.uri = parts.uri
    current.dns = parts.dns
    current.cert = parts.certificate
    current.chain = parts.chain


def _normalize(made: hcm_v3.HttpConnectionManager, rule: PathNormalization) -> None:
    if rule is PathNormalization.NONE:
        made.normalize_path.CopyFrom(boolean(False))
        return
    made.normalize_path.CopyFrom(boolean(True))
    made.merge_slashes = rule is not PathNormalization.BASE
    if rule is PathNormalization.DECODE_AND_MERGE_SLASHES:
        action = hcm_v3.HttpConnectionManager.PathWithEscapedSlashesAction
        made.path_with_escaped_slashes_action = action.UNESCAPE_AND_FORWARD


def _limit(made: hcm_v3.HttpConnectionManager, limits: HttpLimits) -> None:
    """What clients may take their time for, and how much they may send at once."""
    if limits == _NO_LIMITS:
        return
    common = made.common_http_protocol_options
    for field, value in (
        (common.idle_timeout, limits.idle_timeout),
        (common.max_connection_duration, limits.max_connection_duration),
        (common.max_stream_duration, limits.max_stream_duration),
        (made.request_timeout, limits.request_timeout),
        (made.request_headers_timeout, limits.headers_timeout),
        (made.drain_timeout, limits.drain_timeout),
    ):
        if value is not None:
            field.CopyFrom(duration(value))
    http2 = made.http2_protocol_options
    for number, size in (
        (http2.max_concurrent_streams, limits.max_concurrent_streams),
        (http2.initial_stream_window_size, limits.stream_window),
        (http2.initial_connection_window_size, limits.connection_window),
    ):
        if size is not None:
            number.value = size
    if limits.underscores is not None:
        action = core_v3.HttpProtocolOptions.HeadersWithUnderscoresAction
        common.headers_with_underscores_action = action.Value(_UNDERSCORES[limits.underscores])
    if limits.merge_slashes is not None:
        made.merge_slashes = limits.merge_slashes
    if limits.escaped_slashes is not None:
        actions = hcm_v3.HttpConnectionManager.PathWithEscapedSlashesAction
        made.path_with_escaped_slashes_action = actions.Value(_SLASHES[limits.escaped_slashes])


def _own_headers(made: hcm_v3.HttpConnectionManager, unit: HttpHandler, direction: Direction) -> None:
    """What the proxy says of itself and of the request."""
    headers = unit.headers
    if headers.keep_server or (direction is Direction.INBOUND and not unit.server_name):
        # What the application says of itself reaches its caller.
        made.server_header_transformation = (
            hcm_v3.HttpConnectionManager.ServerHeaderTransformation.PASS_THROUGH
        )
    if not headers.request_id:
        made.generate_request_id.CopyFrom(boolean(False))
    made.append_x_forwarded_port = headers.forwarded_port
    if headers.keep_case:
        keep_case(made.http_protocol_options)
    _client_certificate(made, unit.client_certificate, headers.certificate)


def _take_away(made: hcm_v3.HttpConnectionManager, mutations: list[mutation_rules_v3.HeaderMutation]) -> None:
    """Before anything else is done with a request."""
    if not mutations:
        return
    config = early_header_mutation_v3.HeaderMutation(mutations=mutations)
    made.early_header_mutation_extensions.append(
        core_v3.TypedExtensionConfig(
            name="envoy.http.early_header_mutation.header_mutation", typed_config=pack(config)
        )
    )


def _routes(made: hcm_v3.HttpConnectionManager, unit: HttpHandler) -> None:
    if isinstance(unit.routes, str):
        made.rds.route_config_name = unit.routes
        made.rds.config_source.CopyFrom(ads_source())
    else:
        made.route_config.CopyFrom(route_configuration(unit.routes))


def connection_manager(
    unit: HttpHandler, direction: Direction, telemetry: Telemetry, *, mutual: bool
) -> listener_v3.Filter:
    """The network filter that speaks HTTP. ``mutual``: callers have shown a certificate."""
    traces = reports(telemetry, direction).tracing
    decider = RBAC if unit.authorization or unit.consultations else ""
    made = hcm_v3.HttpConnectionManager(
        stat_prefix=unit.stat_prefix,
        codec_type=_codec(unit.version),
        use_remote_address=boolean(unit.edge),
        xff_num_trusted_hops=unit.trusted_hops,
        server_name=unit.server_name,
        # Istio's: idle streams live as long as their connection, unless the user says otherwise.
        stream_idle_timeout=duration(unit.limits.stream_idle_timeout or _NEVER),
        preserve_external_request_id=unit.preserve_external_request_id,
        http_protocol_options=core_v3.Http1ProtocolOptions(accept_http_10=True),
        upgrade_configs=[hcm_v3.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        http_filters=chain(unit, direction),
        access_log=http_logs(telemetry, direction, mutual=mutual, decider=decider, grpc=unit.grpc),
        tracing=tracing(traces, direction, decider),
        request_id_extension=request_ids(traces),
    )
    # A WebSocket in HTTP/2 is a CONNECT (RFC 8441), as sidecars send it to each other. Who is not ready for
    # it ends the whole connection, with all other requests on it.
    made.http2_protocol_options.allow_connect = True
    if unit.version is HttpVersion.HTTP3:
        made.http3_protocol_options.SetInParent()
    if unit.explicit_proxy:
        made.upgrade_configs.add(upgrade_type=CONNECT)
    _take_away(made, [*unvouched(unit), *unbelieved(unit)])
    own_address(made, unit)
    _own_headers(made, unit, direction)
    _normalize(made, unit.path_normalization)
    _limit(made, unit.limits)
    _routes(made, unit)
    return listener_v3.Filter(name=NAME, typed_config=pack(made))
