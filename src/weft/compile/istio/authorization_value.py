"""Values in AuthorizationPolicies as tests of texts: exact, ``prefix*``, ``*suffix``, and ``*`` for any.

Source: istio pilot/pkg/security/authz/{matcher,model}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from weft import ir

SPIFFE: Final = "spiffe://"
ANY_TEXT: Final = ir.TextMatch(test=ir.TextTest.REGEX, value=".+")
_PRESENT: Final = ir.TextMatch(test=ir.TextTest.PRESENT)
_LONGEST: Final = 4096
# What Go's regexp.QuoteMeta escapes: the patterns are the same, letter for letter.
_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


def exact(value: str) -> ir.TextMatch:
    """This very text."""
    return ir.TextMatch(test=ir.TextTest.EXACT, value=value)


def prefix(value: str) -> ir.TextMatch:
    """What begins with it."""
    return ir.TextMatch(test=ir.TextTest.PREFIX, value=value)


def suffix(value: str) -> ir.TextMatch:
    """What ends with it."""
    return ir.TextMatch(test=ir.TextTest.SUFFIX, value=value)


def regex(pattern: str) -> ir.TextMatch:
    """Identities that the pattern matches as a whole; none if it is longer than any (2048 bytes) could be."""
    if len(pattern) > _LONGEST:
        return exact(pattern)  # Envoy takes no pattern of any size
    return ir.TextMatch(test=ir.TextTest.REGEX, value=pattern)


def quoted(text: str) -> str:
    """A pattern that matches this text only."""
    return _META.sub(lambda found: f"\\{found[0]}", text)


def text(value: str) -> ir.TextMatch:
    """A value in its usual forms; ``*`` wants something to be there."""
    if value == "*":
        return ANY_TEXT
    if value.startswith("*"):
        return suffix(value[1:])
    return prefix(value[:-1]) if value.endswith("*") else exact(value)


def header(value: str, *, ignore_case: bool = False) -> ir.TextMatch:
    """The same of a header: ``*`` fits an empty one too."""
    if value == "*":
        return _PRESENT
    found = text(value)
    return ir.TextMatch(test=found.test, value=found.value, ignore_case=True) if ignore_case else found


def principal(value: str) -> ir.TextMatch:
    """An identity without its ``spiffe://``."""
    if value == "*":
        return ANY_TEXT
    if value.startswith("*"):
        return regex(f"{SPIFFE}.*{quoted(value[1:])}")
    return prefix(SPIFFE + value[:-1]) if value.endswith("*") else exact(SPIFFE + value)


def namespace(value: str) -> ir.TextMatch:
    """Identities of a namespace; ``*`` may stand anywhere in its name.

    Istio's pattern begins with anything; Envoy would compare it with other names of a certificate, too.
    """
    name = ".*".join(quoted(part) for part in value.split("*"))
    return regex(f"{SPIFFE}.*/ns/{name}/.*")


def service_account(value: str, own: str) -> ir.TextMatch:
    """Identities of a service account ``namespace/name``, or ``name`` in the namespace ``own``."""
    space, found, name = value.partition("/")
    space, name = (space, name) if found else (own, value)
    return regex(f"{SPIFFE}.+/ns/{quoted(space)}/(.+/|)sa/{quoted(name)}(/.+)?")


def trust_domain(value: str) -> ir.TextMatch:
    """Identities of a trust domain."""
    if value == "*":
        return prefix(SPIFFE)
    if "*" not in value:
        return prefix(f"{SPIFFE}{value}/")
    before, _, after = value.partition("*")
    return regex(f"{SPIFFE}{quoted(before)}[^/]*{quoted(after)}/.*")


def issuer_and_subject(value: str) -> tuple[ir.TextMatch, ir.TextMatch]:
    """``issuer/subject``: an issuer may have slashes, a subject has none."""
    issuer, found, subject = value.rpartition("/")
    if value == "*":
        return ANY_TEXT, ANY_TEXT
    if value.startswith("*"):
        if not found:
            return ANY_TEXT, suffix(value[1:])
        return (ANY_TEXT if issuer == "*" else suffix(issuer[1:])), exact(subject)
    if value.endswith("*"):
        if not found:
            return prefix(value[:-1]), ANY_TEXT
        return exact(issuer), (ANY_TEXT if subject == "*" else prefix(subject[:-1]))
    return (exact(issuer), exact(subject)) if found else (exact(value), exact(""))


def one_of(tests: Sequence[ir.ValueMatch]) -> ir.ValueMatch:
    """One of the tests fits."""
    return tests[0] if len(tests) == 1 else ir.AnyValueMatch(tests=tuple(tests))


def name_in_brackets(rest: str) -> str | None:
    """``x`` of ``[x]``; None where there are no brackets."""
    return rest[1:-1] if len(rest) > 1 and rest[0] == "[" and rest[-1] == "]" else None


def names_in_brackets(rest: str) -> tuple[str, ...] | None:
    """``x``, ``y`` of ``[x][y]``; what is not of that form is one name, with whatever is in it."""
    if rest and re.fullmatch(r"(\[[^\[\]]*\])+", rest):
        return tuple(re.findall(r"\[([^\[\]]*)\]", rest))
    name = name_in_brackets(rest)
    return None if name is None else (name,)
