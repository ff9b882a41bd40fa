"""Regular expressions as Envoy runs them: RE2, whole matches, substitutions with ``\\1``.

google-re2 is imported when the first pattern is met, and nowhere else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=8192)
def compiled(pattern: str) -> Any | None:
    """The compiled pattern; None when RE2 refuses it (Envoy would not accept the configuration)."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def matches(pattern: str, text: str) -> bool:
    """Whether the whole of ``text`` matches."""
    made = compiled(pattern)
    return made is not None and made.fullmatch(text) is not None


def substitute(pattern: str, substitution: str, text: str) -> str:
    """``text`` with every match replaced.

    ``\\0`` to ``\\9`` in the substitution are groups, a doubled backslash is one.
    """
    made = compiled(pattern)
    if made is None:
        return text
    out: list[str] = []
    end = 0
    first = True
    for found in made.finditer(text):
        start, stop = found.span()
        if start == stop and start == end and not first:
            continue  # RE2 lets no empty match follow another at once
        out += (text[end:start], _expanded(substitution, found))
        end, first = stop, False
    return "".join((*out, text[end:]))


def _expanded(substitution: str, found: Any) -> str:
    if "\\" not in substitution:
        return substitution
    out: list[str] = []
    escaped = False
    for character in substitution:
        if escaped:
            number = int(character) if character in "0123456789" else -1
            if 0 <= number <= found.re.groups:
                out.append(found.group(number) or "")
            elif character == "\\":
                out.append("\\")
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            out.append(character)
    return "".join(out)
