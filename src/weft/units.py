"""Durations, sizes and fractions as people write them. A number without a unit is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_NS: Final = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ns": 1,
}
_PART: Final = re.compile(r"(?P<whole>[0-9]*)\.?(?P<part>[0-9]*)(?P<unit>ms|us|µs|μs|ns|h|m|s)")
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[KMGT])i?B?")
_SIZE_TEXT: Final = 20
_LONGEST_NS: Final = 2**63 - 1
_GATEWAY_API: Final = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")

MILLIONTHS: Final = 1_000_000


def parse_duration(text: object) -> timedelta:
    """Read a Go duration: ``250ms``, ``1.5s``, ``1h15m``. Rounds to whole microseconds.

    Raises:
        ValueError: for a bare number (it has no unit) and for anything else.
    """
    return timedelta(microseconds=round(nanoseconds(text) / 1_000))


def nanoseconds(text: object) -> int:
    """Read a Go duration exactly; what is smaller than a nanosecond is cut off.

    Raises:
        ValueError: as ``parse_duration``.
    """
    if isinstance(text, str) and text:
        body = text[1:] if text[0] in "+-" else text
        if body == "0":
            return 0
        parts = list(_PART.finditer(body))
        if (
            body
            and "".join(part[0] for part in parts) == body
            and all(p["whole"] or p["part"] for p in parts)
        ):
            if any(len(part[0]) > 40 for part in parts):
                raise ValueError(f"{text[:40]!r} is longer than anybody can wait")
            total = 0
            for part in parts:
                unit = _NS[part["unit"]]
                digits = part["part"]
                total += int(part["whole"] or "0") * unit + int(digits or "0") * unit // 10 ** len(digits)
            if total > _LONGEST_NS:
                raise ValueError(f"{text[:40]!r} is longer than anybody can wait")
            return -total if text[0] == "-" else total
    raise ValueError(f"{text!r} is not a duration: write a number and a unit, like '250ms'")


def parse_size(text: object) -> int:
    """Read ``256MiB``, ``1.5GiB`` or, as Kubernetes writes it, ``256Mi``: bytes.

    Raises:
        ValueError: for a bare number (it has no unit) and for anything else.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) and len(text) <= _SIZE_TEXT else None
    if match is None:
        raise ValueError(f"{str(text)[:40]!r} is not a size: write a number and a unit, like '256MiB'")
    return int(float(match["number"]) * 1024 ** (1 + "KMGT".index(match["unit"])))


def parse_gateway_duration(text: object) -> timedelta:
    """Read a Gateway API duration (GEP-2257): whole numbers, at most four parts, no sign.

    Raises:
        ValueError: when the text has another form.
    """
    if not isinstance(text, str) or not _GATEWAY_API.fullmatch(text):
        raise ValueError(f"{text!r} is not a Gateway API duration: write it like '500ms', '10s' or '1h30m'")
    return parse_duration(text)


def format_duration(value: timedelta) -> str:
    """Write a duration the short way: ``250ms``, ``1.5s``, ``2m0s`` as Go prints it."""
    us = round(value / timedelta(microseconds=1))
    sign, us = ("-", -us) if us < 0 else ("", us)
    if us == 0:
        return "0s"
    if us < 1_000:
        return f"{sign}{us}µs"
    if us < 1_000_000:
        return f"{sign}{us / 1_000:g}ms"
    hours, rest = divmod(us, 3_600_000_000)
    minutes, rest = divmod(rest, 60_000_000)
    seconds = f"{rest / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{int(hours)}h{int(minutes)}m{seconds}"
    return f"{sign}{int(minutes)}m{seconds}" if minutes else f"{sign}{seconds}"


def millionths(percent: float) -> int:
    """A percentage (0-100) as whole millionths, Envoy's finest fraction.

    Raises:
        ValueError: outside 0-100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent:g} is not a percentage: write a number from 0 to 100")
    return round(percent * 10_000)
