"""Telemetry resources: those that are for a proxy, and what they come to together.

Source: istio pilot/pkg/model/telemetry.go. One resource for the mesh (in the root namespace), one for the
namespace, then those that select the workload, the oldest first: what comes later overrides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from weft.compile.age import precedence
from weft.compile.attachment import attaches
from weft.compile.service import Labels
from weft.model.istio import PolicyTargetReference
from weft.model.resource import Key
from weft.model.telemetry import (
    AccessLogging,
    CustomTag,
    MetricSelector,
    ProviderRef,
    TagOverride,
    Telemetry,
)
from weft.model.telemetry import Metrics as MetricsSpec
from weft.model.telemetry import Tracing as TracingSpec

Telemetries = Mapping[Key, Telemetry]
Selected = tuple[Telemetry, ...]

METRICS: Final = {
    "REQUEST_COUNT": "istio_requests_total",
    "REQUEST_DURATION": "istio_request_duration_milliseconds",
    "REQUEST_SIZE": "istio_request_bytes",
    "RESPONSE_SIZE": "istio_response_bytes",
    "TCP_OPENED_CONNECTIONS": "istio_tcp_connections_opened_total",
    "TCP_CLOSED_CONNECTIONS": "istio_tcp_connections_closed_total",
    "TCP_SENT_BYTES": "istio_tcp_sent_bytes_total",
    "TCP_RECEIVED_BYTES": "istio_tcp_received_bytes_total",
    "GRPC_REQUEST_MESSAGES": "istio_request_messages_total",
    "GRPC_RESPONSE_MESSAGES": "istio_response_messages_total",
}
"""Istio's words for its metrics, and their names."""


class Mode(StrEnum):
    """Which side tells: a caller's proxy (and every gateway), or that of who is called."""

    CLIENT = "CLIENT"
    SERVER = "SERVER"


# Who is meant


def applicable(resources: Telemetries, namespace: str, labels: Labels, root: str) -> Selected:
    """The resources for a proxy, in the order in which they override each other."""
    ordered = sorted(resources.values(), key=lambda one: precedence(one.metadata))
    found = [
        wide
        for home in dict.fromkeys((root, namespace))
        if home and (wide := _wide(ordered, home)) is not None
    ]
    found += [
        one
        for one in ordered
        if one.metadata.namespace == namespace
        and not is_wide(one)
        and attaches(namespace, _wanted(one), targets_of(one), namespace, labels)
    ]
    return tuple(found)


def is_wide(resource: Telemetry) -> bool:
    """Whether it is for a whole namespace, or the mesh."""
    return not _wanted(resource) and not targets_of(resource)


def targets_of(resource: Telemetry) -> tuple[PolicyTargetReference, ...]:
    """What it is attached to."""
    spec = resource.spec
    return spec.target_refs or ((spec.target_ref,) if spec.target_ref is not None else ())


def _wanted(resource: Telemetry) -> Mapping[str, str]:
    selector = resource.spec.selector
    return (selector.match_labels if selector is not None else None) or {}


def _wide(ordered: Iterable[Telemetry], namespace: str) -> Telemetry | None:
    return next((one for one in ordered if one.metadata.namespace == namespace and is_wide(one)), None)


def _names(providers: Iterable[ProviderRef] | None) -> tuple[str, ...]:
    return tuple(one.name for one in providers or ())


def _modes(mode: str | None) -> tuple[Mode, ...]:
    return (Mode(mode),) if mode in {"CLIENT", "SERVER"} else (Mode.CLIENT, Mode.SERVER)


# Logs


@dataclass(frozen=True, slots=True)
class LogChoice:
    """A provider that logs; ``only``: of requests that an expression is true of."""

    provider: str
    disabled: bool = False
    only: str = ""


def logs_of(selected: Selected, defaults: tuple[str, ...], mode: Mode) -> tuple[LogChoice, ...] | None:
    """Who logs, by the providers' names; None: nothing is said, and the mesh's ``accessLogFile`` holds."""
    levels = [one.spec.access_logging for one in selected if one.spec.access_logging]
    if not levels:
        return tuple(LogChoice(name) for name in sorted(defaults)) if defaults else None
    scope, filters = set(defaults), dict[str, str]()
    for level in levels:
        named: set[str] = set()
        for one in level:
            if mode in _modes(one.match.mode if one.match else None):
                names = _names(one.providers)
                named.update(names)
                expression = (one.filter.expression if one.filter else None) or ""
                filters.update(dict.fromkeys(names, expression))
        scope = named or scope
    found: dict[str, LogChoice] = {}
    for name, one in _with_parents(levels, defaults):
        if name in scope and mode in _modes(one.match.mode if one.match else None):
            found[name] = LogChoice(name, bool(one.disabled), "" if one.disabled else filters.get(name, ""))
    return tuple(found[name] for name in sorted(found))


