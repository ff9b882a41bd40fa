"""Telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, each
from weft.model.cel import expression
from weft.model.istio import IstioResource, IstioStatus, LabelsSelector, PolicyTargetReference, attached
from weft.model.scalars import Bool, FineDuration, Float, Text


class LogFilter(Shape):
    """Which requests are logged."""

    expression: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """CEL that can be read."""
        yield from each(("expression",), [expression(self.expression or "")], "as 'response.code >= 400'")


class LogSelector(Shape):
    """On which side requests are logged."""

    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None


class ProviderRef(Shape):
    """A provider by its name in MeshConfig."""

    name: Annotated[Text, Field(min_length=1)]


class AccessLogging(Shape):
    """Where requests are logged."""

    disabled: Bool | None = None
    filter: LogFilter | None = None
    match: LogSelector | None = None
    providers: tuple[ProviderRef, ...] | None = None


class MetricSelector(Shape):
    """The metrics that are changed."""

    custom_metric: Annotated[Text, Field(min_length=1)] | None = None
    metric: (
        Literal[
            "ALL_METRICS",
            "REQUEST_COUNT",
            "REQUEST_DURATION",
            "REQUEST_SIZE",
            "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS",
            "TCP_CLOSED_CONNECTIONS",
            "TCP_SENT_BYTES",
            "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES",
            "GRPC_RESPONSE_MESSAGES",
        ]
        | None
    ) = None
    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One of ours, or one by name."""
        yield from at_most_one(self, "metric", "custom_metric")


class TagOverride(Shape):
    """A change to a label of a metric."""

    operation: Literal["UPSERT", "REMOVE"] | None = None
    value: Text | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A value where a label is set, and there only."""
        if self.operation == "UPSERT" and not self.value:
            yield Flaw(("value",), "UPSERT needs a value")
        if self.operation == "REMOVE" and self.value is not None:
            yield Flaw(("value",), "REMOVE takes no value", "remove it")


class MetricsOverrides(Shape):
    """A change to metrics."""

    disabled: Bool | None = None
    match: MetricSelector | None = None
    tag_overrides: dict[str, TagOverride] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Labels have names, and a value where they are set."""
        for name, override in (self.tag_overrides or {}).items():
            if not name:
                yield Flaw(("tagOverrides",), "a label's name must not be empty", warns=True)
            if override.operation is None and not override.value:
                yield Flaw(("tagOverrides", name, "value"), "a label that is set needs a value", "add value")


class Metrics(Shape):
    """Which metrics are made, with which labels."""

    overrides: tuple[MetricsOverrides, ...] | None = None
    providers: tuple[ProviderRef, ...] | None = None
    reporting_interval: FineDuration | None = None


class EnvironmentTag(Shape):
    """A tag from the proxy's environment."""

    default_value: Text | None = None
    name: Annotated[Text, Field(min_length=1)]


class FormatterTag(Shape):
    """A tag in the form of an access log."""

    value: Annotated[Text, Field(min_length=1)]


class HeaderTag(Shape):
    """A tag from a header of the request."""

    default_value: Text | None = None
    name: Annotated[Text, Field(min_length=1)]


class LiteralTag(Shape):
    """A tag with a fixed value."""

    value: Annotated[Text, Field(min_length=1)]


class CustomTag(Shape):
    """A further tag of the spans."""

    environment: EnvironmentTag | None = None
    formatter: FormatterTag | None = None
    header: HeaderTag | None = None
    literal: LiteralTag | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One source of the value."""
        yield from at_most_one(self, "literal", "environment", "header", "formatter")


class TracingSelector(Shape):
    """On which side requests are traced."""

    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] | None = None


class Tracing(Shape):
    """Which requests are traced."""

    custom_tags: dict[str, CustomTag] | None = None
    disable_context_propagation: Bool | None = None
    disable_span_reporting: Bool | None = None
    enable_istio_tags: Bool | None = None
    match: TracingSelector | None = None
    providers: tuple[ProviderRef, ...] | None = None
    random_sampling_percentage: Annotated[Float, Field(ge=0, le=100)] | None = None
    use_request_id_for_trace_sampling: Bool | None = None

    def flaws(self) -> Iterator[Flaw]:
        """One provider; tags have names."""
        if len(self.providers or ()) > 1:
            yield Flaw(("providers", 1), "only one provider is used", "keep one of them", warns=True)
        if "" in (self.custom_tags or {}):
            yield Flaw(("customTags",), "a tag's name must not be empty")


class TelemetrySpec(Shape):
    """What is measured, logged and traced."""

    access_logging: tuple[AccessLogging, ...] | None = None
    metrics: tuple[Metrics, ...] | None = None
    selector: LabelsSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None
    tracing: tuple[Tracing, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the policy is attached to."""
        yield from at_most_one(self, "selector", "target_ref", "target_refs")
        yield from attached(self.target_ref, self.target_refs)
        if len(self.tracing or ()) > 1:
            yield Flaw(
                ("tracing", 1),
                "of several the later goes before the earlier, field by field",
                "put all into one",
                warns=True,
            )


class Telemetry(IstioResource):
    """What is measured, logged and traced."""

    spec: TelemetrySpec = Field(default_factory=lambda: TelemetrySpec())
    status: IstioStatus | None = None
