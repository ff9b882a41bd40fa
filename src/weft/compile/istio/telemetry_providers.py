"""``extensionProviders`` that logs, metrics and traces go to, as what a proxy calls or writes.

Source: istio pilot/pkg/model/telemetry_logging.go, pilot/pkg/networking/core/tracing.go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.istio import log_format
from weft.compile.istio.extension_provider import service_named
from weft.compile.registry import Services
from weft.compile.reporting import Reporting
from weft.errors import did_you_mean
from weft.model.extension_provider import (
    DynatraceSampler,
    EnvoyFileAccessLogProvider,
    ExtensionProvider,
    HttpHeader,
    OpenTelemetryTracingProvider,
    Served,
)
from weft.model.extension_provider import HttpService as HttpSettings
from weft.names import TELEMETRY_CLUSTER, outbound_cluster

Providers = tuple[ExtensionProvider, ...]

STORE: Final = "weft"
"""The provider that everybody has: the store that is built in."""
LOG_FILE: Final = "envoy"
STDOUT: Final = "/dev/stdout"
EVIDENCE: Final = "access.log"
"""Where requests are logged for ``weft explain``: in the directory of the proxy, which a node keeps small."""

_PROMETHEUS: Final = ExtensionProvider.model_validate({"name": "prometheus", "prometheus": {}})
_FILE: Final = ExtensionProvider.model_validate({"name": LOG_FILE, "envoyFileAccessLog": {"path": STDOUT}})
CALL_TIMEOUT: Final = timedelta(seconds=5)
"""How long a collector may take to answer, if nobody says."""
_DYNATRACE_PATH: Final = "api/v2/samplingConfiguration"
_GONE: Final = {
    "lightstep": "Envoy has no tracer for Lightstep any more: its collectors take OpenTelemetry",
    "opencensus": "Envoy has no tracer for OpenCensus any more: write opentelemetry",
    "stackdriver": "it needs a filter that only Google's Envoys have: write opentelemetry",
    "datadog": "it takes traces only",
    "zipkin": "it takes traces only",
    "skywalking": "it takes traces only",
    "opentelemetry": "it takes traces and metrics: logs go to envoyOtelAls",
    "prometheus": "it takes metrics only",
    "sds": "it is for certificates",
    "envoyExtAuthzHttp": "it decides about requests",
    "envoyExtAuthzGrpc": "it decides about requests",
    "envoyFileAccessLog": "it takes logs only",
    "envoyHttpAls": "it takes logs only",
    "envoyTcpAls": "it takes logs only",
    "envoyOtelAls": "it takes logs only: spans go to opentelemetry",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Why a provider cannot be used, and what to do about it."""

    complaint: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTracer:
    """``longest_path``: None if the provider does not say. ``named``: the tracer wants the proxy's name."""

    tracer: ir.Tracer
    longest_path: int | None = None
    upstream_span: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """What tracers call a proxy: ``service`` as Istio does, ``otel`` by OpenTelemetry's conventions."""

    service: str = ""
    otel: str = ""
    instance: str = ""


def provider_named(name: str, providers: Providers) -> ExtensionProvider | Nothing:
    """The provider of a name, whatever its case; ``prometheus`` and ``envoy`` are always there."""
    own = {provider.name for provider in providers}
    known = (*(one for one in (_PROMETHEUS, _FILE) if one.name not in own), *providers)
    for provider in known:
        if (provider.name or "").lower() == name.lower():
            return provider
    names = [STORE, *(provider.name for provider in known if provider.name)]
    hint = did_you_mean(name, names) or "add it to extensionProviders of the MeshConfig"
    return Nothing(complaint=f"no provider is named {name!r}", hint=hint)


def kind_of(provider: ExtensionProvider) -> str:
    """Its kind, as MeshConfig calls it; empty where it has none."""
    for name, field in type(provider).model_fields.items():
        if name != "name" and getattr(provider, name) is not None:
            return field.alias or name
    return ""


def is_for_metrics(name: str, providers: Providers) -> bool:
    """Whether a name stands for the metrics that proxies make: all that read them read the same series."""
    if name.lower() == STORE:
        return True
    provider = provider_named(name, providers)
    return isinstance(provider, ExtensionProvider) and (
        provider.prometheus is not None or provider.opentelemetry is not None
    )


def _unfit(provider: ExtensionProvider, purpose: str) -> Nothing:
    kind = kind_of(provider)
    reason = _GONE.get(kind, "it is of no kind")
    return Nothing(complaint=f"the provider {provider.name!r} cannot be used for {purpose}: {reason}")


def way_to(provider: ExtensionProvider, served: Served, services: Services) -> tuple[str, str] | Nothing:
    """The host and the cluster of the service that a provider is."""
    name = provider.name
    if not served.service or not 1 <= (served.port or 0) <= 65535:
        message = f"the provider {name!r} cannot be used: it has no service, or no port"
        return Nothing(complaint=message, hint="correct it in the MeshConfig")
    return _reached(str(name), served.service, served.port or 0, services)


