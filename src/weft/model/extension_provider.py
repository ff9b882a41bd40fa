"""Providers of MeshConfig: authorizers, collectors of traces and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from weft.model.base import Shape
from weft.model.scalars import Bool, Json, ProtoDuration, ProtoInt, Text, UInt


class EnvoyExternalAuthorizationRequestBody(Shape):
    """``EnvoyExternalAuthorizationRequestBody`` of MeshConfig."""

    max_request_bytes: UInt | None = None
    allow_partial_message: Bool | None = None
    pack_as_bytes: Bool | None = None


class EnvoyExternalAuthorizationHttpProvider(Shape):
    """``EnvoyExternalAuthorizationHttpProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    timeout: ProtoDuration | None = None
    path_prefix: Text | None = None
    fail_open: Bool | None = None
    clear_route_cache: Bool | None = None
    status_on_error: Text | None = None
    include_headers_in_check: tuple[Text, ...] | None = None
    include_request_headers_in_check: tuple[Text, ...] | None = None
    include_additional_headers_in_check: dict[str, Text] | None = None
    include_request_body_in_check: EnvoyExternalAuthorizationRequestBody | None = None
    headers_to_upstream_on_allow: tuple[Text, ...] | None = None
    headers_to_downstream_on_deny: tuple[Text, ...] | None = None
    headers_to_downstream_on_allow: tuple[Text, ...] | None = None


class EnvoyExternalAuthorizationGrpcProvider(Shape):
    """``EnvoyExternalAuthorizationGrpcProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    timeout: ProtoDuration | None = None
    fail_open: Bool | None = None
    clear_route_cache: Bool | None = None
    status_on_error: Text | None = None
    include_request_body_in_check: EnvoyExternalAuthorizationRequestBody | None = None


class HttpHeader(Shape):
    """``HttpHeader`` of MeshConfig."""

    name: Text | None = None
    value: Text | None = None
    env_name: Text | None = None


class ZipkinTracingProvider(Shape):
    """``ZipkinTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    max_tag_length: UInt | None = None
    enable_64bit_trace_id: Bool | None = Field(default=None, alias="enable64bitTraceId")
    path: Text | None = None
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] | None = None
    timeout: ProtoDuration | None = None
    headers: tuple[HttpHeader, ...] | None = None


class LightstepTracingProvider(Shape):
    """``LightstepTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    access_token: Text | None = None
    max_tag_length: UInt | None = None


class DatadogTracingProvider(Shape):
    """``DatadogTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    max_tag_length: UInt | None = None


class Logging(Shape):
    """``StackdriverProvider.Logging`` of MeshConfig."""

    labels: dict[str, Text] | None = None


class StackdriverProvider(Shape):
    """``StackdriverProvider`` of MeshConfig."""

    debug: Bool | None = None
    max_number_of_attributes: ProtoInt | None = None
    max_number_of_annotations: ProtoInt | None = None
    max_number_of_message_events: ProtoInt | None = None
    max_tag_length: UInt | None = None
    logging: Logging | None = None


class OpenCensusAgentTracingProvider(Shape):
    """``OpenCensusAgentTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    context: (
        tuple[Literal["UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3"], ...]
        | None
    ) = None
    max_tag_length: UInt | None = None


class SkyWalkingTracingProvider(Shape):
    """``SkyWalkingTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    access_token: Text | None = None


class HttpService(Shape):
    """``HttpService`` of MeshConfig."""

    path: Text | None = None
    timeout: ProtoDuration | None = None
    headers: tuple[HttpHeader, ...] | None = None


class GrpcService(Shape):
    """``GrpcService`` of MeshConfig."""

    timeout: ProtoDuration | None = None
    initial_metadata: tuple[HttpHeader, ...] | None = None


class EnvironmentResourceDetector(Shape):
    """``ResourceDetectors.EnvironmentResourceDetector`` of MeshConfig."""


class DynatraceResourceDetector(Shape):
    """``ResourceDetectors.DynatraceResourceDetector`` of MeshConfig."""


class ResourceDetectors(Shape):
    """``ResourceDetectors`` of MeshConfig."""

    environment: EnvironmentResourceDetector | None = None
    dynatrace: DynatraceResourceDetector | None = None


