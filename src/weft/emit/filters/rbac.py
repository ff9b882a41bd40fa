"""Who may do what: Envoy's role-based access control, before requests and before connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.emit.filters.rbac_tests import permission, principal
from weft.emit.packed import Once
from weft.ir.authorization import AccessRule, AccessRules, Authorization, RuleAction
from weft.ir.listener import HttpHandler, TcpHandler
from weft.protos import listener_v3, rbac_filter_v3, rbac_network_v3, rbac_v3
from weft.protos.wire import pack

NAME: Final = "envoy.filters.http.rbac"
NETWORK: Final = "envoy.filters.network.rbac"
_STAT_PREFIX: Final = "tcp."


def each(unit: HttpHandler) -> Iterator[rbac_filter_v3.RBAC]:
    """A filter for each stage."""
    return map(_of_requests, unit.authorization)


def network(unit: TcpHandler) -> list[listener_v3.Filter]:
    """The same before bytes are handed on."""
    return [
        listener_v3.Filter(name=NETWORK, typed_config=pack(_of_connections(stage)))
        for stage in unit.authorization
    ]


def _http(stage: Authorization) -> rbac_filter_v3.RBAC:
    return rbac_filter_v3.RBAC(
        rules=rules(stage.enforced),
        shadow_rules=rules(stage.shadow),
        shadow_rules_stat_prefix=stage.shadow_prefix,
    )


def _tcp(stage: Authorization) -> rbac_network_v3.RBAC:
    return rbac_network_v3.RBAC(
        rules=rules(stage.enforced),
        stat_prefix=_STAT_PREFIX,
        shadow_rules=rules(stage.shadow),
        shadow_rules_stat_prefix=stage.shadow_prefix,
    )


# The chains of a listener have the same stages, and a change leaves most rules as they are.
_of_requests: Final = Once(_http, 1_000)
_of_connections: Final = Once(_tcp, 1_000)


def rules(unit: AccessRules | None) -> rbac_v3.RBAC | None:
    """Rules of one action."""
    if unit is None:
        return None
    made = rbac_v3.RBAC(action=_action(unit.action))
    for rule in unit.rules:
        made.policies[rule.name].CopyFrom(_policies(rule))
    return made


def _policy(rule: AccessRule) -> rbac_v3.Policy:
    return rbac_v3.Policy(
        permissions=map(permission, rule.permissions), principals=map(principal, rule.principals)
    )


_policies: Final = Once(_policy)


def _action(action: RuleAction) -> rbac_v3.RBAC.Action.ValueType:
    match action:
        case RuleAction.ALLOW:
            return rbac_v3.RBAC.Action.ALLOW
        case RuleAction.DENY:
            return rbac_v3.RBAC.Action.DENY
        case RuleAction.LOG:
            return rbac_v3.RBAC.Action.LOG
