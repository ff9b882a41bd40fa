"""From a world and an identity to all that one Envoy shall do."""

from __future__ import annotations

from dataclasses import replace

from weft import ir
from weft.compile.authorizers import asked_for, prepared
from weft.compile.handling import handled
from weft.compile.istio.authorization_policy import guard_of, guarded, selected
from weft.compile.istio.custom_policy import consultations_of, consulted, unseen
from weft.compile.istio.envoy_filter import patches_of, wants_metadata
from weft.compile.istio.request_authentication import authenticated, authentication_of
from weft.compile.moved_ports import declared
from weft.compile.own_settings import handling
from weft.compile.peers import needs_peers, peers_of
from weft.compile.problems import problems_of
from weft.compile.rate_limit import limited, limits_of
from weft.compile.router import router
from weft.compile.sidecar import itself, sidecar
from weft.compile.telemetry import telling
from weft.compile.whereabouts import located
from weft.compile.world import World
from weft.errors import Problem
from weft.model.authorization_policy import AuthorizationPolicy
from weft.model.envoy_filter import EnvoyFilter
from weft.model.http_route import HTTPRoute
from weft.model.rate_limit import RateLimit
from weft.model.request_authentication import RequestAuthentication


def compile_proxy(world: World, identity: ir.ProxyIdentity) -> tuple[ir.Proxy, tuple[Problem, ...]]:
    """What the proxy shall do, and what of its configuration could not be honoured.

    Units that another call was given the same inputs for are the very same objects.
    """
    identity = located(world, identity)
    build = router if identity.name.kind == "router" else sidecar
    proxy, found = telling(world, identity, build(world, identity))
    if resources := world.all(RateLimit):
        memo, own, settings = world.memo, itself(world, identity), world.settings
        namespace = identity.name.namespace
        limits = memo(limits_of, resources, namespace, own.labels, settings.root_namespace, settings.domain)
        if limits:
            proxy = replace(proxy, listeners=limited(proxy.listeners, limits, memo))
    if tokens := world.all(RequestAuthentication):
        own, root = itself(world, identity), world.settings.root_namespace
        namespace, gateway = identity.name.namespace, identity.name.kind == "router"
        believed = world.memo(authentication_of, tokens, namespace, own.labels, root, world.key_sets, gateway)
        if believed is not None:
            proxy = replace(proxy, listeners=authenticated(proxy.listeners, believed, world.memo))
    if policies := world.all(AuthorizationPolicy):
        own, root, memo = itself(world, identity), world.settings.root_namespace, world.memo
        if chosen := selected(policies, identity.name.namespace, own.labels, root, memo):
            guard = guard_of(chosen, world.settings, memo)
            asked = consultations_of(chosen, world.settings, world.services, memo)
            listeners = consulted(guarded(proxy.listeners, guard, memo), asked, memo)
            moved = (*identity.attachment.inbound_ports, *identity.port_map)
            proxy = replace(proxy, listeners=declared(listeners, moved, memo))
            found += unseen(chosen, asked, proxy, memo)
    if world.memo(asked_for, world.all(HTTPRoute)):
        proxy = prepared(proxy, world.memo)
    proxy = handled(proxy, handling(world, identity), world.memo)
    if needs_peers(world):
        proxy = replace(proxy, peers=peers_of(world, itself(world, identity)))
    if filters := world.all(EnvoyFilter):
        metadata = identity.metadata if world.memo(wants_metadata, filters) else ()
        namespace, labels = identity.name.namespace, itself(world, identity).labels
        root = world.settings.root_namespace
        proxy = replace(proxy, patches=world.memo(patches_of, filters, namespace, labels, metadata, root))
    return proxy, found + problems_of(world, identity.name.namespace)
