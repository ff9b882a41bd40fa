"""Explains requests in a mesh that is made of files: each proxy's configuration is generated, then walked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

from weft import ir
from weft.analysis.connection import is_udp, listens_on, parse_ip
from weft.analysis.explain.answer import Action, Answer, Failure
from weft.analysis.explain.configuration import Configuration, Decoded, Endpoints
from weft.analysis.explain.inhabitants import Inhabitants
from weft.analysis.explain.onward import Arrival, Journey, arrivals
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.explain.proxies import NOWHERE, Asked, asked, bearers, entry_of, sidecar_of
from weft.analysis.explain.request import ClientTls, Request, Role, read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.compile.endpoints import endpoint_set
from weft.compile.inbound import PeerMode
from weft.compile.istio.request_authentication import rules_for
from weft.compile.proxy import compile_proxy
from weft.compile.service import Resolution, Service
from weft.compile.sidecar import itself
from weft.compile.world import World
from weft.emit.endpoints import pack
from weft.errors import Problem
from weft.model.parse import Part
from weft.model.peer_authentication import PeerAuthentication
from weft.model.request_authentication import JWTRule, RequestAuthentication
from weft.model.resource import Key, Resource
from weft.names import ENDPOINT_TYPE, ClusterName
from weft.spiffe import SpiffeId

if TYPE_CHECKING:
    from weft.protos import endpoint_v3


_ABOUT_TLS: Final = {Failure.NO_FILTER_CHAIN.value, Failure.TLS_ERROR.value, Failure.MTLS_ERROR.value}


class Mesh:
    """A mesh of files. Every proxy that is asked for is configured once."""

    def __init__(
        self,
        parts: Iterable[Part],
        read: Iterable[tuple[Part, Resource]],
        *,
        namespace: str = "default",
        controller: str = "",
        decoded: Decoded | None = None,
    ) -> None:
        """``parts`` are all documents, ``read`` those of them that weft understands.

        ``namespace`` is of documents without one; GatewayClasses of ``controller`` are weft's, too.
        ``decoded`` reads the configurations, perhaps otherwise than they are written.
        """
        known = tuple(read)
        resources = [resource for _, resource in known]
        self.world = World.build(resources)
        if controller:
            controllers = self.world.settings.controllers | {controller}
            self.world = World.build(resources, replace(self.world.settings, controllers=controllers))
        self._bearers = bearers(parts, namespace)
        self._origins = Origins(known)
        self._decoded = decoded or Decoded()
        # What could not be honoured in the configurations that were looked at, each once.
        self.problems: dict[Problem, None] = {}
        self._configurations: dict[tuple[ir.ProxyIdentity, bool], Configuration] = {}

    def explain(self, data: object) -> dict[str, Any]:
        """What becomes of one request, both as JSON; what cannot be read is told as ``error``."""
        try:
            question = read_request(data)
        except ValueError as error:
            return unanswered(data, error)
        answer = Answer(id=data.get("id") if isinstance(data, Mapping) else None)
        proxy = asked(question.sender, self.world, self._bearers)
        upstreams = self._answer(proxy, question, answer)
        own = proxy.identity
        identity = SpiffeId(self.world.settings.trust_domain, own.name.namespace, own.service_account)
        journey = Journey(answer, tuple(arrivals(question, answer, upstreams, str(identity))))
        for arrival in journey.arrivals:
            self._arrive(journey, arrival)
        return journey.json()

    def _arrive(self, journey: Journey, arrival: Arrival) -> None:
        bearer = self._inhabitants.at(arrival.address, arrival.port)
        if bearer is None:
            journey.unjudged(arrival, "no document describes who is there: it decides itself")
            return
        name = f"{bearer.namespace}/{bearer.name}"
        shown = arrival if bearer.address else replace(arrival, address="")
        if not bearer.sidecar:
            journey.unjudged(shown, "there is no sidecar: the application decides itself", name)
        else:
            answer = Answer()
            self._answer(sidecar_of(bearer), arrival.asking(name), answer)
            journey.taken(shown, name, answer)

    def _answer(self, proxy: Asked, question: Request, answer: Answer) -> Upstreams:
        answer.say("proxy", proxy.note)
        running = self._configuration(proxy, inbound=question.sender.role is Role.INBOUND)
        upstreams = Upstreams(
            running, self._is_kubernetes, self._is_meshed, self._declared, planned=self._planned
        )
        origins = self._origins.among(self._rules_about_tokens(proxy.identity))
        walk(question, self._dialled(question, proxy, answer), upstreams, origins, answer)
        if question.sender.role is Role.INBOUND and answer.error in _ABOUT_TLS:
            self._name_rule(proxy, answer)
        return upstreams

    @cached_property
    def _inhabitants(self) -> Inhabitants:
        return Inhabitants(self.world, tuple(self._bearers.values()))

    def _planned(self, cluster: str) -> endpoint_v3.ClusterLoadAssignment | None:
        """The workloads that will be behind a cluster, wherever a client is."""
        packed = pack(endpoint_set(self._inhabitants.world, cluster))
        return cast("endpoint_v3.ClusterLoadAssignment", self._decoded.read(packed, ENDPOINT_TYPE))

    def _rules_about_tokens(self, identity: ir.ProxyIdentity) -> list[tuple[Key, int, JWTRule]]:
        policies = self.world.all(RequestAuthentication)
        if not policies:
            return []
        labels, root = itself(self.world, identity).labels, self.world.settings.root_namespace
        return rules_for(policies, identity.name.namespace, labels, root)

    def _configuration(self, proxy: Asked, *, inbound: bool) -> Configuration:
        key = proxy.identity, inbound
        if key not in self._configurations:
            world = self.world
            entry = entry_of(proxy.bearer, proxy.identity.name.address) if proxy.bearer and inbound else None
            if entry is not None:
                world = world.replace([entry])
            made, problems = compile_proxy(world, proxy.identity)
            self.problems.update(dict.fromkeys(problems))
            self._configurations[key] = Configuration.of_proxy(made, self._endpoints(made), self._decoded)
        return self._configurations[key]

    def _endpoints(self, proxy: ir.Proxy) -> Endpoints:
        """Endpoints of clusters as a proxy sees them; None when nobody is known behind a service at all."""
        placements = {cluster.name: cluster.placement for cluster in proxy.clusters}
        client = proxy.identity.standpoint

        def endpoints(cluster: str) -> endpoint_v3.ClusterLoadAssignment | None:
            found = endpoint_set(self.world, cluster)
            name = ClusterName.parse(cluster)
            services = self.world.services.by_host.get(name.host, ()) if name else ()
            if not found.endpoints and not any(self.world.backends(service) for service in services):
                return None
            packed = pack(found, placements.get(cluster, ir.ANYWHERE), client)
            return cast("endpoint_v3.ClusterLoadAssignment", self._decoded.read(packed, ENDPOINT_TYPE))

        return endpoints

    def _is_kubernetes(self, host: str) -> bool:
        return any(service.kubernetes for service in self.world.services.by_host.get(host, ()))

    def _declared(self, cluster: str) -> Cause | None:
        """The resource that declares the service of a cluster."""
        name = ClusterName.parse(cluster)
        services = self.world.services.by_host.get(name.host, ()) if name else ()
        return self._origins.of(services[0].source) if services else None

    def _name_rule(self, proxy: Asked, answer: Answer) -> None:
        """Say which PeerAuthentication decides what a workload takes: the most specific one."""
        own, labels = proxy.identity.name, set(proxy.identity.labels)
        root = self.world.settings.root_namespace
        ranked: list[tuple[int, Key]] = []
        for key, rule in self.world.all(PeerAuthentication).items():
            selector = rule.spec.selector.match_labels if rule.spec.selector else None
            if selector:
                if key.namespace == own.namespace and labels.issuperset(selector.items()):
                    ranked.append((0, key))
            elif key.namespace in {own.namespace, root}:
                ranked.append((1 if key.namespace == own.namespace else 2, key))
        for _, key in sorted(ranked)[:1]:
            cause = self._origins.of(key)
            answer.say("peerAuthentication", f"{cause} says which connections are taken", cause)

    def _is_meshed(self, cluster: str) -> bool:
        """Whether the workloads of a service that nobody runs yet will have sidecars that take mutual TLS.

        Those that it selects are in the mesh, unless a document says that they get no sidecar.
        """
        name = ClusterName.parse(cluster)
        for service in self.world.services.by_host.get(name.host, ()) if name else ():
            port = service.port(name.port) if name else None
            if port is None or service.selector is None or service.external:
                continue
            wanted = set(service.selector)
            selected = [
                bearer
                for bearer in self._bearers.values()
                if bearer.namespace == service.namespace and wanted <= set(bearer.labels)
            ]
            labels = selected[0].labels if selected else service.selector
            number = port.target if isinstance(port.target, int) else port.number
            mode = self.world.peer_modes(service.namespace, labels).of(number)
            joined = not selected or any(bearer.sidecar for bearer in selected)
            return joined and mode is not PeerMode.DISABLE
        return False

    def _dialled(self, question: Request, proxy: Asked, answer: Answer) -> Dialled:
        role, own = question.sender.role, proxy.identity.name
        host, _, written = question.host.rpartition(":")
        port = question.port
        if port is None and not question.address and host and written.isdecimal() and "]" not in written:
            port = int(written)
        usual = 80 if question.tls is ClientTls.NONE else 443
        if role is Role.GATEWAY and question.protocol != "udp":
            port = self._gateway_port(proxy, port, usual, asked=question.port is not None)
        port = port or usual
        if role is Role.INBOUND:
            ip = question.address if parse_ip(question.address) else own.address
            return Dialled(addresses=(ip,), port=port, source_ip=question.source_ip)
        if role is Role.GATEWAY:
            ip = question.address if parse_ip(question.address) else own.address
            return Dialled(addresses=(ip,), port=port, source_ip=question.source_ip)
        name = question.address or (host if host and written.isdecimal() else question.host)
        addresses = self.resolve(name.strip("[]"), own.namespace)
        if not addresses:
            known = any(
                one in self.world.services.by_host for one in self._names(name.lower(), own.namespace)
            )
            word = "a name of the mesh, but nobody knows an address of it" if known else "no name of the mesh"
            answer.say("address", f"{name or 'nothing'} is {word}")
            addresses = (NOWHERE,)
        elif parse_ip(name) is None:
            ports = self._ports(name.lower(), own.namespace)
            lacks = f", which has no port {port}, only {', '.join(map(str, ports))}"
            answer.say("address", f"{name} is {addresses[0]}{lacks if ports and port not in ports else ''}")
        source = question.source_ip or (own.address if own.address != NOWHERE else "")
        return Dialled(addresses=addresses, port=port, source_ip=source)

    def _gateway_port(self, proxy: Asked, said: int | None, usual: int, *, asked: bool) -> int:
        """Where a gateway listens for a client that connects to a port of it, or says none.

        What is dialled may be a port of a Service before the gateway, which leads to another port of the
        proxy. What a client writes after the host's name need not be where it connects to.
        """
        listeners = self._configuration(proxy, inbound=False).listeners.values()
        opened: set[int] = {number for one in listeners if not is_udp(one) for _, number in listens_on(one)}
        wanted = [said or usual] if asked else [said or usual, usual]
        for port in wanted:
            if port in opened:
                return port
            for target in self._targets(proxy, port):
                if target in opened:
                    return target
        if not asked and len(opened) == 1:
            return opened.pop()
        return said if said is not None and asked else usual

    def _targets(self, proxy: Asked, port: int) -> Iterator[int]:
        """Ports of a gateway's pods that a port of the Services before it leads to."""
        labels = set(proxy.identity.labels)
        for services in self.world.services.by_host.values():
            for service in services:
                found = service.port(port)
                if (
                    found is not None
                    and service.selector
                    and service.namespace == proxy.identity.name.namespace
                    and labels.issuperset(service.selector)
                    and isinstance(found.target, int)
                ):
                    yield found.target

    def resolve(self, name: str, namespace: str) -> tuple[str, ...]:
        """The addresses of a host as a workload of a namespace looks it up; none when nobody declares it."""
        if parse_ip(name) is not None:
            return (name,)
        for candidate in self._names(name.lower().rstrip("."), namespace):
            for service in self.world.services.by_host.get(candidate, ()):
                found = self._addresses(service)
                if found:
                    return found
        return ()

    def _ports(self, name: str, namespace: str) -> list[int]:
        """The ports of the service that a name means; none when nobody declares it."""
        for candidate in self._names(name, namespace):
            if services := self.world.services.by_host.get(candidate):
                return sorted({port.number for service in services for port in service.ports})
        return []

    def _names(self, name: str, namespace: str) -> tuple[str, ...]:
        """The name itself, then with the parts that a resolver's search list adds."""
        domain = self.world.settings.domain
        return (
            name,
            f"{name}.{namespace}.svc.{domain}",
            f"{name}.svc.{domain}",
            f"{name}.{domain}",
            name.partition(".")[2],  # a member of a headless service
        )

    def _addresses(self, service: Service) -> tuple[str, ...]:
        if service.resolution is Resolution.ALIAS:
            target = service.alias_of
            return self.resolve(target, service.namespace) if target != service.host else ()
        plain = tuple(address for address in service.addresses if "/" not in address)
        if plain:
            return plain
        return tuple(sorted({member.address for member in self.world.backends(service)} - {""}))


def unanswered(data: object, error: ValueError) -> dict[str, Any]:
    """The answer to a question that cannot be read."""
    answer = Answer(id=data.get("id") if isinstance(data, Mapping) else None)
    answer.action, answer.error = Action.ERROR, str(error)
    answer.say("question", str(error))
    return Journey(answer).json()
