"""What of Telemetry resources, and of the mesh's settings about telemetry, cannot be honoured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile.istio import cel_calls, log_format
from weft.compile.istio.metric_providers import about_spans, collectors_in, metric_provider
from weft.compile.istio.metric_tags import value_of
from weft.compile.istio.telemetry import METRICS, metric_names, targets_of
from weft.compile.istio.telemetry_providers import (
    Nothing,
    Who,
    is_for_metrics,
    log_of,
    mesh_fields,
    provider_named,
    tracer_of,
)
from weft.compile.mesh import CONFIG_MAP, spec_of
from weft.compile.registry import Services
from weft.compile.settings import Settings
from weft.errors import Problem, Severity
from weft.model.core import ConfigMap
from weft.model.mesh_config import MeshConfig, MeshConfigSpec
from weft.model.resource import Key
from weft.model.telemetry import MetricsOverrides, Telemetry
from weft.names import ROOT_NAMESPACE

UNHEEDED: Final = "WEFT0102"
_WHO: Final = Who(service="a", otel="a", instance="a")
_MESSAGES: Final = frozenset({"istio_request_messages_total", "istio_response_messages_total"})

Found = Iterator[tuple[str, str, str]]
"""Path, message and hint."""


def problems(
    resources: Mapping[Key, Telemetry],
    configs: Mapping[Key, MeshConfig],
    maps: Mapping[Key, ConfigMap],
    settings: Settings,
    services: Services,
) -> tuple[Problem, ...]:
    """All of them, in the order of the resources' names. ``maps``: one has the settings, if no config has."""
    found: list[Problem] = []
    said = (
        ref.name
        for one in resources.values()
        for tracing in one.spec.tracing or ()
        for ref in tracing.providers or ()
    )
    traced = frozenset(name.lower() for name in (*settings.reporting.trace_providers, *said))
    for key, resource in sorted(resources.items()):
        found += (_problem(key, *one) for one in _of_resource(resource, settings, services, traced))
    for key, config in sorted(configs.items()):
        found += (_problem(key, *one) for one in _of_mesh(config.spec, settings, services, traced))
    for key, told in () if configs else sorted(maps.items()):
        if key.name != CONFIG_MAP or key.namespace != ROOT_NAMESPACE:
            continue
        spec = spec_of(told) or MeshConfigSpec()
        for path, message, hint in _of_mesh(spec, settings, services, traced):
            found.append(_problem(key, "data.mesh", f"{path.removeprefix('spec.')}: {message}", hint))
    return tuple(found)


def _problem(key: Key, path: str, message: str, hint: str) -> Problem:
    return Problem(UNHEEDED, message, None, hint, path, severity=Severity.WARNING, resource=str(key))


def _of_resource(
    resource: Telemetry, settings: Settings, services: Services, traced: frozenset[str]
) -> Found:
    spec = resource.spec
    field = "spec.targetRef" if spec.target_ref is not None else "spec.targetRefs"
    for number, target in enumerate(targets_of(resource)):
        if target.kind != "Gateway":
            path = field if spec.target_ref is not None else f"{field}[{number}]"
            message = f"a {target.kind} is a target in Istio's ambient mode only: this does nothing"
            yield path, message, "write a selector, or a Gateway as target"
    for number, log in enumerate(spec.access_logging or ()):
        path = f"spec.accessLogging[{number}]"
        for place, ref in enumerate(log.providers or ()):
            yield from _log(f"{path}.providers[{place}].name", ref.name, settings, services)
        only = (log.filter.expression if log.filter else None) or ""
        if only and (wrong := cel_calls.complaint(only, texts=True)):
            yield f"{path}.filter.expression", f"{wrong}: nothing is logged", "as 'response.code >= 400'"
    for number, metrics in enumerate(spec.metrics or ()):
        path = f"spec.metrics[{number}]"
        for place, ref in enumerate(metrics.providers or ()):
            yield from _metrics(f"{path}.providers[{place}].name", ref.name, settings, services, traced)
        for place, override in enumerate(metrics.overrides or ()):
            yield from _override(f"{path}.overrides[{place}]", override)
    for number, tracing in enumerate(spec.tracing or ()):
        path = f"spec.tracing[{number}]"
        for ref in (tracing.providers or ())[:1]:
            yield from _tracer(f"{path}.providers[0].name", ref.name, settings, services)
        for name, tag in sorted((tracing.custom_tags or {}).items()):
            if tag.formatter is not None and (wrong := log_format.complaint(tag.formatter.value)):
                message = f"{wrong}: the tag is left out"
                yield f"{path}.customTags.{name}.formatter.value", message, "as '%REQ(:PATH)%'"


