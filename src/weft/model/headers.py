"""Names and values of headers as Istio takes them. Each function gives a complaint, or the empty text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN_NAME: Final = re.compile(r"[-_A-Za-z0-9]+")
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_ENDS: Final = frozenset("\0\r\n")
_LONGEST: Final = 16_384  # bytes; Envoy refuses a route table with a longer name or value
_PSEUDO: Final = frozenset({":method", ":scheme", ":authority", ":path", ":status"})
_CLAIM: Final = re.compile(r"@request\.auth\.claims(?:\..+|\[.+\])", re.IGNORECASE | re.DOTALL)
# Envoy's variables: %NAME%, %NAME(text)% and %NAME(["text", …])%; %% is a percent sign. For each state what
# follows which character, and what follows any other; None is an error.
_STEPS: Final[dict[str, tuple[dict[str, str], str | None]]] = {
    "text": ({"%": "name"}, "text"),
    "name": ({"%": "text", "(": "open"}, "name"),
    "open": ({"[": "item", " ": "open"}, "string"),
    "item": ({'"': "string", " ": "item"}, None),
    "string": ({")": "end", '"': "next", "\\": "escape"}, "string"),
    "escape": ({}, "string"),
    "next": ({",": "item", "]": "close", " ": "next"}, None),
    "close": ({")": "end", " ": "close"}, None),
    "end": ({"%": "text", " ": "end"}, None),
}


def is_claim(name: str) -> bool:
    """Whether it stands for a claim of the request's token, as ``@request.auth.claims.sub``."""
    return _CLAIM.fullmatch(name) is not None


def matched(name: str) -> str:
    """The name of a header that a route looks at; pseudo-headers and claims too."""
    if is_claim(name) or name in _PSEUDO:
        return ""
    return known(name)


def known(name: str) -> str:
    """Any name that HTTP allows."""
    if not name:
        return "a header's name must not be empty"
    return "" if _NAME.fullmatch(name) else f"{name!r} is not a header's name"


def plain(name: str) -> str:
    """A name of letters, digits, '-' and '_'."""
    if not name:
        return "a header's name must not be empty"
    return "" if _PLAIN_NAME.fullmatch(name) else f"{name!r} is not a header's name"


def written(name: str) -> str:
    """The name of a request header that is set or added; the host may be written as ``:authority`` too."""
    if not name:
        return "a header's name must not be empty"
    if name.startswith(":") and not is_authority(name):
        return f"{name!r} is a pseudo-header: it cannot be written"
    return broken(name)


def removed(name: str) -> str:
    """The name of a header that is taken away from a request, or changed in a response."""
    if not name:
        return "a header's name must not be empty"
    if name.lower() == "host" or name.startswith(":"):
        return f"{name!r} cannot be changed here"
    return broken(name)


def broken(text: str) -> str:
    """What of a text would end a line of HTTP, or be too long for one; Envoy refuses it."""
    if len(text.encode(errors="replace")) > _LONGEST:
        return f"{text[:20]!r}… is longer than {_LONGEST} bytes"
    return "" if _ENDS.isdisjoint(text) else f"{text!r} has a line's end or a zero byte in it"


def is_authority(name: str) -> bool:
    """Whether it is the host that is called."""
    return name.lower() in {":authority", "host"}


def value(text: str) -> str:
    """A value with Envoy's variables, as ``%REQ(x-user)%``; a percent sign is written twice."""
    if found := _CONTROL.search(text):
        return f"a header's value cannot hold the character U+{ord(found[0]):04X}"
    if len(text.encode(errors="replace")) > _LONGEST:
        return f"{text[:20]!r}… is longer than {_LONGEST} bytes"
    state = "text"
    for character in text if "%" in text else "":
        steps, otherwise = _STEPS[state]
        state = steps.get(character) or otherwise or ""
        if not state:
            break
    if state != "text":
        return f"{text!r} has a '%' that begins no variable: write '%%' for a percent sign"
    return ""


def operations(
    add: dict[str, str] | None, remove: Iterable[str] | None, set_: dict[str, str] | None, *, request: bool
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Paths and complaints of changes to the headers of requests, or of responses."""
    for field, values in (("add", add), ("set", set_)):
        for name, text in (values or {}).items():
            for complaint in (written(name) if request else removed(name), value(text)):
                if complaint:
                    yield (field, name), complaint
    for number, name in enumerate(remove or ()):
        if complaint := removed(name):
            yield ("remove", number), complaint
