"""``status`` of a BackendTLSPolicy: what it is worth to Gateways that use its target, and in the mesh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from weft.compile.gatewayapi.backend_tls_policy import PolicyVerdict, Target, verdict_of
from weft.compile.gatewayapi.backends import target_of
from weft.compile.gatewayapi.conditions import Status, condition, mesh_controller
from weft.compile.gatewayapi.facts import GROUP, Facts, Verdict
from weft.compile.gatewayapi.status_route import backend_references, controller_of, judged
from weft.model.backend_tls_policy import BackendTLSPolicy
from weft.model.resource import Key

_Place = tuple[str, str, str, str]
"""Group, kind, namespace and name of a backend."""


def policy_ancestors(policy: BackendTLSPolicy, facts: Facts, controller: str) -> list[Status]:
    """Gateways with a route to a target of the policy, then each target: the mesh's clients obey it, too."""
    verdict = facts.memo(verdict_of, policy, facts)
    namespace = policy.metadata.namespace
    users = facts.memo(_users, facts)
    gateways: dict[Key, None] = {}
    for target in verdict.targets:
        place = (str(target.ref.group), str(target.ref.kind), namespace, str(target.ref.name))
        gateways.update(dict.fromkeys(users.get(place, ())))
    found = [
        _ancestor(
            policy,
            {"group": GROUP, "kind": "Gateway", "namespace": key.namespace, "name": key.name},
            controller_of(facts.gateways[key], facts, controller),
            verdict.accepted,
            verdict.resolved,
        )
        for key in sorted(gateways)
    ]
    return [*found, *_targets(policy, verdict, mesh_controller(controller))]


def _targets(policy: BackendTLSPolicy, verdict: PolicyVerdict, controller: str) -> Iterator[Status]:
    for target in verdict.targets:
        yield _ancestor(policy, _reference(target), controller, _of(target, verdict), verdict.resolved)


def _of(target: Target, verdict: PolicyVerdict) -> Verdict:
    """Of one target: its own flaw, else what keeps the whole policy from being in force."""
    return verdict.accepted if target.verdict.holds else target.verdict


def _reference(target: Target) -> Status:
    ref = target.ref
    said = {"group": str(ref.group), "kind": str(ref.kind), "name": str(ref.name)}
    return {**said, "sectionName": str(ref.section_name)} if ref.section_name else said


def _ancestor(
    policy: BackendTLSPolicy, ref: Status, controller: str, accepted: Verdict, resolved: Verdict
) -> Status:
    return {
        "ancestorRef": ref,
        "controllerName": controller,
        "conditions": [
            condition(policy.metadata, kind, verdict.holds, verdict.reason, verdict.message)
            for kind, verdict in (("Accepted", accepted), ("ResolvedRefs", resolved))
        ],
    }


def _users(facts: Facts) -> Mapping[_Place, tuple[Key, ...]]:
    """The Gateways that have an accepted route to a backend."""
    found: dict[_Place, dict[Key, None]] = {}
    for routes in facts.all_routes:
        for route in routes.values():
            parents = facts.memo(judged, route, facts)
            gateways = [
                parent.gateway for parent in parents if parent.bindings and parent.gateway is not None
            ]
            for ref in backend_references(route) if gateways else ():
                place = target_of(ref, route.metadata.namespace)[:4]
                found.setdefault(place, {}).update(dict.fromkeys(gateways))
    return {place: tuple(keys) for place, keys in found.items()}
