"""What rules come to where not everything is known that they ask about.

A test of something that was not recorded is taken to hold, or not, whichever is better (or worse) for the
request. If both come to the same, the decision is known in spite of it. Negations turn the favour round; a
rule that refuses is better when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from weft.protos import rbac_v3

if TYPE_CHECKING:
    from google.protobuf.message import Message

# What a record says of a request (emit/flow_log.py).
_RECORDED_HEADERS: Final = frozenset({":method", ":path", ":authority", "host"})
_ADDRESSES: Final = frozenset({"direct_remote_ip", "remote_ip", "source_ip"})
_ALLOW: Final = 0

Known = Callable[[str, str], bool]
"""Whether a kind of test (a field of Permission or Principal) of a name can be answered."""


def known_of(*, addresses: bool) -> Known:
    """What is known of a flow. ``addresses``: every one that it came from was kept."""

    def known(kind: str, name: str) -> bool:
        if kind == "header":
            return name.lower() in _RECORDED_HEADERS
        if kind in _ADDRESSES:
            return addresses
        return kind not in {"metadata", "sourced_metadata", "filter_state", "matcher", "destination_ip"}

    return known


def bounded(rules: rbac_v3.RBAC, known: Known, *, favour: bool) -> tuple[rbac_v3.RBAC, bool]:
    """The rules with every unanswerable test answered, and whether there was one.

    ``favour``: in favour of the request, else against it.
    """
    made = rbac_v3.RBAC()
    made.CopyFrom(rules)
    # In favour: what lets pass fits, what refuses does not. What only marks is the same either way.
    holds = favour == (rules.action == _ALLOW)
    changed = False  # and every test is looked at: no any() here
    for policy in made.policies.values():
        for permission in policy.permissions:
            changed |= _permission(permission, known, holds)
        for principal in policy.principals:
            changed |= _principal(principal, known, holds)
        if policy.HasField("condition") or policy.HasField("checked_condition"):
            changed = True
    return made, changed


def _permission(rule: rbac_v3.Permission, known: Known, holds: bool) -> bool:
    kind = rule.WhichOneof("rule") or ""
    match kind:
        case "and_rules":
            return max((_permission(one, known, holds) for one in rule.and_rules.rules), default=False)
        case "or_rules":
            return max((_permission(one, known, holds) for one in rule.or_rules.rules), default=False)
        case "not_rule":
            return _permission(rule.not_rule, known, not holds)
    if known(kind, rule.header.name if kind == "header" else ""):
        return False
    _answer(rule, holds, rbac_v3.Permission(not_rule=rbac_v3.Permission(any=True)))
    return True


def _principal(rule: rbac_v3.Principal, known: Known, holds: bool) -> bool:
    kind = rule.WhichOneof("identifier") or ""
    match kind:
        case "and_ids":
            return max((_principal(one, known, holds) for one in rule.and_ids.ids), default=False)
        case "or_ids":
            return max((_principal(one, known, holds) for one in rule.or_ids.ids), default=False)
        case "not_id":
            return _principal(rule.not_id, known, not holds)
    if known(kind, rule.header.name if kind == "header" else ""):
        return False
    _answer(rule, holds, rbac_v3.Principal(not_id=rbac_v3.Principal(any=True)))
    return True


def _answer(rule: Any, holds: bool, never: Message) -> None:
    if holds:
        rule.any = True
    else:
        rule.CopyFrom(never)
