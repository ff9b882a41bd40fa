"""Numbers, times and names as people read them. What nothing is known about is ``–``, never 0."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

NOTHING: Final = "–"
_BYTES: Final = ("B", "KB", "MB", "GB", "TB")
_GOOD: Final = 0.999
_FAIR: Final = 0.99


def rate(value: float | None) -> str:
    """Events a second: ``0.2``, ``12.5``, ``1,240``."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share of 1 in percent: ``99.95 %``. Only what is whole says ``100 %``, only nothing ``0 %``."""
    if value is None:
        return NOTHING
    percent = value * 100
    if percent in {0, 100}:
        return f"{percent:.0f} %"
    if percent > 99:
        return f"{min(percent, 99.99):.2f} %"
    return f"{max(percent, 0.1):.1f} %"


def milliseconds(value: float | None) -> str:
    """A duration given in ms: ``0.4 ms``, ``12 ms``, ``1.20 s``, ``2m 5s``."""
    if value is None:
        return NOTHING
    if value < 9.95:
        return f"{value:.1f} ms"
    if value < 999.5:
        return f"{value:.0f} ms"
    if value < 99_950:
        return f"{value / 1000:.2f} s" if value < 9_995 else f"{value / 1000:.1f} s"
    return span(value)


def count(value: float | None) -> str:
    """A whole number with its thousands: ``12,400``."""
    return NOTHING if value is None else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes: ``512 B``, ``1.5 KB``, ``12 MB``."""
    if value is None:
        return NOTHING
    step = 0
    while value >= 1000 and step < len(_BYTES) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.1f} {_BYTES[step]}" if step and value < 10 else f"{value:.0f} {_BYTES[step]}"


def cores(value: float | None) -> str:
    """CPUs, in thousandths below one, as Kubernetes writes them: ``12m``, ``1.25``."""
    if value is None:
        return NOTHING
    if 0 < value < 0.001:
        return "<1m"
    return f"{value * 1000:.0f}m" if value < 0.9995 else f"{value:.2f}"


def span(value: float | None) -> str:
    """A length of time given in ms, by its two largest units: ``3d 4h``, ``12m 5s``, ``40s``."""
    if value is None:
        return NOTHING
    seconds = max(0, round(value / 1000))
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    for place, (name, length) in enumerate(units):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            if place + 1 < len(units) and rest >= units[place + 1][1]:
                smaller, size_s = units[place + 1]
                return f"{whole}{name} {rest // size_s}{smaller}"
            return f"{whole}{name}"
    return "0s"


def instant(value: object) -> float | None:
    """A time in ms since the epoch, from one or from RFC 3339; None for none."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp() * 1000
    except ValueError:
        return None


def ago(value: object) -> str:
    """How long a time is past: ``5s ago``, ``3d 4h ago``; coming ones ``in 5m``."""
    then = instant(value)
    if then is None:
        return NOTHING
    passed = time.time() * 1000 - then
    if passed < 0:
        return f"in {span(-passed)}"
    return "just now" if passed < 2_000 else f"{span(passed)} ago"


def stamp(value: object) -> str:
    """A time as ``2026-11-21 20:15:03 UTC``; scripts show it in the reader's time zone."""
    then = instant(value)
    return NOTHING if then is None else f"{datetime.fromtimestamp(then / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(value: object) -> str:
    """A time for the attribute ``datetime``."""
    then = instant(value)
    return "" if then is None else datetime.fromtimestamp(then / 1000, UTC).isoformat(timespec="seconds")


def health(success: float | None) -> str:
    """The class of a share of successes: ``good``, ``fair``, ``bad``, or ``none``."""
    if success is None:
        return "none"
    return "good" if success >= _GOOD else "fair" if success >= _FAIR else "bad"


def spark(values: Sequence[float | None]) -> str:
    """A path of these values in a box of 100 by 20; what is not known is a gap."""
    known = [value for value in values if value is not None]
    top = max(known, default=0) or 1
    step = 100 / max(1, len(values) - 1)
    path, drawing = [], False
    for place, value in enumerate(values):
        if value is not None:
            path.append(f"{'L' if drawing else 'M'}{place * step:.1f} {19 - 18 * value / top:.1f}")
        drawing = value is not None
    return "".join(path)


def principal(text: str) -> str:
    """The part of an identity that differs: ``shop/orders`` of ``spiffe://cluster.local/ns/shop/sa/orders``."""
    parts = text.split("/")
    if len(parts) == 7 and parts[3] == "ns" and parts[5] == "sa":
        return f"{parts[4]}/{parts[6]}"
    if len(parts) == 6 and parts[3:5] == ["weft", "node"]:
        return f"node {parts[5]}"
    return text


_RULE: Final = re.compile(r"ns\[(?P<namespace>[^\]]*)\]-policy\[(?P<name>[^\]]*)\]-rule\[(?P<rule>\d+)\]")


def policy(text: str) -> tuple[str, str, str]:
    """Namespace, name and rule of a policy as proxies tell them; namespace and rule may be empty."""
    match = _RULE.fullmatch(text)
    if match is not None:
        return match["namespace"], match["name"], match["rule"]
    namespace, slash, name = text.partition("/")
    return (namespace, name, "") if slash else ("", text, "")


def link(*steps: object, **query: object) -> str:
    """A path of these steps, each quoted, with those of the query that are not empty."""
    path = "/" + "/".join(quote(str(step), safe="") for step in steps)
    return address(path, query)


def address(path: str, query: Mapping[str, object]) -> str:
    """A path with those of the query that are not empty."""
    asked = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(asked)}" if asked else path


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "rate": rate, "share": share, "ms": milliseconds, "count": count, "size": size, "span": span,
    "cores": cores, "ago": ago, "stamp": stamp, "iso": iso, "health": health, "principal": principal,
    "instant": instant, "spark": spark, "policy": policy,
}  # fmt: skip
