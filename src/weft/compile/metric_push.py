"""Who is told of metrics, by OTLP, and of whose: for the process that pushes them, which has no sidecar.

It reaches collectors as a gateway in the root namespace would: by the same services, DestinationRules and
BackendTLSPolicies, with the mesh's own TLS where endpoints have a sidecar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from weft import ir
from weft.compile.clusters import Peers, service_cluster
from weft.compile.endpoints import endpoint_set
from weft.compile.gatewayapi.backend_tls_policy import backend_tls, secured
from weft.compile.istio.metric_providers import MetricProvider, Told, collectors_in, metric_provider, told_of
from weft.compile.istio.telemetry import Selected, Telemetries, applicable
from weft.compile.istio.telemetry_providers import Nothing
from weft.compile.policy import Subset
from weft.compile.rules import Clusters
from weft.compile.service import Port, Service
from weft.compile.settings import Settings
from weft.compile.sidecar import itself
from weft.compile.telemetry import who_is
from weft.compile.world import World
from weft.model.extension_provider import ExtensionProvider
from weft.model.telemetry import Telemetry

_BY_NAME = frozenset({ir.Discovery.ORIGINAL_DST, ir.Discovery.NAMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A collector. ``cluster``: how it is connected to; ``problem``: why it cannot be."""

    name: str
    provider: MetricProvider | None = None
    cluster: ir.Cluster | None = None
    endpoints: tuple[ir.Endpoint, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``told`` of a proxy's series, which is called ``service`` there; empty: as it calls itself."""

    told: Told
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPush:
    """``choices`` hold for proxies that ``others`` does not name by ``namespace/name``."""

    collectors: tuple[Reached, ...] = ()
    choices: tuple[Choice, ...] = ()
    others: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)


_NOTHING = MetricPush()


def metric_push(world: World, proxies: Iterable[ir.ProxyIdentity]) -> MetricPush:
    """For these proxies, as the world has it."""
    settings, resources, memo = world.settings, world.all(Telemetry), world.memo
    if not memo(_pushes, resources, settings):
        return _NOTHING
    root = settings.root_namespace
    found = {
        f"{identity.name.namespace}/{identity.name.name}": _choices(world, identity) for identity in proxies
    }
    usual = Counter(found.values()).most_common(1)
    selected = memo(applicable, resources, root, (), root)
    wide = tuple(Choice(told=told) for told in memo(_told, selected, settings))
    choices = usual[0][0] if usual and usual[0][1] > 1 else wide
    others = {name: said for name, said in found.items() if said != choices}
    names = {one.told.provider for said in (choices, *others.values()) for one in said}
    collectors = collectors_in(sorted(names), settings.providers)
    return MetricPush(
        collectors=tuple(_reached(world, name, provider) for name, provider in sorted(collectors.items())),
        choices=choices,
        others=others,
    )


def _pushes(resources: Telemetries, settings: Settings) -> bool:
    """Whether anybody is told at all."""
    said = (
        ref.name
        for one in resources.values()
        for metrics in one.spec.metrics or ()
        for ref in metrics.providers or ()
    )
    return bool(collectors_in((*settings.reporting.metric_providers, *said), settings.providers))


def _choices(world: World, identity: ir.ProxyIdentity) -> tuple[Choice, ...]:
    own, settings, namespace = itself(world, identity), world.settings, identity.name.namespace
    selected = world.memo(applicable, world.all(Telemetry), namespace, own.labels, settings.root_namespace)
    told = world.memo(_told, selected, settings)
    if not any(one.conventions for one in told):
        return world.memo(_plain, told)
    service = who_is(identity, dict(own.labels), None).otel
    return tuple(Choice(told=one, service=service if one.conventions else "") for one in told)


def _plain(told: tuple[Told, ...]) -> tuple[Choice, ...]:
    return tuple(Choice(told=one) for one in told)


def _told(selected: Selected, settings: Settings) -> tuple[Told, ...]:
    return told_of(selected, settings.reporting.metric_providers, settings.providers)


def _cluster(service: Service, port: Port, subset: Subset, peers: Peers, settings: Settings) -> Clusters:
    policy = subset.policy(port.number)
    return Clusters(
        (service_cluster(service, port, subset, policy, peers, settings, True, settings.root_namespace),)
    )


def _reached(world: World, name: str, provider: ExtensionProvider) -> Reached:
    settings, memo = world.settings, world.memo
    found = metric_provider(provider, world.services)
    if isinstance(found, Nothing):
        return Reached(name=name, problem=found.complaint)
    view = world.view(settings.root_namespace)
    service = view.by_host.get(found.host)
    port = service.port(found.port) if service is not None else None
    if service is None or port is None:
        return Reached(
            name=name,
            problem=f"{found.host} is not exported to the namespace {settings.root_namespace}",
        )
    rules = world.rules(view, ())
    policy = rules.of(service.host).default
    peers = world.peers.get((service.namespace, service.host), Peers())
    made = memo(_cluster, service, port, policy, peers, settings)
    (cluster,) = secured(made, rules, backend_tls(world.gateway_facts), "", memo).all
    if cluster.discovery in _BY_NAME:
        listed: tuple[ir.Endpoint, ...] = (ir.Endpoint(address=service.host, port=found.port),)
    else:
        listed = cluster.endpoints or endpoint_set(world, cluster.name).endpoints
    well = tuple(one for one in listed if one.health is ir.Health.HEALTHY and one.address)
    return Reached(
        name=name,
        provider=found,
        cluster=cluster,
        endpoints=well,
        problem="" if well else f"{found.host} has no endpoint that is ready",
    )
