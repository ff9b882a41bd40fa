"""What a proxy tells of its traffic, and to whom: logs, metrics, traces.

Texts with ``%…%`` in them are Envoy's substitution formats: whoever configures a mesh writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

Pairs = tuple[tuple[str, str], ...]


# Access logs


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLog:
    """Lines in a file. ``text``: the format of a line; else ``fields``, a JSON object as JSON.

    Neither: our own fields (Istio's and more), which ``weft explain`` reads again.
    """

    path: str
    text: str = ""
    fields: str = ""
    omit_empty: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it has the fields that ``weft explain`` reads."""
        return not self.text and not self.fields


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpLog:
    """Records by OTLP over gRPC. ``text``: the format of the body; ``labels``: attributes, each a format."""

    cluster: str
    authority: str
    name: str
    text: str
    labels: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLog:
    """Entries by Envoy's access log service; ``streams``: of connections, whatever they carry."""

    cluster: str
    authority: str
    name: str
    streams: bool = False
    filter_state: tuple[str, ...] = ()
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    response_trailers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """``only``: a CEL expression that tells what is logged; empty: everything.

    ``requests``: it tells of requests; ``streams``: of connections whose proxy sees no requests.
    """

    to: FileLog | OtlpLog | GrpcLog
    only: str = ""
    requests: bool = True
    streams: bool = True


# Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """``metric``: its name (``istio_requests_total``). ``tags``: by name, the format of the value.

    A tag without a format is taken away.
    """

    metric: str
    disabled: bool = False
    tags: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Istio's standard metrics, with what is changed in them."""

    changes: tuple[MetricChange, ...] = ()


# Traces


class TagFrom(StrEnum):
    """Where the value of a tag comes from."""

    LITERAL = "literal"
    ENVIRONMENT = "environment"
    HEADER = "header"
    FORMAT = "format"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanTag:
    """``value``: the text, the variable's or the header's name, or the format."""

    name: str
    source: TagFrom
    value: str
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request that a tracer makes: ``uri`` is for its path and authority."""

    cluster: str
    uri: str
    timeout: timedelta
    headers: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcCall:
    """A stream or call that a tracer makes."""

    cluster: str
    authority: str = ""
    timeout: timedelta | None = None
    metadata: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DynatraceSampler:
    """Sampling that Dynatrace decides about."""

    tenant: str
    cluster_id: int
    root_spans_per_minute: int
    call: HttpCall


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpTracer:
    """OpenTelemetry. ``service``: what it calls the proxy; empty: as the proxy's environment says.

    ``dynatrace_host``: what Dynatrace's agent knows of the host is told as well.
    """

    call: HttpCall | GrpcCall
    service: str = ""
    dynatrace_host: bool = False
    sampler: DynatraceSampler | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipkinTracer:
    """Zipkin, by its JSON API. ``w3c``: ``traceparent`` is understood and sent beside B3's headers."""

    call: HttpCall
    long_ids: bool = True
    w3c: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatadogTracer:
    """Datadog's agent."""

    cluster: str
    host: str
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyWalkingTracer:
    """Apache SkyWalking's OAP."""

    call: GrpcCall
    service: str
    instance: str
    token: str = ""


Tracer = OtlpTracer | ZipkinTracer | DatadogTracer | SkyWalkingTracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """``sampling``: share of new traces, in millionths; a parent's decision is honoured.

    ``by_request_id``: the request's id decides, so that proxies agree without headers of traces; False:
    chance does; None: chance with OpenTelemetry, the id elsewhere. ``own_tags``: Istio's and ours.
    ``longest_path``: of a path no more is told, in bytes; None: Envoy's 256. ``propagates``: headers of
    traces are passed on. ``upstream_span``: the time at the other end has a span of its own.
    """

    tracer: Tracer
    sampling: int = 10_000
    by_request_id: bool | None = None
    own_tags: bool = True
    tags: tuple[SpanTag, ...] = ()
    longest_path: int | None = None
    propagates: bool = True
    upstream_span: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What is told of traffic in one direction. ``metrics`` None: none are made.

    ``refusals``: connections that no filter chain takes are logged, too.
    """

    logs: tuple[AccessLog, ...] = ()
    metrics: Metrics | None = Metrics()
    tracing: Tracing | None = None
    refusals: bool = True

    def clusters(self) -> Iterator[str]:
        """Clusters that are called to tell it."""
        for log in self.logs:
            if not isinstance(log.to, FileLog):
                yield log.to.cluster
        if self.tracing is None:
            return
        tracer = self.tracing.tracer
        yield tracer.cluster if isinstance(tracer, DatadogTracer) else tracer.call.cluster
        if isinstance(tracer, OtlpTracer) and tracer.sampler is not None:
            yield tracer.sampler.call.cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """``client``: of requests that leave, and of those through a gateway; ``server``: of those that arrive.

    ``flows_cluster``: where records of requests go; errors always, of others ``flow_share`` millionths.
    """

    client: Reports = Reports()
    server: Reports = Reports()
    flows_cluster: str | None = None
    flow_share: int = 1_000_000

    def clusters(self) -> frozenset[str]:
        """Clusters that are called to tell it."""
        flows = {self.flows_cluster} if self.flows_cluster else set()
        return frozenset({*self.client.clusters(), *self.server.clusters(), *flows})
