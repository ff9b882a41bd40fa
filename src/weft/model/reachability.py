"""Rules of a VirtualService that nothing reaches, because rules before them take it all (as in Istio)."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from weft.model.base import Flaw, Shape

if TYPE_CHECKING:
    from weft.model.request_match import StringMatch
    from weft.model.virtual_service import HTTPRoute

UNREACHABLE: Final = "IST0130"
INEFFECTIVE: Final = "IST0131"
# Advice is not worth more than a moment, whatever was written.
_COMPARISONS: Final = 200_000
# Letters of a prefix that take as long to look up as a comparison.
_LETTERS: Final = 1024

_Path = tuple[str | int, ...]


class _Rule(Protocol):
    @property
    def match(self) -> Sequence[Shape] | None: ...


def unreached(field: str, rules: Sequence[_Rule]) -> Iterator[Flaw]:
    """Warnings for rules under ``field`` that come too late, and for matches that are there twice."""
    seen: dict[str, int] = {}
    whole: int | None = None  # the first rule that takes everything
    for number, rule in enumerate(rules):
        path = (field, number)
        if not rule.match:
            if whole is None:
                whole = number
            else:
                yield _late(path, whole)
            continue
        repeated = 0
        for place, match in enumerate(rule.match):
            if whole is not None:
                yield _late((*path, "match", place), whole)
                continue
            text = _text(match)
            if text in seen:
                repeated += 1
                message = f"{field}[{seen[text]}] has the same match: this one is never used"
                yield Flaw((*path, "match", place), message, "remove it", warns=True, code=INEFFECTIVE)
            else:
                seen[text] = number
        if repeated == len(rule.match):
            message = "the rule is never used: rules above have all its matches"
            yield Flaw(path, message, "remove it", warns=True, code=UNREACHABLE)


def _late(path: _Path, whole: int) -> Flaw:
    message = f"this is never used: {path[0]}[{whole}] takes everything"
    hint = f"put it above {path[0]}[{whole}]"
    return Flaw(path, message, hint, warns=True, code=UNREACHABLE)


def _text(match: Shape) -> str:
    """What two matches have in common that mean the same; their names do not count."""
    given: dict[str, Any] = match.model_dump(mode="json", by_alias=True, exclude_none=True)
    given.pop("name", None)
    said = {key: value for key, value in given.items() if value not in ("", 0, False) and value != []}
    return json.dumps(said, sort_keys=True)


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A match by the beginning of the path, and all else that it demands."""

    path: _Path
    prefix: str
    port: int
    method: str
    authority: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    without: Mapping[str, str]


def overlapped(routes: Sequence[HTTPRoute]) -> Iterator[Flaw]:
    """Warnings for matches of a path whose beginning an earlier match takes, all else being the same."""
    earlier: dict[str, list[_Prefix]] = {}
    lengths: list[int] = []
    left = _COMPARISONS
    for one in _prefixes(routes):
        # Only lengths that occur: of a prefix of a million letters not every beginning is looked up.
        for end in lengths[: bisect_left(lengths, len(one.prefix))]:
            others = earlier.get(one.prefix[:end], ())
            left -= len(others) + end // _LETTERS
            if left < 0:
                return
            if (other := next((other for other in others if _covered(other, one)), None)) is not None:
                number, place = other.path[1], other.path[3]
                message = f"http[{number}].match[{place}] takes {other.prefix!r}: this one is never used"
                hint = f"put it above http[{number}].match[{place}]"
                yield Flaw(one.path, message, hint, warns=True, code=INEFFECTIVE)
                break
        earlier.setdefault(one.prefix, []).append(one)
        at = bisect_left(lengths, len(one.prefix))
        if at == len(lengths) or lengths[at] != len(one.prefix):
            lengths.insert(at, len(one.prefix))


def _prefixes(routes: Sequence[HTTPRoute]) -> Iterator[_Prefix]:
    seen: set[str] = set()
    whole = False
    for number, route in enumerate(routes):
        whole = whole or not route.match
        for place, match in enumerate(route.match or ()):
            if whole or match.uri is None or not match.uri.prefix or (text := _text(match)) in seen:
                continue
            seen.add(text)
            yield _Prefix(
                path=("http", number, "match", place),
                prefix=match.uri.prefix,
                port=match.port or 0,
                method=_demand(match.method) or "exact:GET",
                authority=_demand(match.authority),
                headers=_demands(match.headers),
                query=_demands(match.query_params),
                without=_demands(match.without_headers),
            )


def _demand(match: StringMatch | None) -> str:
    if match is None:
        return ""
    return f"exact:{match.exact}" if match.exact else f"prefix:{match.prefix}" if match.prefix else ""


def _demands(matches: Mapping[str, StringMatch] | None) -> dict[str, str]:
    return {name: _demand(match) for name, match in (matches or {}).items()}


def _covered(wide: _Prefix, narrow: _Prefix) -> bool:
    """Istio's comparison; a demand of the earlier match may go on where that of the later one ends."""
    if wide.port != narrow.port or not wide.method.startswith(narrow.method):
        return False
    if not wide.authority.startswith(narrow.authority):
        return False
    return all(
        first.keys() == second.keys() and all(text.startswith(second[name]) for name, text in first.items())
        for first, second in (
            (wide.headers, narrow.headers),
            (wide.query, narrow.query),
            (wide.without, narrow.without),
        )
    )