class DynatraceApi(Shape):
    """``OpenTelemetryTracingProvider.DynatraceSampler.DynatraceApi`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    http: HttpService | None = None


class DynatraceSampler(Shape):
    """``OpenTelemetryTracingProvider.DynatraceSampler`` of MeshConfig."""

    tenant: Text | None = None
    cluster_id: ProtoInt | None = None
    root_spans_per_minute: UInt | None = None
    http_service: DynatraceApi | None = None


class OpenTelemetryTracingProvider(Shape):
    """``OpenTelemetryTracingProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    max_tag_length: UInt | None = None
    http: HttpService | None = None
    grpc: GrpcService | None = None
    resource_detectors: ResourceDetectors | None = None
    service_attribute_enrichment: Literal["ISTIO_CANONICAL", "OTEL_SEMANTIC_CONVENTIONS"] | None = None
    dynatrace_sampler: DynatraceSampler | None = None


class PrometheusMetricsProvider(Shape):
    """``PrometheusMetricsProvider`` of MeshConfig."""


class EnvoyFileAccessLogLogFormat(Shape):
    """``EnvoyFileAccessLogProvider.LogFormat`` of MeshConfig."""

    text: Text | None = None
    labels: Json | None = None


class EnvoyFileAccessLogProvider(Shape):
    """``EnvoyFileAccessLogProvider`` of MeshConfig."""

    path: Text | None = None
    log_format: EnvoyFileAccessLogLogFormat | None = None
    omit_empty_values: Bool | None = None


class EnvoyHttpGrpcV3LogProvider(Shape):
    """``EnvoyHttpGrpcV3LogProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    log_name: Text | None = None
    filter_state_objects_to_log: tuple[Text, ...] | None = None
    additional_request_headers_to_log: tuple[Text, ...] | None = None
    additional_response_headers_to_log: tuple[Text, ...] | None = None
    additional_response_trailers_to_log: tuple[Text, ...] | None = None


class EnvoyTcpGrpcV3LogProvider(Shape):
    """``EnvoyTcpGrpcV3LogProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    log_name: Text | None = None
    filter_state_objects_to_log: tuple[Text, ...] | None = None


class EnvoyOpenTelemetryLogLogFormat(Shape):
    """``EnvoyOpenTelemetryLogProvider.LogFormat`` of MeshConfig."""

    text: Text | None = None
    labels: Json | None = None


class EnvoyOpenTelemetryLogProvider(Shape):
    """``EnvoyOpenTelemetryLogProvider`` of MeshConfig."""

    service: Text | None = None
    port: UInt | None = None
    log_name: Text | None = None
    log_format: EnvoyOpenTelemetryLogLogFormat | None = None


class SDSProvider(Shape):
    """``SDSProvider`` of MeshConfig."""

    name: Text | None = None
    service: Text | None = None
    port: UInt | None = None


class ExtensionProvider(Shape):
    """Something outside the mesh that proxies use, by a name; exactly one kind of it."""

    name: Text | None = None
    envoy_ext_authz_http: EnvoyExternalAuthorizationHttpProvider | None = None
    envoy_ext_authz_grpc: EnvoyExternalAuthorizationGrpcProvider | None = None
    zipkin: ZipkinTracingProvider | None = None
    lightstep: LightstepTracingProvider | None = None
    datadog: DatadogTracingProvider | None = None
    stackdriver: StackdriverProvider | None = None
    opencensus: OpenCensusAgentTracingProvider | None = None
    skywalking: SkyWalkingTracingProvider | None = None
    opentelemetry: OpenTelemetryTracingProvider | None = None
    prometheus: PrometheusMetricsProvider | None = None
    envoy_file_access_log: EnvoyFileAccessLogProvider | None = None
    envoy_http_als: EnvoyHttpGrpcV3LogProvider | None = None
    envoy_tcp_als: EnvoyTcpGrpcV3LogProvider | None = None
    envoy_otel_als: EnvoyOpenTelemetryLogProvider | None = None
    sds: SDSProvider | None = None
