"""What AuthorizationPolicies grant, and nobody used: whole rules, and single values within them.

Each rule is made into Envoy's form and held against the flows of the workloads that the policy is for; then
again with a single caller, method, path, host or port. What may have been used (it depends on what was not
recorded) counts as used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from weft.analysis import rbac
from weft.analysis.match import Scene
from weft.analysis.policy.bounds import bounded, known_of
from weft.analysis.policy.judge import Judge, Read
from weft.analysis.policy.observed import Example, Observed
from weft.compile.istio.authorization_policy import selected
from weft.compile.istio.authorization_rule import Bounds, access_rule
from weft.compile.memo import Memo
from weft.compile.world import World
from weft.emit.filters.rbac import rules as envoy_rules
from weft.ir.authorization import AccessRules, RuleAction
from weft.model.authorization_policy import AuthorizationPolicy, Rule
from weft.model.resource import Key
from weft.protos import rbac_v3

_ACTIONS: Final = {"ALLOW": RuleAction.ALLOW, "DENY": RuleAction.DENY}
_SOURCE: Final = (
    "principals",
    "service_accounts",
    "namespaces",
    "trust_domains",
    "ip_blocks",
    "remote_ip_blocks",
    "request_principals",
)
_OPERATION: Final = ("hosts", "methods", "paths", "ports")
_WIRE: Final = {
    "service_accounts": "serviceAccounts",
    "trust_domains": "trustDomains",
    "ip_blocks": "ipBlocks",
    "remote_ip_blocks": "remoteIpBlocks",
    "request_principals": "requestPrincipals",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule (``value`` empty) or a value in one. ``path`` is the field's; ``last``: ms, None for never.

    ``action`` is ALLOW or DENY.
    """

    policy: Key
    action: str
    path: str
    value: str
    last: int | None

    def json(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "namespace": self.policy.namespace,
            "name": self.policy.name,
            "action": self.action,
            "path": self.path,
            "value": self.value or None,
            "lastUsed": self.last,
        }


def unused(flows: Iterable[Observed], read: Read, since_ms: int) -> tuple[Grant, ...]:
    """Grants that no flow since then used. A rule that nobody used is told once, without its values."""
    world = World.build([resource for _, resource in read])
    judge = Judge(read)
    memo = Memo()
    met: dict[Key, list[Observed]] = {key: [] for key in world.all(AuthorizationPolicy)}
    root = world.settings.root_namespace
    for flow in flows:
        bearer = judge.bearer(flow)
        if bearer is None:
            continue
        labels = tuple(sorted(bearer.labels))
        policies = selected(world.all(AuthorizationPolicy), flow.namespace, labels, root, memo)
        for policy in policies:
            met[policy.key].append(flow)
    found: list[Grant] = []
    for key, policy in sorted(world.all(AuthorizationPolicy).items(), key=lambda one: str(one[0])):
        action = policy.spec.action or "ALLOW"
        if action in _ACTIONS:
            domains = world.settings.accepted_trust_domains
            for number, rule in enumerate(policy.spec.rules or ()):
                found += _of_rule(policy, key, action, number, rule, met[key], domains, since_ms)
    return tuple(found)


def _of_rule(
    policy: AuthorizationPolicy,
    key: Key,
    action: str,
    number: int,
    rule: Rule,
    flows: list[Observed],
    domains: tuple[str, ...],
    since_ms: int,
) -> Iterator[Grant]:
    place = f"spec.rules[{number}]"
    last = _last(policy, action, rule, flows, domains)
    if last is None or last < since_ms:
        yield Grant(key, action, place, "", last)
        return
    for path, value, narrow in _values(rule):
        last = _last(policy, action, narrow, flows, domains)
        if last is None or last < since_ms:
            yield Grant(key, action, f"{place}.{path}", value, last)


def _values(rule: Rule) -> Iterator[tuple[str, str, Rule]]:
    """The rule with one value in place of a list, for each value of a list of several."""
    for i, item in enumerate(rule.from_ or ()):
        if item.source is None:
            continue
        for name in _SOURCE:
            values = getattr(item.source, name) or ()
            alone = len(values) == 1 and len(rule.from_ or ()) == 1
            for j, value in enumerate(() if alone else values):
                source = item.source.model_copy(update={name: (value,)})
                one = item.model_copy(update={"source": source})
                path = f"from[{i}].source.{_WIRE.get(name, name)}[{j}]"
                yield path, str(value), rule.model_copy(update={"from_": (one,)})
    for i, to in enumerate(rule.to or ()):
        if to.operation is None:
            continue
        for name in _OPERATION:
            values = getattr(to.operation, name) or ()
            alone = len(values) == 1 and len(rule.to or ()) == 1
            for j, value in enumerate(() if alone else values):
                operation = to.operation.model_copy(update={name: (value,)})
                one_to = to.model_copy(update={"operation": operation})
                yield f"to[{i}].operation.{name}[{j}]", str(value), rule.model_copy(update={"to": (one_to,)})


def _last(
    policy: AuthorizationPolicy,
    action: str,
    rule: Rule,
    flows: list[Observed],
    domains: tuple[str, ...],
) -> int | None:
    """When a flow last fitted the rule; None when none did."""
    newest: int | None = None
    forms = {tcp: _form(policy, action, rule, domains, tcp=tcp) for tcp in (False, True)}
    for flow in flows:
        if newest is not None and flow.last <= newest:
            continue
        known = known_of(addresses="addresses" not in flow.partial)
        # What may fit counts: for a rule that refuses that is the decision against the request.
        form = forms[flow.protocol == "tcp"]
        if form is None:
            continue
        rules, _ = bounded(form, known, favour=action == "ALLOW")
        if any(rbac.decide(rules, _scene(flow, example))[1] for example in flow.examples):
            newest = flow.last
    return newest


def _form(
    policy: AuthorizationPolicy, action: str, rule: Rule, domains: tuple[str, ...], *, tcp: bool
) -> rbac_v3.RBAC | None:
    """The rule as Envoy has it; None when it fits nothing that can come."""
    does = _ACTIONS[action]
    made = access_rule(rule, "rule", Bounds(policy.metadata.namespace, domains, tcp, does))
    return None if made is None else envoy_rules(AccessRules(action=does, rules=(made,)))


def _scene(flow: Observed, example: Example) -> Scene:
    headers = {}
    if flow.protocol == "http":
        headers = {":method": [example.method], ":authority": [example.host], ":path": [example.path or "/"]}
    return Scene(
        headers=headers,
        destination_port=flow.port,
        source_ip=example.source_ip,
        remote_ip=example.remote_ip,
        server_name=flow.sni,
        peer=(flow.source,) if flow.source else None,
        tls=flow.tls != "none",
    )
