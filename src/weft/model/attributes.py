"""What AuthorizationPolicies look at, as Istio takes it (its ``config/security``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from weft.model.base import Flaw
from weft.model.hosts import is_address, is_range

_LITERAL: Final = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")
_ONE: Final = "{*}"
_REST: Final = "{**}"


def filled(
    field: str, values: Sequence[str] | None, check: Callable[[str], str] | None = None
) -> Iterator[Flaw]:
    """Each value says something, and passes ``check``, which gives a complaint or the empty text."""
    for number, value in enumerate(values or ()):
        if not value:
            yield Flaw((field, number), "the value is empty", "remove it")
        elif check is not None and (wrong := check(value)):
            yield Flaw((field, number), wrong)


def network(text: str) -> str:
    """An address or a range."""
    good = is_range(text) if "/" in text else is_address(text)
    return "" if good else f"{text!r} is not an IP address or a range of them, as '10.0.0.0/8'"


def port(text: str) -> str:
    """A port's number; 0 is taken too."""
    digits = re.fullmatch("[0-9]{1,10}", text)
    return "" if digits and int(text) <= 65535 else f"{text!r} is not a port"


def service_account(text: str) -> str:
    """``name`` or ``namespace/name``."""
    if "*" in text:
        return "service accounts take no wildcards"
    parts = text.split("/")
    if len(parts) > 2 or not all(parts):
        return f"{text!r} is not of the form 'name' or 'namespace/name'"
    return "longer than 320 characters" if len(text) > 320 else ""


def starred(text: str) -> str:
    """A text with a star at its beginning or end, or none."""
    if text.count("*") > 1 or "*" in text[1:-1]:
        return f"in {text!r} the star is not at the beginning or the end"
    return ""


def trust_domain(text: str) -> str:
    """A trust domain, maybe with a star."""
    return starred(text) or (f"{text!r} is no trust domain: it has a slash" if "/" in text else "")


def path(text: str) -> str:
    """A path, or a template of one: ``{*}`` stands for a part, ``{**}`` for all that is left."""
    template = _ONE in text or _REST in text
    ended = False
    for part in text.strip("/").split("/"):
        if part in {_ONE, _REST}:
            if ended:
                return f"in {text!r} something comes after {_REST}"
            ended = part == _REST
        elif "{" in part or "}" in part:
            return f"{text!r} has braces: only {_ONE} and {_REST} stand for parts of a path"
        elif template and not _LITERAL.fullmatch(part):
            return f"{part!r} cannot be a part of a path"
    return ""


def _bracketed(key: str) -> str:
    place = key.find("[")
    shaped = key.endswith("]") and 0 < place < len(key) - 2
    return "" if shaped else f"{key!r} is not of the form 'a[b]'"


_VALUES: Final[dict[str, Callable[[str], str] | None]] = {
    "source.ip": network,
    "remote.ip": network,
    "source.namespace": None,
    "source.serviceAccount": service_account,
    "source.principal": None,
    "source.trustDomain": starred,
    "request.auth.principal": None,
    "request.auth.audiences": None,
    "request.auth.presenter": None,
    "destination.ip": network,
    "destination.port": port,
    "connection.sni": None,
}
_BRACKETED: Final = ("request.headers", "request.auth.claims", "experimental.envoy.filters.")
_GONE: Final = {
    "destination.namespace": "the policy's own namespace says it",
    "destination.name": "write a selector",
    "destination.user": "write a selector",
}


def attribute(key: str, field: str, values: Sequence[str] | None) -> Iterator[Flaw]:
    """What is wrong with a condition's ``key`` and the values under ``field``."""
    if not values:
        return
    if key.startswith(_BRACKETED):
        if wrong := _bracketed(key):
            yield Flaw(("key",), wrong, f"as '{_BRACKETED[0]}[x-user]'")
    elif key in _GONE or key.startswith("destination.labels"):
        yield Flaw(("key",), f"{key!r} is no attribute any more", _GONE.get(key, "write a selector"))
    elif key not in _VALUES:
        yield Flaw(("key",), f"{key!r} is not an attribute", "as 'source.ip' or 'request.headers[x-user]'")
    yield from filled(field, values, _VALUES.get(key))
