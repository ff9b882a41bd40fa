"""AuthorizationPolicy: which policies are for a proxy, and the stages that its traffic passes.

Sources: istio pilot/pkg/model/authorization.go and pilot/pkg/security/authz/builder. AUDIT marks, then DENY
refuses, then ALLOW lets pass; what no ALLOW policy fits is refused, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.attachment import Bounds as Attachment
from weft.compile.attachment import attached
from weft.compile.inbound import MESH_ANY
from weft.compile.istio.authorization_rule import Bounds, access_rule
from weft.compile.memo import Memo
from weft.compile.service import Labels
from weft.compile.settings import Settings
from weft.model.authorization_policy import AuthorizationPolicy
from weft.model.istio import DRY_RUN, TRUE, PolicyTargetReference
from weft.model.resource import Key
from weft.names import BLACKHOLE_CLUSTER, DRY_RUN_ALLOW, DRY_RUN_DENY, authorization_rule

Policies = Mapping[Key, AuthorizationPolicy]
Selected = tuple[AuthorizationPolicy, ...]

_STAGES: Final = (
    ("AUDIT", ir.RuleAction.LOG, ""),
    ("DENY", ir.RuleAction.DENY, DRY_RUN_DENY),
    ("ALLOW", ir.RuleAction.ALLOW, DRY_RUN_ALLOW),
)
_NEVER: Final[ir.Test] = ir.Not(test=ir.Anything())


@dataclass(frozen=True, slots=True)
class Guard:
    """What stands before a proxy's requests, and before connections of which it sees no requests."""

    http: tuple[ir.Authorization, ...]
    tcp: tuple[ir.Authorization, ...]


def selected(policies: Policies, namespace: str, labels: Labels, root: str, memo: Memo) -> Selected:
    """The policies for a proxy: those of the root namespace, then its own namespace's, the oldest first.

    The same object until one of them differs.
    """
    by_namespace = memo(_by_namespace, policies)
    spaces = dict.fromkeys((root, namespace))
    near = memo(_together, tuple(one for space in spaces for one in by_namespace.get(space, ())))
    return memo(_together, memo(_for, near, namespace, labels, root))


def guard_of(policies: Selected, settings: Settings, memo: Memo) -> Guard:
    """The stages that policies make."""
    return memo(_guard, policies, settings.accepted_trust_domains, memo)


def guarded(listeners: tuple[ir.Listener, ...], guard: Guard, memo: Memo) -> tuple[ir.Listener, ...]:
    """Listeners of which those on the way in let pass what they may."""
    return tuple(
        memo(_guarded, listener, guard) if listener.direction is not ir.Direction.OUTBOUND else listener
        for listener in listeners
    )


def is_tried_out(policy: AuthorizationPolicy) -> bool:
    """Whether it is a dry run: what it would do is counted, and not done."""
    return (policy.metadata.annotations or {}).get(DRY_RUN) in TRUE


def _by_namespace(policies: Policies) -> Mapping[str, Selected]:
    found: dict[str, list[AuthorizationPolicy]] = {}
    for policy in sorted(policies.values(), key=lambda one: age(one.metadata)):
        found.setdefault(policy.metadata.namespace, []).append(policy)
    return {namespace: tuple(ones) for namespace, ones in found.items()}


def _together(policies: Selected) -> Selected:
    return policies


def _for(policies: Selected, namespace: str, labels: Labels, root: str) -> Selected:
    return tuple(attached(policies, _attachment, namespace, labels, root))


def _attachment(policy: AuthorizationPolicy) -> Attachment:
    spec = policy.spec
    return spec.selector.match_labels if spec.selector else None, targets_of(policy)


def targets_of(policy: AuthorizationPolicy) -> tuple[PolicyTargetReference, ...]:
    """What a policy is attached to, instead of being for workloads."""
    spec = policy.spec
    return spec.target_refs or ((spec.target_ref,) if spec.target_ref else ())


def _guard(policies: Selected, trust_domains: tuple[str, ...], memo: Memo) -> Guard:
    http, tcp = (_stages(policies, trust_domains, memo, tcp=tcp) for tcp in (False, True))
    return Guard(http, tcp)


def _stages(
    policies: Selected, trust_domains: tuple[str, ...], memo: Memo, *, tcp: bool
) -> tuple[ir.Authorization, ...]:
    found: list[ir.Authorization] = []
    for name, action, prefix in _STAGES:
        ones = [policy for policy in policies if (policy.spec.action or "ALLOW") == name]
        tried = [policy for policy in ones if is_tried_out(policy)]
        held = [policy for policy in ones if not is_tried_out(policy)]
        if ones:
            found.append(
                ir.Authorization(
                    enforced=rules_of(held, action, trust_domains, memo, tcp=tcp) if held else None,
                    shadow=rules_of(tried, action, trust_domains, memo, tcp=tcp) if tried else None,
                    shadow_prefix=prefix if tried else "",
                )
            )
    return tuple(found)


def rules_of(
    policies: Iterable[AuthorizationPolicy],
    action: ir.RuleAction,
    trust_domains: tuple[str, ...],
    memo: Memo,
    *,
    tcp: bool,
    prefix: str = "",
) -> ir.AccessRules:
    """The rules of policies in one; ``prefix`` goes before their names."""
    rules = (memo(_rules, policy, action, trust_domains, tcp, prefix) for policy in policies)
    return ir.AccessRules(action=action, rules=tuple(rule for some in rules for rule in some))


def _rules(
    policy: AuthorizationPolicy, action: ir.RuleAction, trust_domains: tuple[str, ...], tcp: bool, prefix: str
) -> tuple[ir.AccessRule, ...]:
    """Of one policy. Without rules it fits nothing and says so: ALLOW refuses what no other allows."""
    namespace, name = policy.metadata.namespace, policy.metadata.name
    if not policy.spec.rules:
        title = prefix + authorization_rule(namespace, name, 0)
        return (ir.AccessRule(name=title, permissions=(_NEVER,), principals=(_NEVER,)),)
    bounds = Bounds(namespace, trust_domains, tcp, action)
    made = (
        access_rule(rule, prefix + authorization_rule(namespace, name, number), bounds)
        for number, rule in enumerate(policy.spec.rules)
    )
    return tuple(rule for rule in made if rule is not None)


def _guarded(listener: ir.Listener, guard: Guard) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, guard))


def _chain(chain: ir.FilterChain, guard: Guard) -> ir.FilterChain:
    handler = chain.handler
    if isinstance(handler, ir.HttpHandler):
        return replace(chain, handler=replace(handler, authorization=handler.authorization + guard.http))
    if unguarded(chain):
        return chain
    return replace(chain, handler=replace(handler, authorization=handler.authorization + guard.tcp))


def unguarded(chain: ir.FilterChain) -> bool:
    """Whether connections go nowhere, or to somebody who decides: of mTLS between workloads that a gateway
    does not look into (AUTO_PASSTHROUGH) its receiver does.
    """
    handler = chain.handler
    if isinstance(handler, ir.TcpHandler) and all(
        part.cluster == BLACKHOLE_CLUSTER for part in handler.destinations
    ):
        return True
    return chain.tls is None and chain.match.application_protocols == MESH_ANY
