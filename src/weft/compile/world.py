"""The whole configuration at one moment: frozen resources, indexed, and what is derived from them.

A change makes a new world that shares with the old one all that it does not touch. Derived values are
remembered by their inputs, so a new world pays only for what became different.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from weft.compile import kubernetes
from weft.compile.backends import Backing, PeersByService, peers_of
from weft.compile.discovery import Changes, capped, caps, changes_between, hidden
from weft.compile.discovery import seen as visible
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.mesh_streams import with_streams
from weft.compile.hosts import is_wildcard
from weft.compile.istio import service_entry
from weft.compile.istio.delegate import rooted
from weft.compile.istio.peer_authentication import PeerModes, either, modes_of
from weft.compile.istio.rule_index import RuleIndex
from weft.compile.key_sets import KeySets
from weft.compile.memo import Memo
from weft.compile.mesh import settings_of
from weft.compile.nearness import DISTRIBUTION
from weft.compile.networks import Networks, networks_of
from weft.compile.registry import Instances, Services
from weft.compile.rules import Rules, rules_of
from weft.compile.service import Instance, Labels, Service
from weft.compile.settings import Settings
from weft.compile.view import Limits, View, view_of
from weft.compile.vips import assign
from weft.errors import Problem
from weft.model.backend_tls_policy import BackendTLSPolicy
from weft.model.core import ConfigMap, Namespace, Secret
from weft.model.destination_rule import DestinationRule
from weft.model.endpoints import Endpoints, EndpointSlice
from weft.model.gateway import Gateway
from weft.model.gateway_class import GatewayClass
from weft.model.grpc_route import GRPCRoute
from weft.model.http_route import HTTPRoute
from weft.model.listener_set import ListenerSet
from weft.model.mesh_config import MeshConfig
from weft.model.peer_authentication import PeerAuthentication
from weft.model.reference_grant import ReferenceGrant
from weft.model.resource import Key, Resource
from weft.model.scalars import is_ip
from weft.model.service import Service as KubernetesService
from weft.model.service_entry import ServiceEntry
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.model.udp_route import UDPRoute
from weft.model.virtual_service import VirtualService
from weft.model.workload import Workload
from weft.model.workload_entry import WorkloadEntry
from weft.model.workload_group import WorkloadGroup

R = TypeVar("R", bound=Resource)

Host = tuple[str, str]
"""(namespace, name) of what needs a virtual address: a Service's name, or a host of a ServiceEntry."""

Lists = Mapping[Host, tuple[kubernetes.Listed, ...]]
"""Listed addresses by the (namespace, name) of their Service."""

Kind = Mapping[Key, Resource]
_NONE: Final[Kind] = {}


@dataclass(frozen=True, slots=True)
class FormerPeers:
    """Rules that held before, for as long as clients may go by them; ``left``: none does any more."""

    rules: Mapping[Key, PeerAuthentication]
    left: bool


