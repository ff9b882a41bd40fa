"""``extensionProviders`` of kind ``opentelemetry`` as destinations of metrics, which Istio does not have.

Proxies make one set of series, whoever reads them. A collector gets of it what Telemetry resources say: of
which workloads, from which side, and without which metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.istio.telemetry import MetricChoices, Mode, Selected, metrics_of
from weft.compile.istio.telemetry_providers import (
    STORE,
    Nothing,
    Providers,
    is_for_metrics,
    pairs_of,
    provider_named,
    way_to,
)
from weft.compile.registry import Services
from weft.model.extension_provider import ExtensionProvider, OpenTelemetryTracingProvider

TIMEOUT: Final = timedelta(seconds=10)
"""How long a collector may take to answer, if nobody says: OpenTelemetry's own default."""
_PATH: Final = "/v1/metrics"
_SPANS: Final = "/v1/traces"
_SIDES: Final = {Mode.CLIENT: "source", Mode.SERVER: "destination"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricProvider:
    """``cluster``: the way. ``path``: of HTTP; None: gRPC. ``conventions``: OpenTelemetry's names."""

    name: str
    host: str
    cluster: str
    port: int
    path: str | None = None
    timeout: timedelta = TIMEOUT
    headers: ir.Pairs = ()
    conventions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A provider that series of a proxy go to: of which sides, and without which metrics of those."""

    provider: str
    sides: tuple[tuple[str, tuple[str, ...]], ...]
    conventions: bool = False


def metric_provider(provider: ExtensionProvider, services: Services) -> MetricProvider | Nothing:
    """Where an ``opentelemetry`` provider has metrics pushed, or why it cannot."""
    otel = provider.opentelemetry
    assert otel is not None
    found = way_to(provider, otel, services)
    if isinstance(found, Nothing):
        return found
    host, cluster = found
    headers: ir.Pairs = ()
    timeout, path = TIMEOUT, None
    if otel.http is not None:
        path = path_of(otel.http.path or "")
        timeout, headers = otel.http.timeout or TIMEOUT, pairs_of(otel.http.headers or ())
    elif otel.grpc is not None:
        timeout, headers = otel.grpc.timeout or TIMEOUT, pairs_of(otel.grpc.initial_metadata or ())
    return MetricProvider(
        name=str(provider.name),
        host=host,
        cluster=cluster,
        port=otel.port or 0,
        path=path,
        timeout=timeout,
        headers=headers,
        conventions=otel.service_attribute_enrichment == "OTEL_SEMANTIC_CONVENTIONS",
    )


def path_of(said: str) -> str:
    """Where metrics go by HTTP: the path of a provider is that of spans, beside which they have their own."""
    path = f"/{said.lstrip('/')}"
    if path.endswith(_SPANS):
        return path.removesuffix(_SPANS) + _PATH
    return _PATH if path == "/" else path


def about_spans(otel: OpenTelemetryTracingProvider) -> Iterator[str]:
    """The fields that are said and mean nothing to metrics."""
    if otel.max_tag_length is not None:
        yield "maxTagLength"
    if otel.resource_detectors is not None:
        yield "resourceDetectors"
    if otel.dynatrace_sampler is not None:
        yield "dynatraceSampler"


def collectors_in(names: Iterable[str], providers: Providers) -> dict[str, ExtensionProvider]:
    """Of providers that are named, those that metrics are pushed to, by their own names."""
    found: dict[str, ExtensionProvider] = {}
    for name in names:
        provider = None if name.lower() == STORE else provider_named(name, providers)
        if isinstance(provider, ExtensionProvider) and provider.opentelemetry is not None:
            found[str(provider.name)] = provider
    return found


def told_of(selected: Selected, defaults: tuple[str, ...], providers: Providers) -> tuple[Told, ...]:
    """The providers that the series of a proxy go to."""
    sides: dict[str, dict[str, tuple[str, ...]]] = {}
    conventions: dict[str, bool] = {}
    for mode in Mode:
        found = metrics_of(selected, defaults, mode)
        for name, choices in sorted(found.items()):
            if choices.disabled:
                continue
            for own, provider in collectors_in((name,), providers).items():
                without = tuple(sorted(one for one, choice in choices.by_name.items() if choice.disabled))
                sides.setdefault(own, {})[_SIDES[mode]] = without
                otel = provider.opentelemetry
                conventions[own] = (
                    otel is not None and otel.service_attribute_enrichment == "OTEL_SEMANTIC_CONVENTIONS"
                )
    return tuple(
        Told(provider=name, sides=tuple(sorted(said.items())), conventions=conventions[name])
        for name, said in sorted(sides.items())
    )


def made_by(found: Mapping[str, MetricChoices], providers: Providers) -> MetricChoices | None:
    """By whose word proxies make their series: of several that want some, Prometheus' goes first.

    None: nobody wants any.
    """
    known = [name for name in sorted(found) if is_for_metrics(name, providers)]
    if known and all(found[name].disabled for name in known):
        return None
    first = [one for one in known if not collectors_in((one,), providers)]
    ordered = [found[name] for name in (*first, *known) if not found[name].disabled]
    return next(iter(ordered), MetricChoices())