def _reached(name: str, text: str, port: int, services: Services) -> tuple[str, str] | Nothing:
    found = service_named(text, services)
    if isinstance(found, str):
        return Nothing(
            complaint=f"the provider {name!r} cannot be used: {found}", hint="apply it, or a ServiceEntry"
        )
    if found.port(port) is None:
        ports = ", ".join(str(one.number) for one in found.ports) or "none"
        return Nothing(
            complaint=f"the provider {name!r} cannot be used: {found.host} has no port {port}",
            hint=f"it has {ports}",
        )
    host = found.alias_of or found.host
    return host, outbound_cluster(host, port)


# Logs


def log_of(
    name: str, providers: Providers, mesh: Reporting, services: Services
) -> ir.FileLog | ir.OtlpLog | ir.GrpcLog | Nothing:
    """Where a provider logs."""
    if name.lower() == STORE and not any((one.name or "").lower() == STORE for one in providers):
        return ir.FileLog(path=EVIDENCE)
    provider = provider_named(name, providers)
    if isinstance(provider, Nothing):
        return provider
    if (file := provider.envoy_file_access_log) is not None:
        path, form = file.path or STDOUT, file.log_format
        if provider.name == LOG_FILE and form is None and not file.omit_empty_values:
            return mesh_log(path, mesh)
        return _file(provider, file, path)
    served = provider.envoy_otel_als or provider.envoy_http_als or provider.envoy_tcp_als
    if served is None:
        return _unfit(provider, "access logs")
    called = way_to(provider, served, services)
    return called if isinstance(called, Nothing) else _remote(provider, *called)


def mesh_log(path: str, mesh: Reporting) -> ir.FileLog:
    """The file that MeshConfig's ``accessLog…`` fields tell of; a format that cannot be used is Istio's."""
    if not mesh.log_json:
        text = log_format.line(mesh.log_format)
        return ir.FileLog(path=path, text=log_format.TEXT if log_format.complaint(text) else text)
    fields = mesh_fields(mesh)
    return ir.FileLog(path=path, fields=_written(fields) if isinstance(fields, dict) else "")


def mesh_fields(mesh: Reporting) -> dict[str, object] | str | None:
    """The JSON object of ``accessLogFormat``; None: there is none; a text: why it cannot be used."""
    if not mesh.log_format:
        return None
    try:
        fields = log_format.fields(mesh.log_format)
    except ValueError as error:
        return f"it is no JSON object: {error}"
    return next(filter(None, map(log_format.complaint, log_format.texts(fields))), "") or fields


def _written(fields: object) -> str:
    return json.dumps(fields, sort_keys=True) if fields else ""


def _file(provider: ExtensionProvider, file: EnvoyFileAccessLogProvider, path: str) -> ir.FileLog | Nothing:
    omit, form = bool(file.omit_empty_values), file.log_format
    if form is not None and form.labels is not None:
        wrong = next(filter(None, map(log_format.complaint, log_format.texts(form.labels))), "")
        if wrong:
            return _bad_format(provider, wrong)
        return ir.FileLog(path=path, fields=_written(form.labels), omit_empty=omit)
    text = log_format.line((form.text if form is not None else None) or "")
    if wrong := log_format.complaint(text):
        return _bad_format(provider, wrong)
    return ir.FileLog(path=path, text=text, omit_empty=omit)


def _bad_format(provider: ExtensionProvider, wrong: str) -> Nothing:
    return Nothing(
        complaint=f"the provider {provider.name!r} cannot be used: {wrong}",
        hint="correct its logFormat in the MeshConfig",
    )


def _remote(provider: ExtensionProvider, host: str, cluster: str) -> ir.OtlpLog | ir.GrpcLog | Nothing:
    if (records := provider.envoy_otel_als) is not None:
        form = records.log_format
        text = (form.text if form is not None else None) or log_format.TEXT
        labels = (form.labels if form is not None else None) or {}
        pairs = tuple(
            (key, value if isinstance(value, str) else json.dumps(value))
            for key, value in sorted(labels.items())
        )
        for one in (text, *(value for _, value in pairs)):
            if wrong := log_format.complaint(one):
                return _bad_format(provider, wrong)
        name = records.log_name or "otel_envoy_accesslog"
        return ir.OtlpLog(cluster=cluster, authority=host, name=name, text=text, labels=pairs)
    if (requests := provider.envoy_http_als) is not None:
        return ir.GrpcLog(
            cluster=cluster,
            authority=host,
            name=requests.log_name or "http_envoy_accesslog",
            filter_state=requests.filter_state_objects_to_log or (),
            request_headers=requests.additional_request_headers_to_log or (),
            response_headers=requests.additional_response_headers_to_log or (),
            response_trailers=requests.additional_response_trailers_to_log or (),
        )
    streams = provider.envoy_tcp_als
    assert streams is not None
    return ir.GrpcLog(
        cluster=cluster,
        authority=host,
        name=streams.log_name or "tcp_envoy_accesslog",
        streams=True,
        filter_state=streams.filter_state_objects_to_log or (),
    )


# Traces


def store_tracer() -> FoundTracer:
    """Spans to the store, over a cluster that every bootstrap has."""
    return FoundTracer(tracer=ir.OtlpTracer(call=ir.GrpcCall(cluster=TELEMETRY_CLUSTER)))


