"""Status of the Gateway API's resources, as the specification words it: a pure function of the facts.

Conditions bear no time: ``conditions.merged`` gives each the time at which it last changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from weft.compile.gatewayapi.conditions import Status
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.listener_set import gateway_of
from weft.compile.gatewayapi.status_class import class_status
from weft.compile.gatewayapi.status_gateway import gateway_status, refusal
from weft.compile.gatewayapi.status_listener_set import listener_set_status
from weft.compile.gatewayapi.status_listeners import Waiting
from weft.compile.gatewayapi.status_policy import policy_ancestors
from weft.compile.gatewayapi.status_route import route_parents
from weft.model.resource import Key
from weft.names import GATEWAY_CONTROLLER

__all__ = ["Status", "Waiting", "each_status", "statuses"]


def statuses(
    facts: Facts,
    controller: str = GATEWAY_CONTROLLER,
    addresses: Mapping[Key, tuple[str, ...]] | None = None,
    waiting: Mapping[Key, Waiting] | None = None,
) -> dict[Key, Status]:
    """``status`` of everything of the Gateway API that is ours, as JSON.

    ``controller`` speaks where no GatewayClass names another. ``addresses`` are IPs where a Gateway's proxies
    listen, by the Gateway; ``waiting`` are the Gateways whose proxies do not have it yet. Without a running
    mesh there are none, and what is sound is programmed.
    """
    return dict(each_status(facts, controller, addresses, waiting or {}))


def each_status(
    facts: Facts,
    controller: str,
    addresses: Mapping[Key, tuple[str, ...]] | None,
    waiting: Mapping[Key, Waiting],
) -> Iterator[tuple[Key, Status]]:
    """The same one by one, for who must not be busy for long.

    What no parent of ours speaks of (any more) gets an empty list: what was said of it before is to go.
    """
    for key, resource in facts.classes.items():
        if str(resource.spec.controller_name) in facts.settings.controllers:
            yield key, class_status(resource)
    for routes in facts.all_routes:
        for key, route in routes.items():
            yield key, {"parents": route_parents(route, facts, controller)}
    for key, policy in facts.tls_policies.items():
        yield key, {"ancestors": policy_ancestors(policy, facts, controller)}
    # After the routes: what they are bound to is remembered, and only counted here.
    for key, gateway in facts.gateways.items():
        if facts.ours(gateway):
            own = None if addresses is None else addresses.get(key, ())
            yield key, gateway_status(gateway, facts, own, waiting.get(key))
    for key, listeners in facts.listener_sets.items():
        parent = gateway_of(listeners, facts)
        if parent is not None:
            late = waiting.get(parent.key) or waiting.get(key)
            yield key, listener_set_status(listeners, parent, refusal(parent, facts), late, facts)