class World:
    """An immutable snapshot. Build the first one with ``build``, all others with ``replace``."""

    __slots__ = (
        "_kinds",
        "_lists",
        "_seen",
        "former_peers",
        "given",
        "instances",
        "key_sets",
        "memo",
        "problems",
        "services",
        "settings",
        "trust_domain",
        "vips",
    )

    def __init__(
        self,
        kinds: Mapping[type[Resource], Kind],
        seen: Mapping[type[Resource], Kind],
        settings: Settings,
        given: Settings | None,
        trust_domain: str,
        vips: Mapping[Host, str],
        services: Services,
        instances: Instances,
        lists: Lists,
        key_sets: KeySets | None,
        memo: Memo,
    ) -> None:
        self._kinds = kinds
        self._seen = seen
        self._lists = lists
        self.settings = settings
        self.given = given
        self.trust_domain = trust_domain
        self.vips = vips
        self.services = services
        self.instances = instances
        self.key_sets = key_sets
        self.memo = memo
        self.former_peers: FormerPeers | None = None
        self.problems: dict[str, tuple[Problem, ...]] = {}
        """What could not be honoured, by the namespace whose proxies obey it, as far as it was asked for."""

    @classmethod
    def build(
        cls,
        resources: Iterable[Resource] = (),
        settings: Settings | None = None,
        vips: Mapping[Host, str] | None = None,
        *,
        trust_domain: str = "",
    ) -> World:
        """A world of these resources.

        ``settings`` None: from the MeshConfig or the ConfigMap ``istio`` among the resources. ``vips``
        are virtual addresses given before; what lacks one gets one, the same in every world alike.
        ``trust_domain``: that of the authority, whatever a MeshConfig says.
        """
        first = (settings or Settings()).signed_in(trust_domain)
        nothing: Mapping[type[Resource], Kind] = {}
        empty = cls(
            nothing, nothing, first, settings, trust_domain, {}, Services(), Instances(), {}, None, Memo()
        )
        return empty.replace(resources, (), vips)

    def replace(
        self,
        put: Iterable[Resource] = (),
        removed: Iterable[Key] = (),
        vips: Mapping[Host, str] | None = None,
        key_sets: KeySets | None = None,
    ) -> World:
        """The world after a change. A resource that equals the one it replaces is no change.

        ``key_sets``: all that were fetched; None: they are as they were (in a world that was never given any
        nobody fetches them).
        """
        changes = _changes(self._kinds, put, removed)
        key_sets = self.key_sets if key_sets is None else key_sets
        if not changes and vips is None and key_sets is self.key_sets:
            return self
        kinds = dict(self._kinds)
        for kind, change in changes.items():
            table = dict(kinds.get(kind, _NONE))
            for key, resource in change.items():
                if resource is None:
                    del table[key]
                else:
                    table[key] = resource
            kinds[kind] = table
        settings = self.given or settings_of(_table(kinds, MeshConfig), _table(kinds, ConfigMap))
        settings = settings.signed_in(self.trust_domain)
        again = settings != self.settings
        settings = settings if again else self.settings
        seen, visible = self._seen_after(kinds, changes, settings)
        known = assign(_wanted(seen, visible), {**self.vips, **(vips or {})})
        return World(
            kinds,
            seen,
            settings,
            self.given,
            self.trust_domain,
            known,
            self._services_after(seen, visible, settings, known, again),
            self._instances_after(visible),
            self._lists_after(visible),
            key_sets,
            self.memo,
        )

    def all(self, kind: type[R]) -> Mapping[Key, R]:
        """All resources of a kind; the same object in every world in which none of them differs."""
        return _table(self._seen, kind)

    def held(self, kind: type[R]) -> Mapping[Key, R]:
        """As ``all``, with those in namespaces that the mesh does not look at (``discoverySelectors``)."""
        return _table(self._kinds, kind)

    def keys(self) -> frozenset[Key]:
        """Keys of all resources, be they looked at or not."""
        return frozenset(key for table in self._kinds.values() for key in table)

    @property
    def backing(self) -> Backing:
        """The workloads behind services; the same object until one of them differs."""
        return self.memo(Backing, self.instances, self._lists, self.all(Workload), self.all(WorkloadGroup))

    def backends(self, service: Service) -> tuple[Instance, ...]:
        """The workloads behind a service, in a stable order, whatever their health."""
        return self.backing.of(service, self.memo)

    @property
    def peers(self) -> PeersByService:
        """What clients must know of the workloads behind each service."""
        return self.memo(peers_of, self.services, self.backing, self.settings.trust_domain, self.memo)

    def view(
        self, namespace: str, limits: Limits | None = None, besides: frozenset[str] = frozenset()
    ) -> View:
        """What a namespace may call; the same object until that differs."""
        return self.memo(view_of, self.services, namespace, limits, besides, self.memo)

    @property
    def rule_index(self) -> RuleIndex:
        """All DestinationRules, by namespace and host."""
        return self.memo(RuleIndex, self.all(DestinationRule), self.settings)

    def rules(self, view: View, labels: Labels) -> Rules:
        """The DestinationRules that a view's proxies obey."""
        index = self.rule_index
        bearer = labels if index.selective else ()
        return self.memo(rules_of, view, index, bearer, self.settings, self.memo)

    @property
    def virtual_services(self) -> Mapping[Key, VirtualService]:
        """VirtualServices that have hosts, with the rules of those that they delegate to.

        TCPRoutes and TLSRoutes at services of the mesh are among them.
        """
        made = self.memo(rooted, self.all(VirtualService), self.settings, self.memo)
        tcp, tls = self.all(TCPRoute), self.all(TLSRoute)
        if not tcp and not tls:
            return made
        return self.memo(with_streams, made, tcp, tls, self.services, self.settings, self.memo)

    @property
    def gateway_facts(self) -> Facts:
        """What the Gateway API's rules are decided by."""
        return self.memo(
            Facts,
            self.all(GatewayClass),
            self.all(Gateway),
            self.all(ListenerSet),
            self.all(HTTPRoute),
            self.all(GRPCRoute),
            self.all(TLSRoute),
            self.all(TCPRoute),
            self.all(UDPRoute),
            self.all(BackendTLSPolicy),
            self.all(ReferenceGrant),
            self.all(Namespace),
            self.all(Secret),
            self.all(ConfigMap),
            self.services,
            self.settings,
            self.memo,
        )

    @property
    def networks(self) -> Networks:
        """Which addresses are on which network, and the gateways between them."""
        maps, services = self.all(ConfigMap), self.all(KubernetesService)
        return self.memo(networks_of, maps, services, self.settings.domain)

    def headless(self, view: View) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Addresses behind each headless service of a view that clients connect to directly."""
        return tuple(
            (
                service.host,
                tuple(sorted({item.address for item in self.backends(service) if is_ip(item.address)})),
            )
            for service in self.memo(_headless, view)
        )

    def peer_modes(self, namespace: str, labels: Labels) -> PeerModes:
        """Which connections a workload with these labels takes."""
        root, former = self.settings.root_namespace, self.former_peers
        modes = self.memo(modes_of, self.all(PeerAuthentication), namespace, labels, root, self.memo)
        if former is None:
            return modes
        old = self.memo(modes_of, former.rules, namespace, labels, root, self.memo)
        return self.memo(either, old, modes)

    @property
    def clients_peers(self) -> Mapping[Key, PeerAuthentication]:
        """The rules by which clients choose whether they use mutual TLS."""
        former = self.former_peers
        if former is not None and not former.left:
            return former.rules
        return self.all(PeerAuthentication)

    def changing_over(self, former: Mapping[Key, PeerAuthentication], *, left: bool) -> World:
        """This world while workloads still take what clients send by other rules; ``left``: none does now."""
        made = copy(self)
        made.former_peers = FormerPeers(former, left)
        return made

    def _seen_after(
        self, kinds: Mapping[type[Resource], Kind], changes: Changes, settings: Settings
    ) -> tuple[Mapping[type[Resource], Kind], Changes]:
        """What the mesh looks at of all resources, and what of that differs now."""
        if not settings.discovery and self._seen is self._kinds:
            return kinds, changes
        out = hidden(settings.discovery, kinds, _table(kinds, Namespace))
        seen = {kind: self.memo(visible, kind, table, out) for kind, table in kinds.items()} if out else kinds
        return seen, changes_between(self._seen, seen)

    def _services_after(
        self,
        kinds: Mapping[type[Resource], Kind],
        changes: Changes,
        settings: Settings,
        vips: Mapping[Host, str],
        again: bool,
    ) -> Services:
        spaces = self.memo(_distributions, _table(kinds, Namespace))
        again = again or spaces != self.memo(_distributions, self.all(Namespace))
        limits = self.memo(caps, settings.entry_visibility, _table(kinds, Namespace))
        again = again or limits != self.memo(caps, settings.entry_visibility, self.all(Namespace))
        fresh: dict[Key, tuple[Service, ...]] = {}
        for kind in (KubernetesService, ServiceEntry):
            table: Mapping[Key, Resource | None] = (
                kinds.get(kind, _NONE) if again else changes.get(kind, _NONE)
            )
            for key, resource in (*table.items(), *changes.get(kind, _NONE).items()):
                fresh[key] = _services(resource, vips, settings, spaces, limits)
        moved = (
            {host for host in vips if vips[host] != self.vips.get(host)} if vips is not self.vips else set()
        )
        for kind in (KubernetesService, ServiceEntry) if moved else ():
            for key, resource in kinds.get(kind, _NONE).items():
                if key not in fresh and any(host in moved for host in _hosts(resource)):
                    fresh[key] = _services(resource, vips, settings, spaces, limits)
        return self.services.replace(fresh)

    def _instances_after(self, changes: Changes) -> Instances:
        change = changes.get(WorkloadEntry)
        if not change:
            return self.instances
        put = [service_entry.workload(r) for r in change.values() if isinstance(r, WorkloadEntry)]
        return self.instances.replace(
            put, [(key.namespace, key.name) for key, r in change.items() if r is None]
        )

    def _lists_after(self, changes: Changes) -> Lists:
        if not changes.keys() & {EndpointSlice, Endpoints}:
            return self._lists
        lists = dict(self._lists)
        kinds: tuple[type[EndpointSlice] | type[Endpoints], ...] = (EndpointSlice, Endpoints)
        for kind in kinds:
            for key, resource in changes.get(kind, _NONE).items():
                for item in (self.all(kind).get(key), resource):
                    if isinstance(item, kind):
                        host = (key.namespace, kubernetes.listed_for(item))
                        rest = tuple(other for other in lists.get(host, ()) if other.key != key)
                        lists[host] = (*rest, item) if item is resource else rest
        return lists


def _table(kinds: Mapping[type[Resource], Kind], kind: type[R]) -> Mapping[Key, R]:
    return cast("Mapping[Key, R]", kinds.get(kind, _NONE))


def _changes(
    kinds: Mapping[type[Resource], Kind], put: Iterable[Resource], removed: Iterable[Key]
) -> dict[type[Resource], dict[Key, Resource | None]]:
    """What really differs, by kind; None is a removal. Later resources of a key replace earlier ones."""
    changes: dict[type[Resource], dict[Key, Resource | None]] = {}
    gone = set(removed)
    for kind, table in kinds.items():
        for key in gone & table.keys():
            changes.setdefault(kind, {})[key] = None
    for resource in put:
        kind, key = type(resource), resource.key
        if kinds.get(kind, _NONE).get(key) != resource or key in gone:
            changes.setdefault(kind, {})[key] = resource
    return changes


def _distributions(spaces: Mapping[Key, Namespace]) -> Mapping[str, str]:
    """The traffic distribution that namespaces ask for, by their names."""
    asked = ((key.name, space.metadata.annotations or {}) for key, space in spaces.items())
    return {name: noted[DISTRIBUTION] for name, noted in asked if DISTRIBUTION in noted}


def _services(
    resource: Resource | None,
    vips: Mapping[Host, str],
    settings: Settings,
    spaces: Mapping[str, str],
    limits: Mapping[str, str],
) -> tuple[Service, ...]:
    if isinstance(resource, KubernetesService):
        namespace = resource.metadata.namespace
        vip = vips.get((namespace, resource.metadata.name))
        return (kubernetes.service(resource, vip, settings, spaces.get(namespace, "")),)
    if isinstance(resource, ServiceEntry):
        namespace = resource.metadata.namespace
        own = tuple(
            (host, vips[namespace, host]) for host in resource.spec.hosts if (namespace, host) in vips
        )
        made = service_entry.services(resource, own, settings, spaces.get(namespace, ""))
        if not limits:
            return made
        return tuple(replace(one, export_to=capped(one.export_to, namespace, limits)) for one in made)
    return ()


def _hosts(resource: Resource | None) -> tuple[Host, ...]:
    """What of a resource needs a virtual address."""
    if isinstance(resource, KubernetesService):
        return (
            ((resource.metadata.namespace, resource.metadata.name),) if kubernetes.wants_vip(resource) else ()
        )
    if isinstance(resource, ServiceEntry) and service_entry.wants_vip(resource):
        return tuple(
            (resource.metadata.namespace, host) for host in resource.spec.hosts if not is_wildcard(host)
        )
    return ()


def _wanted(kinds: Mapping[type[Resource], Kind], changes: Changes) -> tuple[Host, ...]:
    found = (
        host
        for kind in (KubernetesService, ServiceEntry)
        for resource in changes.get(kind, _NONE).values()
        for host in _hosts(resource)
    )
    return tuple(sorted(found))


def _headless(view: View) -> tuple[Service, ...]:
    return tuple(service for service in view.services if service.headless)