def tracer_of(name: str, providers: Providers, services: Services, who: Who) -> FoundTracer | Nothing:
    """Where a provider has spans sent."""
    if name.lower() == STORE and not any((one.name or "").lower() == STORE for one in providers):
        return store_tracer()
    provider = provider_named(name, providers)
    if isinstance(provider, Nothing):
        return provider
    served = provider.opentelemetry or provider.zipkin or provider.datadog or provider.skywalking
    if served is None:
        return _unfit(provider, "traces")
    called = way_to(provider, served, services)
    if isinstance(called, Nothing):
        return called
    host, cluster = called
    if (otel := provider.opentelemetry) is not None:
        return _otlp(str(provider.name), otel, host, cluster, services, who)
    if (zipkin := provider.zipkin) is not None:
        call = _call(
            cluster,
            f"{host}{zipkin.path or '/api/v2/spans'}",
            HttpSettings(timeout=zipkin.timeout, headers=zipkin.headers),
        )
        tracer: ir.Tracer = ir.ZipkinTracer(
            call=call,
            long_ids=not zipkin.enable_64bit_trace_id,
            w3c=zipkin.trace_context_option == "USE_B3_WITH_W3C_PROPAGATION",
        )
        return FoundTracer(tracer=tracer, longest_path=zipkin.max_tag_length or None)
    if (datadog := provider.datadog) is not None:
        tracer = ir.DatadogTracer(cluster=cluster, host=host, service=who.service)
        return FoundTracer(tracer=tracer, longest_path=datadog.max_tag_length or None)
    assert provider.skywalking is not None
    tracer = ir.SkyWalkingTracer(
        call=ir.GrpcCall(cluster=cluster, authority=host),
        service=who.service,
        instance=who.instance,
        token=provider.skywalking.access_token or "",
    )
    return FoundTracer(tracer=tracer, upstream_span=True)  # it must be the parent of what is called


def _otlp(
    name: str,
    otel: OpenTelemetryTracingProvider,
    host: str,
    cluster: str,
    services: Services,
    who: Who,
) -> FoundTracer | Nothing:
    call: ir.HttpCall | ir.GrpcCall
    if otel.http is not None:
        call = _call(cluster, _joined(host, otel.http.path), otel.http)
    else:
        grpc = otel.grpc
        call = ir.GrpcCall(
            cluster=cluster,
            authority=host,
            timeout=grpc.timeout if grpc is not None else None,
            metadata=pairs_of((grpc.initial_metadata if grpc is not None else None) or ()),
        )
    sampler = None
    if otel.dynatrace_sampler is not None:
        decided = _sampler(name, otel, otel.dynatrace_sampler, host, cluster, services)
        if isinstance(decided, Nothing):
            return decided
        sampler = decided
    conventions = otel.service_attribute_enrichment == "OTEL_SEMANTIC_CONVENTIONS"
    detectors = otel.resource_detectors
    tracer = ir.OtlpTracer(
        call=call,
        service=who.otel if conventions else "",
        dynatrace_host=detectors is not None and detectors.dynatrace is not None,
        sampler=sampler,
    )
    return FoundTracer(tracer=tracer, longest_path=otel.max_tag_length or None)


def _sampler(
    name: str,
    otel: OpenTelemetryTracingProvider,
    asked: DynatraceSampler,
    host: str,
    cluster: str,
    services: Services,
) -> ir.DynatraceSampler | Nothing:
    """Asked at an address of its own, or where spans go to by HTTP."""
    own = asked.http_service
    if own is not None:
        found = _reached(name, own.service or "", own.port or 0, services)
        if isinstance(found, Nothing):
            return found
        settings = own.http or HttpSettings()
        call = _call(found[1], _joined(found[0], settings.path), settings)
    elif otel.http is not None:
        call = _call(cluster, _joined(host, _DYNATRACE_PATH), otel.http)
    else:
        message = f"the provider {name!r} cannot be used: nobody says where its Dynatrace sampler is asked"
        return Nothing(complaint=message, hint="add http, or dynatraceSampler.httpService")
    return ir.DynatraceSampler(
        tenant=asked.tenant or "",
        cluster_id=asked.cluster_id or 0,
        root_spans_per_minute=asked.root_spans_per_minute or 0,
        call=call,
    )


def _joined(host: str, path: str | None) -> str:
    return f"{host}/{(path or '').lstrip('/')}"


def _call(cluster: str, where: str, settings: HttpSettings) -> ir.HttpCall:
    return ir.HttpCall(
        cluster=cluster,
        uri=f"http://{where}",
        timeout=settings.timeout if settings.timeout is not None else CALL_TIMEOUT,
        headers=pairs_of(settings.headers or ()),
    )


def pairs_of(headers: Iterable[HttpHeader]) -> ir.Pairs:
    """Headers; those with ``envName`` have what the control plane's environment says (Istio's rule)."""
    return tuple(
        (header.name, header.value or os.environ.get(header.env_name or "", ""))
        for header in headers
        if header.name
    )
