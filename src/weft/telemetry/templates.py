"""Paths as templates: ``/users/17/orders/9f3a-…`` is ``/users/{*}/orders/{*}``.

A segment is a parameter by its form (numbers, UUIDs, hashes, dates, tokens), or because too many different
texts were seen at its place. Templates are written as AuthorizationPolicy and Envoy write them, so that they
can be put into a policy.
"""

from __future__ import annotations

import re
from typing import Final

ANY: Final = "{*}"
REST: Final = "{**}"
# Deeper than this, all that follows is one parameter.
_DEPTH: Final = 12
_LONGEST_SEGMENT: Final = 64
_PARAMETER: Final = re.compile(
    r"""
      [0-9]+                                                       # a number
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12} # a UUID
    | (?=[0-9a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,}                # a hash, in hex
    | [0-9A-HJKMNP-TV-Z]{26}                                       # a ULID
    | [0-9]{4}-[0-9]{2}(?:-[0-9]{2})?(?:T[0-9:.%Z+-]*)?            # a date
    | [0-9]+(?:[.,_:-][0-9]+)+                                     # 1.2.3, 4-5, 10.0.0.1
    | (?=[^0-9]*[0-9][^0-9]*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_=-]{20,} # a token
    | [^@/]+@[^@/]+\.[a-z]+                                        # an e-mail address
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What a template may say as itself (RFC 3986 without what means something in a policy or a template).
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]*")


def is_parameter(segment: str) -> bool:
    """Whether a segment looks like the value of something, rather than like its name."""
    return (
        len(segment) > _LONGEST_SEGMENT
        or _PARAMETER.fullmatch(segment) is not None
        or _PLAIN.fullmatch(segment) is None
    )


class _Place:
    """What was seen at one place of paths."""

    __slots__ = ("children", "many")

    def __init__(self) -> None:
        self.children: dict[str, _Place] = {}
        self.many = False


class Templates:
    """Learns the paths of one workload. ``most``: different texts at a place before it is a parameter."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._root = _Place()

    def learn(self, path: str) -> str:
        """The template of a path, which is remembered."""
        return self._walk(path, learn=True)

    def of(self, path: str) -> str:
        """The template of a path, or of a template that was right before more was learned."""
        return self._walk(path, learn=False)

    def _walk(self, path: str, *, learn: bool) -> str:
        if not path.startswith("/"):
            return path[:_LONGEST_SEGMENT]  # "*" of OPTIONS, CONNECT
        place = self._root
        segments = path[1:].split("/")
        made: list[str] = []
        for depth, segment in enumerate(segments):
            if segment == REST or depth >= _DEPTH:
                made.append(REST)
                break
            # An empty segment is none that {*} stands for: it stays.
            kind = ANY if segment == ANY or is_parameter(segment) else segment
            if kind not in {ANY, ""}:
                if place.many:
                    kind = ANY
                elif learn and kind not in place.children and self._full(place):
                    place.many, kind = True, ANY
                    place.children = {ANY: _merged(place.children)}
            made.append(kind)
            known = place.children.get(kind)
            if known is None:
                known = _Place()
                if learn:
                    place.children[kind] = known
            place = known
        return "/" + "/".join(made)

    def _full(self, place: _Place) -> bool:
        return sum(1 for name in place.children if name not in {ANY, ""}) >= self._most


def _merged(children: dict[str, _Place]) -> _Place:
    """One place for many: what was seen behind any of them."""
    made = _Place()
    for child in children.values():
        made.many = made.many or child.many
        for name, below in child.children.items():
            if name in made.children:
                made.children[name] = _merged({"": made.children[name], " ": below})
            else:
                made.children[name] = below
    if made.many:
        made.children = {ANY: _merged(made.children)}
    return made
