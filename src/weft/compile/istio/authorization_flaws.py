"""What of an AuthorizationPolicy has no effect, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile.istio.authorization_value import names_in_brackets
from weft.compile.memo import Memo
from weft.errors import Problem, Severity
from weft.model.authorization_policy import AuthorizationPolicy, Rule
from weft.model.catalog import GATEWAY_API
from weft.model.resource import Key

UNHEEDED: Final = "WEFT0102"
_CLAIMS: Final = "request.auth.claims"
# No request has these in its path when it is compared: they are escaped, or refused.
_NEVER: Final = re.compile(r'[^!-~]|["<>^`|\\]|//|/\.\.?(?:/|$)')


def problems(policies: Mapping[Key, AuthorizationPolicy], memo: Memo) -> tuple[Problem, ...]:
    """Of all policies, in the order of their names."""
    return tuple(problem for _, policy in sorted(policies.items()) for problem in memo(_problems, policy))


def _problems(policy: AuthorizationPolicy) -> tuple[Problem, ...]:
    return tuple(
        Problem(UNHEEDED, message, hint=hint, path=path, severity=Severity.WARNING, resource=str(policy.key))
        for path, message, hint in _of(policy)
    )


def _of(policy: AuthorizationPolicy) -> Iterator[tuple[str, str, str]]:
    spec = policy.spec
    targets = [(f"spec.targetRefs[{number}]", one) for number, one in enumerate(spec.target_refs or ())]
    if not targets and spec.target_ref is not None:
        targets = [("spec.targetRef", spec.target_ref)]
    for path, target in targets:
        if (target.group, target.kind) != (GATEWAY_API, "Gateway"):
            message = f"a policy attached to a {target.kind} is for waypoints, and there are none"
            yield path, message, "select the workloads with selector.matchLabels"
    for number, rule in enumerate(spec.rules or ()):
        yield from _of_rule(rule, f"spec.rules[{number}]", refuses=spec.action in {"DENY", "CUSTOM"})


def _of_rule(rule: Rule, path: str, *, refuses: bool) -> Iterator[tuple[str, str, str]]:
    for place, item in enumerate(rule.to or ()):
        operation = item.operation
        if operation is None:
            continue
        for field, values in (("paths", operation.paths), ("notPaths", operation.not_paths)):
            # What is refused counts in every spelling; what is let pass, as it is written.
            spelt = refuses == (field == "paths")
            for number, value in enumerate(values or ()):
                where = f"{path}.to[{place}].operation.{field}[{number}]"
                message = f"no request has the path {value!r} when policies are asked"
                if not value.startswith(("/", "*")):
                    yield where, message, "begin it with a slash"
                elif not spelt and _NEVER.search(value):
                    yield where, message, "write it as it is sent and normalised, as '/a%20b' or '/caf%C3%A9'"
    for place, condition in enumerate(rule.when or ()):
        if condition.key.startswith(_CLAIMS):
            names = names_in_brackets(condition.key.removeprefix(_CLAIMS))
            if not names or not all(names):
                where = f"{path}.when[{place}].key"
                yield where, f"{condition.key!r} names no claim", "as 'request.auth.claims[groups]'"