def _override(path: str, override: MetricsOverrides) -> Found:
    match = override.match
    for name in metric_names(match):
        if name not in METRICS.values():
            yield f"{path}.match.customMetric", f"no metric is named {name!r}", "write one of 'metric'"
        elif name in _MESSAGES and match is not None and match.metric != "ALL_METRICS" and match.metric:
            yield f"{path}.match.metric", "messages of gRPC are not counted: this does nothing", ""
    for tag, change in sorted((override.tag_overrides or {}).items()):
        if change.operation == "REMOVE" or not change.value:
            continue
        _, wrong = value_of(change.value)
        if wrong:
            message = f"{wrong}: the label stays as it is"
            hint = "as \"request.headers['x-team']\" or \"'constant'\""
            yield f"{path}.tagOverrides.{tag}.value", message, hint


def _of_mesh(spec: MeshConfigSpec, settings: Settings, services: Services, traced: frozenset[str]) -> Found:
    mesh, defaults = settings.reporting, spec.default_providers
    if mesh.log_format and mesh.log_json and isinstance(wrong := mesh_fields(mesh), str):
        hint = "write accessLogEncoding: TEXT" if "no JSON" in wrong else "correct it"
        yield "spec.accessLogFormat", f"{wrong}: the fields are Istio's", hint
    elif mesh.log_format and not mesh.log_json and (text := log_format.complaint(mesh.log_format)):
        yield "spec.accessLogFormat", f"{text}: the format is Istio's", "correct it"
    service = spec.default_config.envoy_access_log_service if spec.default_config is not None else None
    if mesh.log_service and (service is None or not service.address):
        message = "nobody says where the access log service is"
        yield "spec.enableEnvoyAccessLogService", message, "add defaultConfig.envoyAccessLogService.address"
    if defaults is None:
        return
    path = "spec.defaultProviders"
    for number, name in enumerate(defaults.access_logging or ()):
        yield from _log(f"{path}.accessLogging[{number}]", name, settings, services)
    for number, name in enumerate(defaults.metrics or ()):
        yield from _metrics(f"{path}.metrics[{number}]", name, settings, services, traced)
    for number, name in enumerate(defaults.tracing or ()):
        if number:
            yield f"{path}.tracing[{number}]", "Envoy has one tracer: the first is used", "remove it"
        else:
            yield from _tracer(f"{path}.tracing[0]", name, settings, services)


def _log(path: str, name: str, settings: Settings, services: Services) -> Found:
    found = log_of(name, settings.providers, settings.reporting, services)
    if isinstance(found, Nothing):
        yield path, found.complaint, found.hint


def _metrics(path: str, name: str, settings: Settings, services: Services, traced: frozenset[str]) -> Found:
    for own, provider in collectors_in((name,), settings.providers).items():
        pushed = metric_provider(provider, services)
        if isinstance(pushed, Nothing):
            yield path, pushed.complaint, pushed.hint
        for field in about_spans(provider.opentelemetry) if provider.opentelemetry is not None else ():
            if own.lower() not in traced:
                message = f"{field} of the provider {own!r} is about spans: it does nothing for metrics"
                yield path, message, "remove it, or send spans there, too"
    if is_for_metrics(name, settings.providers):
        return
    found = provider_named(name, settings.providers)
    if isinstance(found, Nothing):
        yield path, found.complaint, found.hint
    else:
        message = f"the provider {name!r} takes no metrics: prometheus and opentelemetry do"
        yield path, message, "write one of kind opentelemetry"


def _tracer(path: str, name: str, settings: Settings, services: Services) -> Found:
    found = tracer_of(name, settings.providers, services, _WHO)
    if isinstance(found, Nothing):
        yield path, f"{found.complaint}: there are no traces", found.hint