def _with_parents(
    levels: Iterable[tuple[AccessLogging, ...]], defaults: tuple[str, ...]
) -> Iterator[tuple[str, AccessLogging]]:
    """Each setting with each of its providers: those of the setting before it, where it names none."""
    parents = defaults
    for level in levels:
        for one in level:
            parents = _names(one.providers) or parents
            yield from ((name, one) for name in parents)


# Metrics


@dataclass(slots=True)
class MetricChoice:
    """What shall be different about a metric. ``tags``: an expression, or None for those taken away."""

    disabled: bool = False
    tags: dict[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class MetricChoices:
    """``disabled``: none are made. ``by_name``: what is said of single ones."""

    disabled: bool = False
    by_name: dict[str, MetricChoice] = field(default_factory=dict)


def metrics_of(selected: Selected, defaults: tuple[str, ...], mode: Mode) -> dict[str, MetricChoices]:
    """What each provider in force shall make, by its name."""
    said = [metrics for one in selected for metrics in one.spec.metrics or ()]
    scope = set(defaults)
    for metrics in said:
        scope = set(_names(metrics.providers)) or scope
    found = {name: MetricChoices() for name in defaults} if not said else {}
    parents = defaults
    for metrics in said:
        parents = _names(metrics.providers) or parents
        for name in parents:
            if name in scope:
                _change(found.setdefault(name, MetricChoices()), metrics, mode)
    return found


def _change(choices: MetricChoices, metrics: MetricsSpec, mode: Mode) -> None:
    for override in metrics.overrides or ():
        match = override.match
        if mode not in _modes(match.mode if match else None):
            continue
        if override.disabled and is_every(match):
            choices.disabled = True
            continue
        choices.disabled = False  # what a wider resource turned off, this one turns on again
        for name in metric_names(match):
            choice = choices.by_name.setdefault(name, MetricChoice())
            if override.disabled is not None:
                choice.disabled = override.disabled
            for tag, change in (override.tag_overrides or {}).items():
                choice.tags[tag] = None if _removes(change) else change.value or ""


def _removes(change: TagOverride) -> bool:
    return change.operation == "REMOVE"


def is_every(match: MetricSelector | None) -> bool:
    """Whether all metrics are meant."""
    return match is None or (match.custom_metric is None and match.metric in {None, "ALL_METRICS"})


def metric_names(match: MetricSelector | None) -> tuple[str, ...]:
    """The metrics that are meant; those that weft does not have are as they were written."""
    if match is None or is_every(match):
        return tuple(METRICS.values())
    if match.custom_metric is not None:
        name = match.custom_metric
        known = name if name.startswith("istio_") else f"istio_{name}"
        return (known if known in METRICS.values() else name,)
    return (METRICS[str(match.metric)],)


# Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChoice:
    """What is said about traces; None where nothing is. ``provider``: by its name."""

    provider: str | None = None
    disabled: bool = False
    sampling: float | None = None
    tags: Mapping[str, CustomTag] | None = None
    by_request_id: bool | None = None
    own_tags: bool = True
    propagates: bool = True


def traces_of(selected: Selected, defaults: tuple[str, ...], mode: Mode) -> TraceChoice | None:
    """What is said about traces; None when nothing is, and no provider is the default."""
    said = [tracing for one in selected for tracing in one.spec.tracing or ()]
    if not said and not defaults:
        return None
    choice = TraceChoice(provider=defaults[0] if defaults else None)
    for tracing in said:
        if mode in _modes(tracing.match.mode if tracing.match else None):
            choice = _override(choice, tracing)
    return choice


def _override(choice: TraceChoice, said: TracingSpec) -> TraceChoice:
    names, hidden = _names(said.providers), said.disable_context_propagation
    given: dict[str, Any] = {
        "provider": names[0] if names else None,
        "disabled": said.disable_span_reporting,
        "sampling": said.random_sampling_percentage,
        "tags": said.custom_tags,
        "by_request_id": said.use_request_id_for_trace_sampling,
        "own_tags": said.enable_istio_tags,
        "propagates": None if hidden is None else not hidden,
    }
    return replace(choice, **{name: value for name, value in given.items() if value is not None})
