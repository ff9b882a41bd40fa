"""Other spellings of what a policy refuses.

What a rule names can be written in ways that Envoy compares as different and that the application reads as
the same: ``%40`` for ``@`` in a path, a port or a dot behind a host, ``user, admin`` for two lines of a
header, ``delete`` over HTTP/2. To let something pass, only what is written counts, as in Istio; to refuse it,
all of its spellings count. Each function gives the further test, or None when there is one spelling only.

A long value counts by its beginning, or by its end behind a star: Envoy takes no pattern of any size, and
refuses the more.

Dots, slashes and backslashes in paths are not here: ``pathNormalization`` sees to those before any rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product
from typing import Final

from weft import ir

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")
_PERCENT: Final = ord("%")
_HEX: Final = re.compile(rb"%([0-9a-fA-F]{2})")
_PARTS: Final = {"{*}": "[^/]+", "{**}": ".*"}
# Servlet containers take them away; an escaped semicolon is none for them, and is one for whoever decodes.
_PARAMETERS: Final = "(?:(?:;|%3[bB])[^/]*)?"
# For those who take parameters away ``;x`` and ``.;x`` are no parts of the path, and ``..;x`` is a step back.
_SLASH: Final = r"/(?:(?:.*/)?\.{0,2}(?:;|%3[bB])[^/]*/)*"
# Any byte: a dot means a character, and what is no UTF-8 has none.
_ANY: Final = r"\C*"
# Of names with more dashes only the one without any is looked for.
_DASHES: Final = 3
_GAP: Final = r"[ \t]*"
# Characters; what stands for one of a path is larger.
_LONGEST: Final = 8192
_LONGEST_PATH: Final = 512
# What of an escape or of a template a cut may leave.
_CUT_OFF: Final = re.compile(r"(?:%[0-9a-fA-F]?|/\{\*{0,2})\Z")
_CUT_INTO: Final = re.compile(r"\A[0-9a-fA-F]{1,2}")


def path(value: str) -> ir.TextMatch | None:
    """A path with characters escaped or not, with parameters (``/admin;x``), with a slash at its end or none.

    Of templates this is all that counts: Envoy's own know no brackets.
    """
    if value == "*":
        return None
    if len(value) > _LONGEST_PATH:
        cut = _shortened(value, _LONGEST_PATH)
        value = f"*{_CUT_INTO.sub('', cut[1:])}" if cut[0] == "*" else f"{_CUT_OFF.sub('', cut[:-1])}*"
    opened, closed = value.startswith("*"), value.endswith(("*", "{**}"))
    body = value[1:] if opened else value.removesuffix("*")
    parts = (body.rstrip("/") if not closed else body).split("/")
    found = []
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        pattern = _PARTS.get(part) or _escapable(part)
        whole = part and part not in _PARTS and not (last and closed)
        found.append(pattern + _PARAMETERS if whole else pattern)
    if body == "/" and not closed:
        found.append(_PARAMETERS)
    end = "" if closed else "/?"
    rest = ".*" if closed and not value.endswith("{**}") else ""
    return _regex(f"{'.*' if opened else ''}{_SLASH.join(found)}{end}{rest}")


def method(value: str) -> ir.TextMatch | None:
    """A method in other letters: HTTP/2 takes them."""
    if value == "*":
        return None
    body, before, after = _starred(value, ".*")
    return _regex(f"(?i:{before}{_quoted(body)}{after})")


def host(value: str) -> ir.TextMatch | None:
    """A host with a port, a dot at its end, a user before it, or among several."""
    if value == "*":
        return None
    body, before, after = _starred(value, _ANY)
    before = before or f"({_ANY}[@,])?"
    if after:
        # ``admin.example:*`` asks for a port, whatever it is.
        name, colon, rest = body.rpartition(":")
        named = f"{_quoted(name)}\\.?:{_quoted(rest)}" if colon and "]" not in rest else _quoted(body)
        return _regex(f"(?i:{before}{named}{after})")
    name, colon, port = body.rpartition(":")
    if colon and port.isdecimal():
        return _regex(f"(?i:{before}{_quoted(name)}\\.?:0*{port}(,{_ANY})?)")
    return _regex(f"(?i:{before}{_quoted(body)}\\.?([:,]{_ANY})?)")


def header(value: str) -> ir.TextMatch | None:
    """A value among several in one line, or with blanks around it."""
    if value == "*" or "," in value:
        return None
    body, before, after = _starred(value, _ANY)
    first = before or f"({_ANY},)?{_GAP}"
    last = after or f"{_GAP}(,{_ANY})?"
    return _regex(f"{first}{_quoted(body)}{last}")


def header_names(name: str) -> Iterator[str]:
    """Names that CGI, WSGI and their like read as this one: they make underscores of dashes."""
    parts = name.split("-")
    if len(parts) - 1 > _DASHES:
        yield "_".join(parts)
        return
    for marks in islice(product("-_", repeat=len(parts) - 1), 1, None):
        yield "".join(part + mark for part, mark in zip(parts, (*marks, ""), strict=True))


def _starred(value: str, anything: str) -> tuple[str, str, str]:
    """The text of ``value``, and what stands for the star before or behind it."""
    value = _shortened(value, _LONGEST)
    if value.startswith("*"):
        return value[1:], anything, ""
    return (value[:-1], "", anything) if value.endswith("*") else (value, "", "")


def _shortened(value: str, longest: int) -> str:
    """A value that fits all that this one does, and more if this one is longer."""
    if len(value) <= longest:
        return value
    return f"*{value[-longest:]}" if value.startswith("*") else f"{value[:longest]}*"


def _escapable(text: str) -> str:
    """A pattern for all spellings of a part of a path."""
    found = []
    raw = text.encode()
    place = 0
    while place < len(raw):
        escaped = _HEX.match(raw, place)
        code = int(escaped[1], 16) if escaped else raw[place]
        place += 3 if escaped else 1
        literal = re.escape(chr(code))
        if code in _PLAIN and not (escaped and code == ord("/")):
            found.append(literal)
            continue
        hexed = f"%{_either(code >> 4)}{_either(code & 15)}"
        bare = 0x20 < code < 0x7F and code not in {_PERCENT, ord("/")}
        found.append(f"(?:{literal}|{hexed})" if bare else hexed)
    return "".join(found)


def _either(digit: int) -> str:
    """A hexadecimal digit in either case."""
    lower = f"{digit:x}"
    return lower if lower.isdigit() else f"[{lower}{lower.upper()}]"


def _quoted(text: str) -> str:
    return re.escape(text)


def _regex(pattern: str) -> ir.TextMatch:
    return ir.TextMatch(test=ir.TextTest.REGEX, value=pattern)
