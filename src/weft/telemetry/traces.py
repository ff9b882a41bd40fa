"""Finding traces: which there were, how long they took, what failed in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from weft.telemetry.archive import Archive
from weft.telemetry.otlp import describe
from weft.telemetry.waterfall import title
from weft.units import parse_duration

_LIMIT: Final = 50
_MOST: Final = 500
_SINCE: Final = "1h"
_LONGEST: Final = "8760h"
_ROUND_US: Final = 60_000_000
_ORDERS: Final = {"newest": "began DESC", "slowest": "took DESC"}
_FAILED: Final = frozenset({"", "0", "false"})

_SEARCH: Final = """
SELECT trace, min(start) AS began, max(start + duration) - min(start) AS took, count(*), sum(failed),
       json_group_array(DISTINCT namespace || '/' || service)
FROM span WHERE start >= ? AND start < ? GROUP BY trace
HAVING began >= ? AND began < ? AND took >= ? AND took <= ? AND (? = 0 OR sum(failed) > 0)
   AND (? = '' OR sum(? IN (service, instance, rtrim(rtrim(instance, '0123456789'), '-'))
                      AND ? IN ('', namespace)) > 0)
ORDER BY {order} LIMIT ?
"""
_FIRST: Final = "SELECT namespace, service, instance, body FROM span WHERE trace = ? ORDER BY start LIMIT ?"
_LOOKED_AT: Final = 20


def search(archive: Archive, asked: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    """The question ``traces``: since (1h) or from and to, service, errors, slow, most, sort, limit.

    docs/reference/telemetry.md says what they are.

    Raises:
        ValueError: a parameter cannot be read; says which.
    """
    since = _time(asked, "from", now_ms - _ms(asked, "since", _SINCE))
    until = _time(asked, "to", now_ms)
    order = asked.get("sort") or "newest"
    if order not in _ORDERS:
        raise ValueError(f"sort: {order[:20]!r} is none: write {' or '.join(_ORDERS)}")
    namespace, slash, name = asked.get("service", "").partition("/")
    if not slash:
        namespace, name = "", namespace
    rows = archive.ask(
        _SEARCH.format(order=_ORDERS[order]),
        (
            # A trace that began in that time, with all of its spans.
            since * 1_000 - _ROUND_US,
            until * 1_000 + _ROUND_US,
            since * 1_000,
            (until + 1) * 1_000,
            _ms(asked, "slow", "0s") * 1_000,
            _ms(asked, "most", _LONGEST) * 1_000,
            int(asked.get("errors", "") not in _FAILED),
            name,
            name,
            namespace,
            _number(asked),
        ),
    )
    found = [
        {
            "trace": trace.hex(),
            "start": began // 1_000,
            "duration": took / 1_000,
            "spans": spans,
            "errors": failed,
            "services": sorted(msgspec.json.decode(services)),
            "root": _root(archive, trace),
        }
        for trace, began, took, spans, failed, services in rows
    ]
    return {"from": since, "to": until, "traces": found}


def _root(archive: Archive, trace: bytes) -> dict[str, Any]:
    """Where it began: the first span without a parent, or else the first."""
    rows = archive.ask(_FIRST, (trace, _LOOKED_AT))
    spans = [(row[:3], describe(row[3])) for row in rows]
    known = {span["spanId"] for _, span in spans}
    (namespace, service, instance), span = next(
        (one for one in spans if one[1]["parentId"] not in known), spans[0]
    )
    return {
        "namespace": namespace,
        "service": service,
        "instance": instance,
        "title": title(span),
        "code": span["attributes"].get("http.status_code", ""),
    }


def _ms(asked: Mapping[str, str], name: str, default: str) -> int:
    try:
        return int(parse_duration(asked.get(name) or default).total_seconds() * 1_000)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _time(asked: Mapping[str, str], name: str, default: int) -> int:
    """A time in ms since the epoch."""
    text = asked.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 15):
        raise ValueError(f"{name}: {text[:20]!r} is no time: write milliseconds since the epoch")
    return int(text)


def _number(asked: Mapping[str, str]) -> int:
    text = asked.get("limit", "") or str(_LIMIT)
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= _MOST):
        raise ValueError(f"limit: {text[:20]!r} is not a number from 1 to {_MOST}")
    return int(text[:9])
