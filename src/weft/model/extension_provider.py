"""Providers of MeshConfig: authorizers, collectors of traces and logs.

Istio takes a MeshConfig with providers that cannot work, as long as nobody uses them: so these are warnings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, wire_name
from weft.model.hosts import fqdn, is_address, namespaced
from weft.model.scalars import Bool, Json, ProtoDuration, ProtoInt, Text, UInt

# The statuses that Envoy may answer with (envoy.type.v3.StatusCode).
_STATUSES: Final = frozenset(
    {
        0,
        100,
        *range(200, 209),
        226,
        *range(300, 306),
        307,
        308,
        *range(400, 418),
        421,
        422,
        423,
        424,
        426,
        428,
    }
    | {429, 431, *range(500, 509), 510, 511}
)


def status_of(text: str | None) -> int | None:
    """A ``statusOnError``; None without one.

    Raises:
        ValueError: when it is none that Envoy answers with.
    """
    if not text:
        return None
    if not text.isascii() or not text.removeprefix("+").isdigit() or int(text) not in _STATUSES:
        raise ValueError(f"{text!r} is not a status that a proxy answers with")
    return int(text)


class Served(Shape):
    """Something that a service of the mesh does, at a port of it."""

    service: Text | None = None
    """``[NAMESPACE/]HOST``; without the namespace only one may have a service of that name."""
    port: UInt | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Both are there (Istio's validation of extension providers)."""
        if not 1 <= (self.port or 0) <= 65535:
            yield Flaw(("port",), f"{self.port or 0} is not a port: write 1 to 65535", warns=True)
        for complaint in _service(self.service or ""):
            hint = "as 'auth.default.svc.cluster.local' or 'default/auth.default.svc.cluster.local'"
            yield Flaw(("service",), complaint, hint, warns=True)


def _service(name: str) -> Iterator[str]:
    if not name:
        yield "the service is missing"
    elif "/" in name:
        yield from (complaint for complaint in namespaced(name, gateway=False) if complaint)
    elif not is_address(name) and (complaint := fqdn(name)):
        yield complaint


class EnvoyExternalAuthorizationRequestBody(Shape):
    """``EnvoyExternalAuthorizationRequestBody`` of MeshConfig."""

    max_request_bytes: UInt | None = None
    allow_partial_message: Bool | None = None
    pack_as_bytes: Bool | None = None


class Authorizer(Served):
    """Somebody who is asked about requests."""

    timeout: ProtoDuration | None = None
    fail_open: Bool | None = None
    clear_route_cache: Bool | None = None
    status_on_error: Text | None = None
    include_request_body_in_check: EnvoyExternalAuthorizationRequestBody | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A status that there is."""
        yield from super().flaws()
        try:
            status_of(self.status_on_error)
        except ValueError as error:
            yield Flaw(("statusOnError",), str(error), "as '403' or '503'", warns=True)


class EnvoyExternalAuthorizationHttpProvider(Authorizer):
    """``EnvoyExternalAuthorizationHttpProvider`` of MeshConfig."""

    path_prefix: Text | None = None
    include_headers_in_check: tuple[Text, ...] | None = None
    include_request_headers_in_check: tuple[Text, ...] | None = None
    include_additional_headers_in_check: dict[str, Text] | None = None
    headers_to_upstream_on_allow: tuple[Text, ...] | None = None
    headers_to_downstream_on_deny: tuple[Text, ...] | None = None
    headers_to_downstream_on_allow: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A path that is one; tests of header names that test something."""
        yield from super().flaws()
        if self.path_prefix and not self.path_prefix.startswith("/"):
            message = f"{self.path_prefix!r} does not begin with '/'"
            yield Flaw(("pathPrefix",), message, "write one before it", warns=True)
        for name in HEADER_LISTS:
            for number, header in enumerate(getattr(self, name) or ()):
                if header == "*":
                    path = (wire_name(self, name), number)
                    message = "'*' alone is no test of a name: every request that is meant is refused"
                    yield Flaw(path, message, "as 'x-*' or '*-id'", warns=True)


