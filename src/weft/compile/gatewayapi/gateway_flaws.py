"""What of Gateways, ListenerSets, policies and routes below HTTP cannot be honoured, told with its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile.gatewayapi.backend_tls_policy import backend_tls, verdict_of
from weft.compile.gatewayapi.backends import backend_of
from weft.compile.gatewayapi.binding import attached, bound, parents_of
from weft.compile.gatewayapi.facts import GROUP, Facts
from weft.compile.gatewayapi.infrastructure import unheeded
from weft.compile.gatewayapi.layer4 import backends
from weft.compile.gatewayapi.listener_set import attachment, gateway_of
from weft.compile.gatewayapi.listener_tls import MODE_OPTION, MODES, OPTIONS
from weft.compile.gatewayapi.listeners import Listener, listeners_of, merged
from weft.compile.gatewayapi.mesh import SERVICE, SERVICE_ENTRY
from weft.compile.gatewayapi.rivals import settled
from weft.compile.gatewayapi.status_gateway import refusal
from weft.compile.quic import asked_for
from weft.errors import Problem, Severity, did_you_mean
from weft.model.backend_tls_policy import BackendTLSPolicy
from weft.model.gateway import Gateway
from weft.model.gateway import Listener as Resource
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key
from weft.model.tcp_route import TCPRoute
from weft.model.tls_route import TLSRoute
from weft.model.udp_route import UDPRoute
from weft.names import HTTP3_ANNOTATION

NOT_FOUND: Final = "IST0101"
UNHEEDED: Final = "WEFT0102"

PARENTS: Final = frozenset({f"{GROUP}/Gateway", f"{GROUP}/ListenerSet", SERVICE, SERVICE_ENTRY})

Layer4 = TLSRoute | TCPRoute | UDPRoute


def problems(facts: Facts) -> tuple[Problem, ...]:
    """All of them, by kind and then by name."""
    found: list[Problem] = []
    for _, gateway in sorted(facts.gateways.items()):
        if facts.ours(gateway):
            found += _of_gateway(gateway, facts)
    for _, item in sorted(facts.listener_sets.items()):
        found += _of_listener_set(item, facts)
    for key, policy in sorted(facts.tls_policies.items()):
        verdict = facts.memo(verdict_of, policy, facts)
        said = dict.fromkeys(one.message for one in (verdict.accepted, verdict.resolved) if not one.holds)
        found += (_problem(key, message, _named(policy, message), "see its status") for message in said)
    tables: tuple[Mapping[Key, Layer4], ...] = (facts.tls_routes, facts.tcp_routes, facts.udp_routes)
    for table in tables:
        for _, route in sorted(table.items()):
            found += _of_route(route, facts)
    return tuple(found)


def _named(policy: BackendTLSPolicy, message: str) -> str:
    """The path of the target that a message names; that of the whole when it names none."""
    for index, ref in enumerate(policy.spec.target_refs or ()):
        if message.endswith(f" {policy.metadata.namespace}/{ref.name}"):
            return f"spec.targetRefs[{index}]"
    return "spec"


def _of_gateway(gateway: Gateway, facts: Facts) -> Iterator[Problem]:
    said = refusal(gateway, facts)
    if said is not None:
        yield _problem(gateway.key, said.message, "spec", "none of its listeners is opened")
        return
    for number, address in enumerate(gateway.spec.addresses or ()):
        if address.type == "Hostname":
            message = "a gateway is reached at the addresses of its host, whatever name is asked for"
            yield _problem(gateway.key, message, f"spec.addresses[{number}]", "remove it")
    for part in unheeded(gateway, facts.config_maps):
        message = f"weft makes the proxy of a Gateway only: {part} in the ConfigMap has no effect"
        hint = "labels and annotations below deployment.spec.template have one"
        yield _problem(gateway.key, message, "spec.infrastructure.parametersRef", hint)
    yield from _of_listeners(gateway, facts)
    if asked_for(gateway.metadata.annotations):
        yield from _without_http3(gateway, facts)


def _without_http3(gateway: Gateway, facts: Facts) -> Iterator[Problem]:
    path = f"metadata.annotations.{HTTP3_ANNOTATION}"
    serving = [item for item in merged(gateway, facts) if item.sound]
    datagrams = {item.port for item in serving if item.layer == "UDP"}
    for item in serving:
        if item.protocol != "HTTPS":
            continue
        if item.port in datagrams:
            message = f"listener {item.name} has no HTTP/3: UDP port {item.port} is another listener's"
            yield _problem(gateway.key, message, path, "give the UDP listener another port")
        elif item.tls is not None and item.tls.trust is not None:
            message = f"listener {item.name} has no HTTP/3: over QUIC no client shows a certificate"
            yield _problem(gateway.key, message, path, "its clients use HTTP/2")
        elif facts.settings.post_quantum:
            message = f"listener {item.name} has no HTTP/3: over QUIC key exchange cannot be enforced (pqc)"
            yield _problem(gateway.key, message, path, "its clients use HTTP/2")


def _of_listener_set(item: ListenerSet, facts: Facts) -> Iterator[Problem]:
    gateway = gateway_of(item, facts)
    if gateway is None:
        return
    said = attachment(item, gateway, facts)
    if not said.holds:
        hint = "the Gateway's spec.allowedListeners must let its namespace in"
        yield _problem(item.key, said.message, "spec.parentRef", hint)
        return
    yield from _of_listeners(item, facts)


def _of_listeners(owner: Gateway | ListenerSet, facts: Facts) -> Iterator[Problem]:
    made = listeners_of(owner, facts)
    for number, (item, listener) in enumerate(zip(owner.spec.listeners, made, strict=True)):
        place = f"spec.listeners[{number}]"
        if listener.message:
            state = "" if listener.sound else ": it serves nobody"
            yield _problem(owner.key, f"listener {listener.name}{state}: {listener.message}", place, "")
        yield from _of_options(owner.key, item, listener, place)


def _of_options(key: Key, item: Resource, listener: Listener, place: str) -> Iterator[Problem]:
    options = (item.tls.options if item.tls is not None else None) or {}
    for name, value in sorted(options.items()):
        path = f"{place}.tls.options.{name}"
        if name not in OPTIONS:
            hint = did_you_mean(name, OPTIONS) or f"known are {', '.join(sorted(OPTIONS))}"
            yield _problem(key, f"nothing is known of the TLS option {name}", path, hint)
        elif listener.passthrough:
            yield _problem(key, "TLS that passes through has no options", path, "remove it")
        elif name == MODE_OPTION and value not in MODES:
            yield _problem(key, f"{value!r} is no TLS mode", path, f"write one of {', '.join(sorted(MODES))}")


def _of_route(route: Layer4, facts: Facts) -> Iterator[Problem]:
    kind, owner = type(route).__name__, route.metadata.namespace
    parents = settled(route, facts)
    for parent in parents:
        path, ref = f"spec.parentRefs[{parent.place}]", parent.ref
        said = f"{GROUP if ref.group is None else ref.group}/{ref.kind or 'Gateway'}"
        if parent.owner is not None and parent.reason != "Accepted":
            yield _problem(route.key, parent.message, path, "")
        elif said not in PARENTS:
            message = f"weft has no parents of kind {said}: the route is not in force there"
            yield _problem(route.key, message, f"{path}.kind", "name a Gateway")
    mesh = any(parent.owner is not None for parent in parents) and all(
        parent.gateway is None for parent in parents
    )
    for number, part in enumerate(backends(route)):
        backend = backend_of(part, owner, facts, kind, mesh=mesh)
        if backend.reason != "ResolvedRefs":
            code = NOT_FOUND if backend.reason == "BackendNotFound" else UNHEEDED
            path = f"spec.rules[0].backendRefs[{number}]"
            yield _problem(route.key, backend.message, path, "its share of the connections fails", code)
    yield from _shadowed(route, facts)
    if isinstance(route, TLSRoute):
        yield from _wrapped_twice(route, facts)


def _shadowed(route: Layer4, facts: Facts) -> Iterator[Problem]:
    """Of several TCPRoutes or UDPRoutes at a listener the oldest has all connections."""
    if isinstance(route, TLSRoute):
        return
    for parent in facts.memo(parents_of, route, facts):
        gateway = facts.gateways.get(parent.gateway) if parent.gateway is not None else None
        for listener in merged(gateway, facts) if gateway is not None else ():
            if gateway is None or not any(binding.at(listener) for binding in parent.bindings):
                continue
            first: Layer4
            if isinstance(route, TCPRoute):
                if listener.protocol != "TCP":
                    continue
                first = bound(listener, attached(facts.tcp_routes, gateway, facts))[0][0]
            else:
                first = bound(listener, attached(facts.udp_routes, gateway, facts))[0][0]
            if first.key != route.key:
                message = f"{first.key} is older, and has all that comes to listener {listener.name}"
                path = f"spec.parentRefs[{parent.place}]"
                yield _problem(route.key, message, path, "give each route a listener of its own")


def _wrapped_twice(route: TLSRoute, facts: Facts) -> Iterator[Problem]:
    """TLS that passes through would be wrapped into the TLS that a policy asks for."""
    passing = {
        (binding.owner, binding.listener)
        for parent in facts.memo(parents_of, route, facts)
        for binding in parent.bindings
        for gateway in (facts.gateways.get(parent.gateway) if parent.gateway is not None else None,)
        for listener in (merged(gateway, facts) if gateway is not None else ())
        if binding.at(listener) and listener.passthrough
    }
    places = {entry[:2] for entry in backend_tls(facts).entries} if passing else set()
    for number, ref in enumerate(backends(route) if places else ()):
        backend = backend_of(ref, route.metadata.namespace, facts, "TLSRoute")
        if (backend.host, backend.port) in places:
            message = "a BackendTLSPolicy of this service wraps the TLS that passes through into another one"
            path = f"spec.rules[0].backendRefs[{number}]"
            yield _problem(route.key, message, path, "end TLS at the listener, or remove the policy")


def _problem(key: Key, message: str, path: str, hint: str, code: str = UNHEEDED) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(key))
