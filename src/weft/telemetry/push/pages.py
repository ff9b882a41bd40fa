"""Prometheus' text, as the control plane and nodes write it, as OTLP."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from weft.telemetry.push import encode
from weft.telemetry.push.plan import Page

SCOPE: Final = "weft"
_STARTED: Final = re.compile(r"^process_start_time_seconds(?:\{\})? (\S+)$", re.MULTILINE)
_POINTS: Final = 1_000
_NS: Final = 1_000_000_000


def started(page: Page) -> int:
    """When the process that shows a page began (ns since the epoch); 0 if it does not say."""
    found = _STARTED.search(page.text)
    try:
        return int(float(found[1]) * _NS) if found is not None else 0
    except (ValueError, OverflowError):
        return 0


def of_page(page: Page, began_ns: int, now_ns: int) -> Iterator[tuple[bytes, int]]:
    """``resource_metrics`` and points, in parts; its sums began then. One that cannot be read is none."""
    try:
        families = list(text_string_to_metric_families(page.text))
    except ValueError:
        return
    about = encode.resource(page.resource)
    pending: list[bytes] = []
    waiting = 0
    for family in families:
        metric, points = _metric(family, began_ns, now_ns)
        if not points:
            continue
        pending.append(metric)
        waiting += points
        if waiting >= _POINTS:
            yield encode.of_resource(about, SCOPE, pending), waiting
            pending, waiting = [], 0
    if pending:
        yield encode.of_resource(about, SCOPE, pending), waiting


def _metric(family: Any, began_ns: int, now_ns: int) -> tuple[bytes, int]:
    """A family of prometheus-client's; what it says of no kind goes up and down for all that is known."""
    if family.type == "histogram":
        points = list(_spreads(family, began_ns, now_ns))
        return encode.histograms(family.name, "", points), len(points)
    samples = [one for one in family.samples if isfinite(one.value) and not one.name.endswith("_created")]
    if not samples:
        return b"", 0
    points = [
        encode.number(
            encode.of_points((key, value) for key, value in one.labels.items() if value),
            began_ns,
            now_ns,
            float(one.value),
        )
        for one in samples
    ]
    counts = family.type == "counter"
    return (encode.counter if counts else encode.gauge)(samples[0].name, points), len(points)


def _spreads(family: Any, began_ns: int, now_ns: int) -> Iterator[bytes]:
    found: dict[tuple[tuple[str, str], ...], tuple[list[tuple[float, float]], list[float]]] = {}
    for one in family.samples:
        labels = dict(one.labels)
        bound = labels.pop("le", None)
        buckets, total = found.setdefault(tuple(labels.items()), ([], []))
        if bound is not None:
            buckets.append((float(bound), one.value))
        elif one.name.endswith("_sum"):
            total.append(one.value)
    for attributes, (buckets, total) in found.items():
        bounds = [bound for bound, _ in buckets if isfinite(bound)]
        counts = list(_apart([count for _, count in buckets]))
        if len(counts) != len(bounds) + 1 or any(count < 0 for count in counts):
            continue
        tall = encode.of_histograms(encode.of_points(attributes))
        sum_ = total[0] if total and isfinite(total[0]) else 0.0
        yield encode.histogram(tall, began_ns, now_ns, sum_, counts, encode.bounds_of(bounds))


def _apart(counts: Sequence[float]) -> Iterable[int]:
    """Prometheus' buckets hold those below them, too."""
    return (int(count - before) for before, count in zip((0.0, *counts), counts, strict=False))
