"""Traces: which requests get a span, what it says, and where it goes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from weft.card import caller
from weft.emit.scalars import boolean, duration, fraction, uint32
from weft.ir.listener import Direction
from weft.ir.telemetry import (
    DatadogTracer,
    GrpcCall,
    HttpCall,
    OtlpTracer,
    Pairs,
    SkyWalkingTracer,
    SpanTag,
    TagFrom,
    Tracer,
    Tracing,
    ZipkinTracer,
)
from weft.names import DRY_RUN_ALLOW, DRY_RUN_DENY
from weft.protos import (
    core_v3,
    hcm_v3,
    otel_samplers_v3,
    resource_detectors_v3,
    trace_v3,
    tracing_v3,
    type_v3,
    uuid_v3,
)
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

_EVERY_TRACE: Final = 100.0
_MILLIONTHS: Final = 10_000  # of a percent
_EXPORT_TIMEOUT: Final = timedelta(seconds=1)
_UNKNOWN: Final = "unknown"

# Istio's, from the proxy's environment, so that proxies share the bytes.
_SELF: Final = {
    "istio.canonical_revision": "WEFT_CANONICAL_REVISION",
    "istio.canonical_service": "WEFT_CANONICAL_SERVICE",
    "istio.cluster_id": "WEFT_CLUSTER",
    "istio.mesh_id": "WEFT_MESH",
    "istio.namespace": "WEFT_NAMESPACE",
}
_DRY_RUNS: Final = {
    "istio.authorization.dry_run.allow_policy.name": f"{DRY_RUN_ALLOW}shadow_effective_policy_id",
    "istio.authorization.dry_run.allow_policy.result": f"{DRY_RUN_ALLOW}shadow_engine_result",
    "istio.authorization.dry_run.deny_policy.name": f"{DRY_RUN_DENY}shadow_effective_policy_id",
    "istio.authorization.dry_run.deny_policy.result": f"{DRY_RUN_DENY}shadow_engine_result",
}
# Ours: who spoke with whom, by which route, how often it was tried, and why it ended as it did.
_ALWAYS: Final = {
    "weft.route": "%ROUTE_NAME%",
    "weft.service": "%METADATA(CLUSTER:weft:service)%",
    "weft.details": "%RESPONSE_CODE_DETAILS%",
}
_ENDS: Final = {
    Direction.INBOUND: {
        "weft.source": "%DOWNSTREAM_PEER_URI_SAN%",
        "weft.source_workload": caller("workload"),
        "weft.destination": "%DOWNSTREAM_LOCAL_URI_SAN%",
    },
    Direction.OUTBOUND: {
        "weft.source": "%UPSTREAM_LOCAL_URI_SAN%",
        "weft.destination": "%UPSTREAM_PEER_URI_SAN%",
        "weft.attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    },
}
_ENDS_OF: Final = {**_ENDS, Direction.GATEWAY: _ENDS[Direction.OUTBOUND]}


def tracing(
    unit: Tracing | None, direction: Direction, decider: str = ""
) -> hcm_v3.HttpConnectionManager.Tracing | None:
    """``decider``: the filter that leaves behind what policies came to; empty where none does."""
    if unit is None:
        return None
    everything = type_v3.Percent(value=_EVERY_TRACE)
    # A tracer with a sampler overrules this; what is shown is what it does.
    tracer = unit.tracer
    elsewhere = isinstance(tracer, OtlpTracer) and tracer.sampler is not None
    sampled = everything if elsewhere else type_v3.Percent(value=unit.sampling / _MILLIONTHS)
    made = hcm_v3.HttpConnectionManager.Tracing(
        client_sampling=everything,
        random_sampling=sampled,
        overall_sampling=everything,
        spawn_upstream_span=boolean(unit.upstream_span),
        no_context_propagation=not unit.propagates,
        custom_tags=_tags(unit, direction, decider),
        provider=_provider(unit),
    )
    if unit.longest_path is not None:
        made.max_path_tag_length.CopyFrom(uint32(unit.longest_path))
    return made


def request_ids(unit: Tracing | None) -> hcm_v3.RequestIDExtension | None:
    """Where chance decides: request ids as they came, whatever their form.

    Envoy's default writes its own sampling decision into them, and traces no request whose id is no UUID.
    """
    if unit is None:
        return None
    config = uuid_v3.UuidRequestIdConfig(use_request_id_for_trace_sampling=boolean(_by_request_id(unit)))
    if not _by_request_id(unit):
        config.pack_trace_reason.CopyFrom(boolean(False))
    return hcm_v3.RequestIDExtension(typed_config=pack(config))


def _by_request_id(unit: Tracing) -> bool:
    if unit.by_request_id is None:
        return not isinstance(unit.tracer, OtlpTracer)
    return unit.by_request_id


def _decides(unit: Tracing) -> bool:
    """Whether the tracer samples, not Envoy."""
    tracer = unit.tracer
    return isinstance(tracer, OtlpTracer) and (tracer.sampler is not None or not _by_request_id(unit))


def _tags(unit: Tracing, direction: Direction, decider: str) -> list[tracing_v3.CustomTag]:
    made = [_tag(tag) for tag in unit.tags]
    if unit.own_tags:
        environment, format_ = TagFrom.ENVIRONMENT, TagFrom.FORMAT
        own = [
            SpanTag(name=name, source=environment, value=value, default=_UNKNOWN)
            for name, value in _SELF.items()
        ]
        own += [
            SpanTag(name=name, source=format_, value=value)
            for name, value in (*_ALWAYS.items(), *_ENDS_OF[direction].items())
        ]
        made += [_tag(tag) for tag in own]
        made += [_metadata(name, decider, key) for name, key in _DRY_RUNS.items() if decider]
    named = {tag.tag: tag for tag in reversed(made)}  # what the user says of a tag goes first
    return [named[name] for name in sorted(named)]


def _tag(unit: SpanTag) -> tracing_v3.CustomTag:
    made = tracing_v3.CustomTag(tag=unit.name)
    match unit.source:
        case TagFrom.LITERAL:
            made.literal.value = unit.value
        case TagFrom.ENVIRONMENT:
            made.environment.name = unit.value
            made.environment.default_value = unit.default
        case TagFrom.HEADER:
            made.request_header.name = unit.value
            made.request_header.default_value = unit.default
        case TagFrom.FORMAT:
            made.value = unit.value
    return made


def _metadata(name: str, key: str, path: str) -> tracing_v3.CustomTag:
    made = tracing_v3.CustomTag(tag=name)
    made.metadata.kind.request.SetInParent()
    made.metadata.metadata_key.key = key
    made.metadata.metadata_key.path.add(key=path)
    return made


def _provider(unit: Tracing) -> trace_v3.Tracing.Http:
    kind, config = _tracer(unit.tracer, unit)
    return trace_v3.Tracing.Http(name=f"envoy.tracers.{kind}", typed_config=pack(config))


def _tracer(tracer: Tracer, unit: Tracing) -> tuple[str, Message]:
    match tracer:
        case OtlpTracer():
            return "opentelemetry", _otlp(tracer, unit)
        case ZipkinTracer():
            options = trace_v3.ZipkinConfig.TraceContextOption
            zipkin = trace_v3.ZipkinConfig(
                collector_service=_http(tracer.call),
                collector_endpoint_version=trace_v3.ZipkinConfig.CollectorEndpointVersion.HTTP_JSON,
                trace_id_128bit=tracer.long_ids,
                shared_span_context=boolean(False),
                trace_context_option=options.USE_B3_WITH_W3C_PROPAGATION if tracer.w3c else options.USE_B3,
            )
            return "zipkin", zipkin
        case DatadogTracer():
            datadog = trace_v3.DatadogConfig(
                collector_cluster=tracer.cluster,
                collector_hostname=tracer.host,
                service_name=tracer.service,
            )
            return "datadog", datadog
        case SkyWalkingTracer():
            skywalking = trace_v3.SkyWalkingConfig(grpc_service=_grpc(tracer.call))
            skywalking.client_config.service_name = tracer.service
            skywalking.client_config.instance_name = tracer.instance
            if tracer.token:
                skywalking.client_config.backend_token = tracer.token
            return "skywalking", skywalking


def _otlp(tracer: OtlpTracer, unit: Tracing) -> trace_v3.OpenTelemetryConfig:
    """Who the proxy is comes from its environment (``OTEL_RESOURCE_ATTRIBUTES``), unless it has a name here.

    A sampler is asked about each request: it heeds what the caller decided.
    """
    config = trace_v3.OpenTelemetryConfig(service_name=tracer.service)
    if isinstance(tracer.call, GrpcCall):
        config.grpc_service.CopyFrom(_grpc(tracer.call))
    else:
        config.http_service.CopyFrom(_http(tracer.call))
    detectors: list[tuple[str, Message]] = [
        ("environment", resource_detectors_v3.EnvironmentResourceDetectorConfig())
    ]
    if tracer.dynatrace_host:
        detectors.append(("dynatrace", resource_detectors_v3.DynatraceResourceDetectorConfig()))
    if tracer.service:
        name = resource_detectors_v3.StaticConfigResourceDetectorConfig()
        name.attributes["service.name"] = tracer.service
        detectors.append(("static_config", name))
    for kind, detector in detectors:
        config.resource_detectors.add(
            name=f"envoy.tracers.opentelemetry.resource_detectors.{kind}", typed_config=pack(detector)
        )
    if _decides(unit):
        config.sampler.CopyFrom(_sampler(tracer, unit))
    return config


def _sampler(tracer: OtlpTracer, unit: Tracing) -> core_v3.TypedExtensionConfig:
    prefix = "envoy.tracers.opentelemetry.samplers"
    if tracer.sampler is not None:
        asked = tracer.sampler
        config = otel_samplers_v3.DynatraceSamplerConfig(
            tenant=asked.tenant,
            cluster_id=asked.cluster_id,
            root_spans_per_minute=asked.root_spans_per_minute,
            http_service=_http(asked.call),
        )
        return core_v3.TypedExtensionConfig(name=f"{prefix}.dynatrace", typed_config=pack(config))
    ratio = otel_samplers_v3.TraceIdRatioBasedSamplerConfig(sampling_percentage=fraction(unit.sampling))
    sampler = otel_samplers_v3.ParentBasedSamplerConfig(
        wrapped_sampler=core_v3.TypedExtensionConfig(
            name=f"{prefix}.trace_id_ratio_based", typed_config=pack(ratio)
        )
    )
    return core_v3.TypedExtensionConfig(name=f"{prefix}.parent_based", typed_config=pack(sampler))


def _grpc(call: GrpcCall) -> core_v3.GrpcService:
    service = core_v3.GrpcService(
        timeout=duration(call.timeout if call.timeout is not None else _EXPORT_TIMEOUT),
        initial_metadata=_headers(call.metadata),
    )
    service.envoy_grpc.cluster_name = call.cluster
    service.envoy_grpc.authority = call.authority
    return service


def _http(call: HttpCall) -> core_v3.HttpService:
    overwrite = core_v3.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return core_v3.HttpService(
        http_uri=core_v3.HttpUri(uri=call.uri, cluster=call.cluster, timeout=duration(call.timeout)),
        request_headers_to_add=[
            core_v3.HeaderValueOption(header=header, append_action=overwrite)
            for header in _headers(call.headers)
        ],
    )


def _headers(pairs: Pairs) -> list[core_v3.HeaderValue]:
    return [core_v3.HeaderValue(key=name, value=value) for name, value in pairs]
