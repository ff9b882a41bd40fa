"""What a proxy tells of its traffic: as Telemetry resources, the mesh's settings and its own say.

Metrics are Istio's, one set of series, whoever reads them. Spans have one destination, as Envoy has one
tracer: the store that is built in, unless somebody else is named. Sources: istio
pilot/pkg/model/telemetry.go, pilot/pkg/networking/core/{accesslog,tracing}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.istio import cel_calls, log_format
from weft.compile.istio import traffic_policy as policies
from weft.compile.istio.metric_providers import made_by
from weft.compile.istio.metric_tags import value_of
from weft.compile.istio.telemetry import (
    METRICS,
    LogChoice,
    Mode,
    Selected,
    TraceChoice,
    applicable,
    logs_of,
    metrics_of,
    traces_of,
)
from weft.compile.istio.telemetry_providers import (
    CALL_TIMEOUT,
    EVIDENCE,
    STORE,
    FoundTracer,
    Nothing,
    Who,
    log_of,
    mesh_log,
    store_tracer,
    tracer_of,
)
from weft.compile.origination import originated
from weft.compile.own_settings import proxy_settings
from weft.compile.policy import ClientTlsMode
from weft.compile.registry import Services
from weft.compile.settings import Settings
from weft.compile.sidecar import itself
from weft.compile.world import World
from weft.errors import Problem, Severity
from weft.model.client_tls import ClientTLSSettings
from weft.model.proxy_settings import CustomTag as MeshTag
from weft.model.proxy_settings import ProxySettings
from weft.model.proxy_settings import Tracing as MeshTracing
from weft.model.scalars import is_ip
from weft.model.telemetry import CustomTag, Telemetry
from weft.names import TELEMETRY_CLUSTER, canonical_name
from weft.units import millionths

UNHEEDED: Final = "WEFT0102"
# Istio's names of clusters that it has in its bootstrap.
_ZIPKIN: Final = "zipkin"
_DATADOG: Final = "datadog_agent"
_LOG_SERVICE: Final = "envoy_accesslog_service"
_HOST_IP: Final = "$(HOST_IP)"
_SAMPLING: Final = 1.0  # Istio's PILOT_TRACE_SAMPLING
_MOST: Final = 100.0
_NAMED_LABELS: Final = ("app.kubernetes.io/instance", "app.kubernetes.io/name")
_NOBODY: Final = Who()
_NO_SERVICES: Final = Services()  # where nobody is named, no change of services changes anything


@dataclass(frozen=True, slots=True)
class _Made:
    """``clusters``: those of collectors that the settings of proxies name by an address."""

    telemetry: ir.Telemetry
    clusters: tuple[ir.Cluster, ...]


def telling(
    world: World, identity: ir.ProxyIdentity, proxy: ir.Proxy
) -> tuple[ir.Proxy, tuple[Problem, ...]]:
    """The proxy, with what it tells of its traffic; and whom it has no way to."""
    memo, settings, resources = world.memo, world.settings, world.all(Telemetry)
    own, namespace = itself(world, identity), identity.name.namespace
    selected: Selected = ()
    if resources:
        selected = memo(applicable, resources, namespace, own.labels, settings.root_namespace)
    said = proxy_settings(world, identity)
    rule = said.tracing_service_name if said is not None else None
    who = who_is(identity, dict(own.labels), rule) if memo(_wants_names, settings, said) else _NOBODY
    services = world.services if settings.providers else _NO_SERVICES
    made = memo(_made, selected, settings, said, who.service, who.otel, who.instance, services)
    clusters = memo(_joined, proxy.clusters, made.clusters) if made.clusters else proxy.clusters
    # Not remembered by the clusters: a key of their thousand identities weighs 40 KB for each proxy.
    called = memo(_called, made.telemetry)
    missing = called.difference(cluster.name for cluster in clusters) if called else called
    told = memo(_without, made.telemetry, missing) if missing else made.telemetry
    problems = tuple(
        Problem(
            UNHEEDED,
            f"{identity.name.name}.{namespace} has no way to {cluster}: it tells nothing there",
            hint="see that the service has the port, and that a Sidecar or exportTo does not hide it",
            severity=Severity.WARNING,
            resource=f"MeshConfig {settings.root_namespace}/default",
            path="spec.extensionProviders",
        )
        for cluster in sorted(missing)
    )
    return replace(proxy, telemetry=told, clusters=clusters), problems


def _wants_names(settings: Settings, said: ProxySettings | None) -> bool:
    """Whether some tracer wants to know what a proxy is called: else proxies share what they tell."""
    tracing = said.tracing if said is not None else None
    return (tracing is not None and tracing.datadog is not None) or any(
        provider.datadog is not None
        or provider.skywalking is not None
        or (
            provider.opentelemetry is not None
            and provider.opentelemetry.service_attribute_enrichment is not None
        )
        for provider in settings.providers
    )


def who_is(identity: ir.ProxyIdentity, labels: Mapping[str, str], rule: str | None) -> Who:
    """``rule``: ``tracingServiceName``."""
    name = identity.name
    metadata = dict(identity.metadata)
    workload = metadata.get("WORKLOAD_NAME") or name.name
    otel = next((labels[label] for label in _NAMED_LABELS if labels.get(label)), workload)
    service = canonical_name(labels, workload)
    if rule == "APP_LABEL_AND_NAMESPACE":
        service = labels.get("app") or workload
    if rule != "CANONICAL_NAME_ONLY":
        service = f"{service}.{name.namespace}"
    return Who(service=service, otel=otel, instance=name.name)


def _joined(clusters: tuple[ir.Cluster, ...], added: tuple[ir.Cluster, ...]) -> tuple[ir.Cluster, ...]:
    known = {cluster.name for cluster in clusters}
    return (*clusters, *(cluster for cluster in added if cluster.name not in known))


def _called(telemetry: ir.Telemetry) -> frozenset[str]:
    """The clusters that a proxy must have been given."""
    return telemetry.clusters() - {TELEMETRY_CLUSTER}


def _without(telemetry: ir.Telemetry, missing: frozenset[str]) -> ir.Telemetry:
    """Envoy would refuse a listener that calls a cluster that is not there."""
    return replace(
        telemetry, client=_less(telemetry.client, missing), server=_less(telemetry.server, missing)
    )


def _less(reports: ir.Reports, missing: frozenset[str]) -> ir.Reports:
    logs = tuple(
        log for log in reports.logs if isinstance(log.to, ir.FileLog) or log.to.cluster not in missing
    )
    traced = replace(reports, logs=(), tracing=reports.tracing)
    return replace(reports, logs=logs, tracing=None if missing & {*traced.clusters()} else reports.tracing)


def _made(
    selected: Selected,
    settings: Settings,
    said: ProxySettings | None,
    service: str,
    otel: str,
    instance: str,
    services: Services,
) -> _Made:
    who = Who(service=service, otel=otel, instance=instance)
    maker = _Maker(selected, settings, said, who, services)
    telemetry = ir.Telemetry(
        client=maker.reports(Mode.CLIENT),
        server=maker.reports(Mode.SERVER),
        flows_cluster=TELEMETRY_CLUSTER,
        flow_share=settings.flow_share,
    )
    return _Made(telemetry, tuple(maker.clusters()))


@dataclass(frozen=True, slots=True)
class _Maker:
    selected: Selected
    settings: Settings
    said: ProxySettings | None
    who: Who
    services: Services

    def reports(self, mode: Mode) -> ir.Reports:
        return ir.Reports(
            logs=tuple(self._logs(mode)),
            metrics=self._metrics(mode),
            tracing=self._tracing(mode),
            refusals=self.settings.reporting.log_refusals,
        )

    def clusters(self) -> Iterator[ir.Cluster]:
        """Collectors at addresses."""
        tracing = self.said.tracing if self.said is not None else None
        tls = tracing.tls_settings if tracing is not None else None
        if zipkin := _zipkin(self.said):
            yield _collector(_ZIPKIN, zipkin, tls, self.settings)
        elif tracing is not None and tracing.datadog is not None and tracing.datadog.address:
            yield _collector(_DATADOG, tracing.datadog.address, tls, self.settings)
        remote = self.said.envoy_access_log_service if self.said is not None else None
        if self.settings.reporting.log_service and remote is not None and remote.address:
            made = _collector(_LOG_SERVICE, remote.address, remote.tls_settings, self.settings)
            keepalive = policies.keepalive(remote.tcp_keepalive)
            yield replace(
                made,
                protocol=ir.UpstreamProtocol.HTTP2,
                connections=replace(made.connections, keepalive=keepalive),
            )

    # Logs

    def _logs(self, mode: Mode) -> Iterator[ir.AccessLog]:
        mesh = self.settings.reporting
        choices = logs_of(self.selected, mesh.log_providers, mode)
        known = [(choice, log) for choice in choices or () if (log := self._log(choice)) is not None]
        logs = [log for choice, log in known if not choice.disabled] if known else [*self._mesh_logs()]
        yield from logs
        silenced = bool(known) and not logs
        if mesh.keeps_evidence and not silenced and not any(_is_evidence(log) for log in logs):
            yield ir.AccessLog(to=ir.FileLog(path=EVIDENCE))

    def _log(self, choice: LogChoice) -> ir.AccessLog | None:
        settings = self.settings
        found = log_of(choice.provider, settings.providers, settings.reporting, self.services)
        if isinstance(found, Nothing) or (choice.only and cel_calls.complaint(choice.only, texts=True)):
            return None
        return ir.AccessLog(to=found, only=choice.only)

    def _mesh_logs(self) -> Iterator[ir.AccessLog]:
        """What ``accessLogFile`` and ``enableEnvoyAccessLogService`` ask for."""
        mesh = self.settings.reporting
        if mesh.log_file:
            yield ir.AccessLog(to=mesh_log(mesh.log_file, mesh))
        remote = self.said.envoy_access_log_service if self.said is not None else None
        if mesh.log_service and remote is not None and remote.address:
            for name, streams in (("http_envoy_accesslog", False), ("tcp_envoy_accesslog", True)):
                entries = ir.GrpcLog(cluster=_LOG_SERVICE, authority="", name=name, streams=streams)
                yield ir.AccessLog(to=entries, requests=not streams, streams=streams)

    # Metrics

    def _metrics(self, mode: Mode) -> ir.Metrics | None:
        """The series that the store and Prometheus have in common."""
        defaults = self.settings.reporting.metric_providers or (STORE,)
        found = metrics_of(self.selected, defaults, mode)
        made = made_by(found, self.settings.providers)
        if made is None:
            return None
        changes = [
            ir.MetricChange(metric=metric, disabled=choice.disabled, tags=tuple(_tags_of(choice.tags)))
            for metric, choice in sorted(made.by_name.items())
            if metric in METRICS.values()
        ]
        return ir.Metrics(changes=tuple(one for one in changes if one.disabled or one.tags))

    # Traces

    def _tracing(self, mode: Mode) -> ir.Tracing | None:
        mesh = self.settings.reporting
        choice = traces_of(self.selected, mesh.trace_providers, mode)
        if choice is not None and choice.disabled:
            return None
        if choice is not None and choice.provider is not None:
            found = tracer_of(choice.provider, self.settings.providers, self.services, self.who)
            if isinstance(found, Nothing):
                return None
        elif not mesh.tracing:
            return None
        else:
            found = self._own_tracer()
        own = self.said.tracing if self.said is not None and self.said.tracing is not None else MeshTracing()
        if choice is None:
            choice = TraceChoice(own_tags=own.enable_istio_tags is not False)
        asked = choice.sampling if choice.sampling is not None else _sampling(own)
        tags = _telemetry_tags(choice.tags) if choice.tags else _mesh_tags(own.custom_tags or {})
        tracer = found.tracer
        renamed = self.said is not None and self.said.tracing_service_name is not None
        if renamed and isinstance(tracer, ir.OtlpTracer) and not tracer.service:
            tracer = replace(tracer, service=self.who.service)
        return ir.Tracing(
            tracer=tracer,
            sampling=millionths(asked),
            by_request_id=choice.by_request_id,
            own_tags=choice.own_tags,
            tags=tuple(tags),
            longest_path=found.longest_path or own.max_path_tag_length or None,
            propagates=choice.propagates,
            upstream_span=found.upstream_span,
        )

    def _own_tracer(self) -> FoundTracer:
        """What ``defaultConfig.tracing`` names, else the store."""
        tracing = self.said.tracing if self.said is not None else None
        if zipkin := _zipkin(self.said):
            host = zipkin.rpartition(":")[0]
            call = ir.HttpCall(cluster=_ZIPKIN, uri=f"http://{host}/api/v2/spans", timeout=CALL_TIMEOUT)
            return FoundTracer(tracer=ir.ZipkinTracer(call=call))
        if tracing is not None and tracing.datadog is not None and tracing.datadog.address:
            host = tracing.datadog.address.rpartition(":")[0]
            return FoundTracer(tracer=ir.DatadogTracer(cluster=_DATADOG, host=host, service=self.who.service))
        return store_tracer()


def _is_evidence(log: ir.AccessLog) -> bool:
    """Whether a log tells ``weft explain`` of every request, or has the place of that which would."""
    file = log.to
    return isinstance(file, ir.FileLog) and ((file.is_ours and not log.only) or file.path == EVIDENCE)


def _tags_of(tags: Mapping[str, str | None]) -> Iterator[tuple[str, str | None]]:
    for name, value in sorted(tags.items()):
        if value is None:
            yield name, None
        elif made := value_of(value)[0]:
            yield name, made


def _sampling(own: MeshTracing) -> float:
    """Percent. Istio takes more than all for a slip."""
    asked = own.sampling or _SAMPLING
    return asked if asked <= _MOST else _SAMPLING


def _telemetry_tags(tags: Mapping[str, CustomTag]) -> Iterator[ir.SpanTag]:
    for name, tag in sorted(tags.items()):
        if tag.formatter is not None and not log_format.complaint(tag.formatter.value):
            yield ir.SpanTag(name=name, source=ir.TagFrom.FORMAT, value=tag.formatter.value)
        elif tag.formatter is None:
            yield from _tag(name, tag)


def _mesh_tags(tags: Mapping[str, MeshTag]) -> Iterator[ir.SpanTag]:
    for name, tag in sorted(tags.items()):
        yield from _tag(name, tag)


def _tag(name: str, tag: CustomTag | MeshTag) -> Iterator[ir.SpanTag]:
    if tag.literal is not None and tag.literal.value:
        yield ir.SpanTag(name=name, source=ir.TagFrom.LITERAL, value=tag.literal.value)
    for source, kind in ((tag.environment, ir.TagFrom.ENVIRONMENT), (tag.header, ir.TagFrom.HEADER)):
        if source is not None and source.name:
            yield ir.SpanTag(name=name, source=kind, value=source.name, default=source.default_value or "")


def _zipkin(said: ProxySettings | None) -> str:
    """Where Zipkin is, as ``host:port``."""
    if said is None:
        return ""
    own = said.tracing.zipkin if said.tracing is not None else None
    return ((own.address if own is not None else None) or said.zipkin_address or "").strip()


def _collector(name: str, address: str, tls: ClientTLSSettings | None, settings: Settings) -> ir.Cluster:
    host, _, port = address.replace(_HOST_IP, "127.0.0.1").rpartition(":")
    host = host.strip("[]")
    secured = policies.client_tls(tls)
    outside = secured is not None and secured.mode in {ClientTlsMode.SIMPLE, ClientTlsMode.MUTUAL}
    return ir.Cluster(
        name=name,
        discovery=ir.Discovery.STATIC if is_ip(host) else ir.Discovery.STRICT_DNS,
        protocol=ir.UpstreamProtocol.HTTP1,
        endpoints=(ir.Endpoint(address=host, port=int(port) if port.isdigit() else 0),),
        tls=originated(secured, (), "", settings.enforced(settings.tls_limits))
        if secured is not None and outside
        else None,
        mutual=ir.MutualTls.ALWAYS,
        dns_refresh=settings.dns_refresh,
    )
