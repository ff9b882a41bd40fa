"""Nobody gives away what they do not have: the checks on roles and bindings that are written.

Kubernetes' pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased: whoever writes
a role must hold all its rules (or the verb ``escalate`` on it), whoever binds one all the rules of that role
(or the verb ``bind``). An aggregation rule can gather anything, so its writer must hold everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from weft.control.api import builtin
from weft.control.api.permission import Access
from weft.control.api.roles import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, KINDS, ROLE
from weft.control.api.rules import EVERYTHING, Ask, Rule, uncovered
from weft.control.api.status import ApiError
from weft.control.api.subject import MASTERS
from weft.control.api.writes import Write
from weft.model.catalog import RBAC, by_id
from weft.model.resource import Key
from weft.store.interface import Put

_SHOWN: Final = 20


def check_built_in(writes: Iterable[Write]) -> None:
    """Refuse to change what is always there.

    Raises:
        ApiError: 403.
    """
    for write in writes:
        key = write.operation.key
        fixed = {CLUSTER_ROLE: builtin.ROLES, CLUSTER_ROLE_BINDING: builtin.BINDINGS}.get(key.kind, {})
        if key.name in fixed and not _same(write):
            hint = "make one of your own; rules of ClusterRoles labelled for it are added to it"
            raise _forbidden(key, f"it is built in and stays as it is: {hint}")


async def check_escalation(writes: Sequence[Write], access: Access) -> None:
    """Refuse what would give somebody more than the writer has.

    Raises:
        ApiError: 403, 404 for a binding to a role that is not there.
    """
    if MASTERS in access.subject.groups:
        return
    for write in writes:
        key = write.operation.key
        if key.kind not in KINDS or not isinstance(write.operation, Put) or _same(write):
            continue
        wire = msgspec.json.decode(write.operation.body)
        if key.kind in {ROLE, CLUSTER_ROLE}:
            await _check_role(key, wire, write, access)
        else:
            await _check_binding(key, wire, writes, access)


async def _check_role(key: Key, wire: Mapping[str, Any], write: Write, access: Access) -> None:
    if await access.may(_ask("escalate", key.kind, key.namespace, key.name)):
        return
    before = msgspec.json.decode(write.before.body) if write.before else {}
    if wire.get("aggregationRule") or before.get("aggregationRule"):
        await _confirm(
            key, EVERYTHING, access, "must have cluster-admin privileges to use the aggregationRule"
        )
    await _confirm(key, map(Rule.of, wire.get("rules") or ()), access)


async def _check_binding(key: Key, wire: Mapping[str, Any], writes: Sequence[Write], access: Access) -> None:
    given = wire.get("roleRef") or {}
    kind, name = str(given.get("kind")), str(given.get("name"))
    role = f"{RBAC}/{kind}"
    if await access.may(_ask("bind", role, key.namespace, name)):
        return
    rules = await access.roles.of_role(kind, key.namespace, name)
    place = key.namespace if kind == "Role" else ""
    for write in writes:
        # A role of the same transaction is what will be bound.
        if write.operation.key == Key(role, place, name) and isinstance(write.operation, Put):
            written = msgspec.json.decode(write.operation.body)
            gathers = bool(written.get("aggregationRule"))
            rules = EVERYTHING if gathers else tuple(map(Rule.of, written.get("rules") or ()))
    if rules is None:
        raise ApiError(404, f'{kind.lower()}s.{RBAC} "{name}" not found')
    await _confirm(key, rules, access)


async def _confirm(key: Key, wanted: Iterable[Rule], access: Access, why: str = "") -> None:
    subject = access.subject
    missing = uncovered(await access.roles.rules(subject, key.namespace), wanted)
    if not missing:
        return
    groups = "[" + " ".join(f'"{group}"' for group in subject.groups) + "]"
    lines = [str(rule) for rule in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        lines.append(f"and {len(missing) - _SHOWN} more")
    text = why or "\n".join(
        [
            f'user "{subject.name}" (groups={groups}) is attempting to grant RBAC permissions'
            " not currently held:",
            *lines,
        ]
    )
    access.denied(access, _ask("escalate", key.kind, key.namespace, key.name))
    raise _forbidden(key, text)


def _same(write: Write) -> bool:
    """Whether the write changes nothing."""
    operation, before = write.operation, write.before
    return isinstance(operation, Put) and before is not None and operation.body == before.body


def _ask(verb: str, kind: str, namespace: str, name: str) -> Ask:
    row = by_id(kind)
    resource = row.plural if row else f"{kind.rpartition('/')[2].lower()}s"
    return Ask(verb=verb, group=RBAC, resource=resource, namespace=namespace, name=name)


def _forbidden(key: Key, why: str) -> ApiError:
    row = by_id(key.kind)
    plural = row.plural if row else key.kind
    details = {"name": key.name, "group": RBAC, "kind": plural}
    return ApiError(403, f'{plural}.{RBAC} "{key.name}" is forbidden: {why}', details=details)
