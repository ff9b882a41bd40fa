"""Paths as Envoy's connection manager changes them before routes see them, and as routes rewrite them.

Rules: envoy source/common/http/path_utility.cc (and its canonicalizer), and the comments of
HttpConnectionManager and RouteAction in its API.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from weft.analysis.pattern import compiled

_UNRESERVED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
# What a part of a URI template stands for (extensions/path/uri_template_lib).
_LITERALS: Final = "a-zA-Z0-9-._~%!$&'()+,;:@="
_ESCAPED_SLASH: Final = re.compile("%2f|%5c", re.IGNORECASE)
_ESCAPED: Final = re.compile("%([0-9a-fA-F]{2})")
_DOTS_WITH_PARAMETERS: Final = re.compile(r"(?<=[/\\])(\.\.?);[^/\\]*")
_UNWISE: Final = re.compile('["<>^`{|}]')


def split_query(path: str) -> tuple[str, str]:
    """The path itself, and its query with the ``?`` or the empty text."""
    at = path.find("?")
    return (path, "") if at < 0 else (path[:at], path[at:])


def without_query(path: str) -> str:
    """The path without query and fragment."""
    for mark in "?#":
        path = path.partition(mark)[0]
    return path


def has_escaped_slashes(path: str) -> bool:
    """Whether the path (not its query) has ``%2F`` or ``%5C``."""
    return _ESCAPED_SLASH.search(split_query(path)[0]) is not None


def unescape_slashes(path: str) -> str:
    """``%2F`` and ``%5C`` in the path become what they stand for."""
    bare, query = split_query(path)
    return _ESCAPED_SLASH.sub(lambda found: "/" if found[0][1] == "2" else "\\", bare) + query


def merge_slashes(path: str) -> str:
    """``//`` in the path becomes ``/``."""
    bare, query = split_query(path)
    return re.sub("/{2,}", "/", bare) + query


def normalize(path: str) -> str | None:
    """RFC 3986: dot segments go, needless escapes are read, backslashes are slashes; None when it cannot be.

    An escape that remains keeps its case. Escaped dots count as dots; dots with parameters (``..;a``) do too,
    unless they are escaped. Some characters are escaped.
    """
    bare, query = split_query(path)
    if not bare.startswith("/"):
        return None
    bare = _DOTS_WITH_PARAMETERS.sub(r"\1", bare)
    text = _ESCAPED.sub(_plain, bare).replace("\\", "/")
    text = _UNWISE.sub(lambda found: f"%{ord(found[0]):02X}", text)
    if "%00" in text:
        return None
    kept: list[str] = []
    parts = text.split("/")[1:]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == ".":
            if last:
                kept.append("")
        elif part == "..":
            if kept:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(part)
    return "/" + "/".join(kept) + query


def _plain(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code in _UNRESERVED else found[0]


def query_parameters(path: str) -> dict[str, list[str]]:
    """Parameters of the query, not decoded; a name alone has the empty value."""
    found: dict[str, list[str]] = {}
    query = split_query(path)[1].partition("#")[0]
    for part in query[1:].split("&"):
        if part:
            name, _, value = part.partition("=")
            found.setdefault(name, []).append(value)
    return found


@lru_cache(maxsize=4096)
def template(pattern: str) -> Any:
    """The regular expression that Envoy makes of a URI template, as ``/users/{id}/**``.

    ``*`` is a segment, ``**`` any number of them at the end; ``{name}`` and ``{name=…}`` bind a part.

    Raises:
        ValueError: when the text is no template.
    """
    out: list[str] = []
    rest = pattern
    while rest:
        if rest.startswith("**"):
            out.append(f"[{_LITERALS}/]*")
            rest = rest[2:]
        elif rest.startswith("*"):
            out.append(f"[{_LITERALS}]+")
            rest = rest[1:]
        elif rest.startswith("{"):
            inside, _, rest = rest[1:].partition("}")
            name, bound, shape = inside.partition("=")
            inner = template(shape).pattern if bound else f"[{_LITERALS}]+"
            out.append(f"(?P<{name}>{inner})")
        else:
            at = min((i for i in (rest.find("*"), rest.find("{")) if i >= 0), default=len(rest))
            out.append(re.escape(rest[:at]))
            rest = rest[at:]
    made = compiled("".join(out))
    if made is None:
        raise ValueError(f"{pattern!r} is no URI template")
    return made


def fill_template(match: str, rewrite: str, path: str) -> str:
    """``rewrite`` with the parts that the template ``match`` binds in ``path`` (without a query)."""
    found = template(match).fullmatch(path)
    if found is None:
        return path
    parts = found.groupdict()
    return re.sub(r"\{([^}]*)\}", lambda name: parts.get(name[1], ""), rewrite)
