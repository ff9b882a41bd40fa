"""ListenerSets: which Gateway each adds its listeners to, if that lets it."""

from __future__ import annotations

from weft.compile.age import age
from weft.compile.gatewayapi.facts import GROUP, Facts, Verdict
from weft.compile.gatewayapi.namespaces import admits
from weft.model.gateway import Gateway
from weft.model.listener_set import ListenerSet
from weft.model.resource import Key

NOT_ALLOWED = "NotAllowed"
KIND = f"{GROUP}/ListenerSet"


def gateway_of(listeners: ListenerSet, facts: Facts) -> Gateway | None:
    """The Gateway of ours that a ListenerSet refers to, whether or not that lets it attach."""
    ref = listeners.spec.parent_ref
    if str(ref.group or GROUP) != GROUP or str(ref.kind or "Gateway") != "Gateway":
        return None
    namespace = str(ref.namespace or listeners.metadata.namespace)
    found = facts.gateways.get(Key(f"{GROUP}/Gateway", namespace, str(ref.name)))
    return found if found is not None and facts.ours(found) else None


def attachment(listeners: ListenerSet, gateway: Gateway, facts: Facts) -> Verdict:
    """Whether a Gateway takes a ListenerSet that refers to it: it takes none unless it says so."""
    allowed = gateway.spec.allowed_listeners
    owner = listeners.metadata.namespace
    rule = allowed.namespaces if allowed is not None else None
    if admits(rule, "None", gateway.metadata.namespace, owner, facts.labels_of(owner)):
        return Verdict()
    message = f"Gateway {gateway.metadata.namespace}/{gateway.metadata.name} takes no ListenerSets of {owner}"
    return Verdict(holds=False, reason=NOT_ALLOWED, message=message)


def attached_sets(gateway: Gateway, facts: Facts) -> tuple[ListenerSet, ...]:
    """The ListenerSets that a Gateway takes, in the order of their precedence: the oldest, then by name."""
    found = facts.memo(_by_gateway, facts).get(gateway.key, ())
    return tuple(item for item in found if attachment(item, gateway, facts).holds)


def _by_gateway(facts: Facts) -> dict[Key, tuple[ListenerSet, ...]]:
    found: dict[Key, tuple[ListenerSet, ...]] = {}
    for item in sorted(facts.listener_sets.values(), key=lambda item: age(item.metadata)):
        gateway = gateway_of(item, facts)
        if gateway is not None:
            found[gateway.key] = (*found.get(gateway.key, ()), item)
    return found