HEADER_LISTS: Final = (
    "include_request_headers_in_check",
    "include_headers_in_check",
    "headers_to_downstream_on_deny",
    "headers_to_downstream_on_allow",
    "headers_to_upstream_on_allow",
)
"""Fields with names of headers, where a ``*`` may begin or end one."""


class EnvoyExternalAuthorizationGrpcProvider(Authorizer):
    """``EnvoyExternalAuthorizationGrpcProvider`` of MeshConfig."""


class HttpHeader(Shape):
    """``HttpHeader`` of MeshConfig."""

    name: Text | None = None
    value: Text | None = None
    env_name: Text | None = None


class ZipkinTracingProvider(Served):
    """``ZipkinTracingProvider`` of MeshConfig."""

    max_tag_length: UInt | None = None
    enable_64bit_trace_id: Bool | None = Field(default=None, alias="enable64bitTraceId")
    path: Text | None = None
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] | None = None
    timeout: ProtoDuration | None = None
    headers: tuple[HttpHeader, ...] | None = None


class LightstepTracingProvider(Served):
    """``LightstepTracingProvider`` of MeshConfig."""

    access_token: Text | None = None
    max_tag_length: UInt | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A token."""
        yield from super().flaws()
        if not self.access_token:
            yield Flaw(("accessToken",), "the access token is missing", warns=True)


class DatadogTracingProvider(Served):
    """``DatadogTracingProvider`` of MeshConfig."""

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


class OpenCensusAgentTracingProvider(Served):
    """``OpenCensusAgentTracingProvider`` of MeshConfig."""

    context: (
        tuple[Literal["UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3"], ...]
        | None
    ) = None
    max_tag_length: UInt | None = None


class SkyWalkingTracingProvider(Served):
    """``SkyWalkingTracingProvider`` of MeshConfig."""

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


class OpenTelemetryTracingProvider(Served):
    """``OpenTelemetryTracingProvider`` of MeshConfig."""

    max_tag_length: UInt | None = None
    http: HttpService | None = None
    grpc: GrpcService | None = None
    resource_detectors: ResourceDetectors | None = None
    service_attribute_enrichment: Literal["ISTIO_CANONICAL", "OTEL_SEMANTIC_CONVENTIONS"] | None = None
    dynatrace_sampler: DynatraceSampler | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One way of sending."""
        yield from super().flaws()
        if self.http is not None and self.grpc is not None:
            yield Flaw(("http",), "spans go by http or by grpc", "keep one of them", warns=True)


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


class EnvoyHttpGrpcV3LogProvider(Served):
    """``EnvoyHttpGrpcV3LogProvider`` of MeshConfig."""

    log_name: Text | None = None
    filter_state_objects_to_log: tuple[Text, ...] | None = None
    additional_request_headers_to_log: tuple[Text, ...] | None = None
    additional_response_headers_to_log: tuple[Text, ...] | None = None
    additional_response_trailers_to_log: tuple[Text, ...] | None = None


class EnvoyTcpGrpcV3LogProvider(Served):
    """``EnvoyTcpGrpcV3LogProvider`` of MeshConfig."""

    log_name: Text | None = None
    filter_state_objects_to_log: tuple[Text, ...] | None = None


class EnvoyOpenTelemetryLogLogFormat(Shape):
    """``EnvoyOpenTelemetryLogProvider.LogFormat`` of MeshConfig."""

    text: Text | None = None
    labels: Json | None = None


class EnvoyOpenTelemetryLogProvider(Served):
    """``EnvoyOpenTelemetryLogProvider`` of MeshConfig."""

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

    def flaws(self) -> Iterator[Flaw]:
        """A name, and one kind."""
        if not self.name:
            yield Flaw(("name",), "a provider without a name cannot be used", "add name", warns=True)
        kinds = [name for name in type(self).model_fields if name != "name"]
        there = [wire_name(self, name) for name in kinds if getattr(self, name) is not None]
        if not there:
            message = "the provider is of no kind: nothing can use it"
            yield Flaw((), message, "add envoyExtAuthzGrpc, envoyExtAuthzHttp or another kind", warns=True)
        elif len(there) > 1:
            yield Flaw((there[1],), f"a provider is of one kind, not {' and '.join(there)}", "keep one")
