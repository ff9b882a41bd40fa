"""Durations, sizes and fractions as people write them. A number without a unit is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_US: Final = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1, "µs": 1, "ns": 0.001}
_PART: Final = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ms|us|µs|ns|h|m|s)")
_GATEWAY_API: Final = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")

MILLIONTHS: Final = 1_000_000


def parse_duration(text: object) -> timedelta:
    """Read a Go duration: ``250ms``, ``1.5s``, ``1h15m``. Rounds to whole microseconds.

    Raises:
        ValueError: for a bare number (it has no unit) and for anything else.
    """
    if isinstance(text, str) and text:
        body = text.removeprefix("-").removeprefix("+")
        if body == "0":
            return timedelta(0)
        if body and "".join(part[0] for part in _PART.finditer(body)) == body:
            us = sum(float(part["number"]) * _US[part["unit"]] for part in _PART.finditer(body))
            try:
                return timedelta(microseconds=round(-us if text.startswith("-") else us))
            except OverflowError:
                raise ValueError(f"{text[:40]!r} is longer than anybody can wait") from None
    raise ValueError(f"{text!r} is not a duration: write a number and a unit, like '250ms'")


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
    hours, rest = divmod(us, _US["h"])
    minutes, rest = divmod(rest, _US["m"])
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
