"""OTLP messages by the bytes: what does not change of a series is made once, and serves each time.

As messages of protobuf, all labels of all series would be held as objects, and gone through each time.
Numbers of fields: opentelemetry/proto/metrics/v1/metrics.proto, common/v1/common.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

_CUMULATIVE: Final = b"\x10\x02"  # aggregation_temporality (2): AGGREGATION_TEMPORALITY_CUMULATIVE
_MONOTONIC: Final = b"\x18\x01"  # Sum.is_monotonic (3)
_START_AND_TIME: Final = Struct("<BQBQ")  # start_time_unix_nano (2), time_unix_nano (3), fixed64
_AS_INT: Final = Struct("<Bq")  # NumberDataPoint.as_int (6), sfixed64
_AS_DOUBLE: Final = Struct("<Bd")  # NumberDataPoint.as_double (4)
_COUNT_AND_SUM: Final = Struct("<BQBd")  # HistogramDataPoint.count (4), fixed64; .sum (5)
_POINT_ATTRIBUTE, _HISTOGRAM_ATTRIBUTE = b"\x3a", b"\x4a"  # attributes (7) and (9)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _field(number: int, body: bytes) -> bytes:
    """A field that has a length."""
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def pairs(attributes: Iterable[tuple[str, str]]) -> tuple[bytes, ...]:
    """Each ``KeyValue`` with its length."""
    made = []
    for key, value in attributes:
        body = _field(1, key.encode()) + _field(2, _field(1, value.encode()))
        made.append(_varint(len(body)) + body)
    return tuple(made)


def of_points(attributes: Iterable[tuple[str, str]]) -> bytes:
    """Attributes, as a ``NumberDataPoint`` has them."""
    return b"".join(_POINT_ATTRIBUTE + pair for pair in pairs(attributes))


def of_histograms(attributes: bytes) -> bytes:
    """What ``of_points`` made, as a ``HistogramDataPoint`` has it."""
    made, at = [], 0
    while at < len(attributes):
        length, shift, start = 0, 0, at
        at += 1
        while True:
            byte = attributes[at]
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        at += length
        made.append(_HISTOGRAM_ATTRIBUTE + attributes[start + 1 : at])
    return b"".join(made)


def number(attributes: bytes, began_ns: int, now_ns: int, value: float) -> bytes:
    """A point of a sum or gauge, as its data_points (1) have it."""
    said = _AS_INT.pack(0x31, value) if isinstance(value, int) else _AS_DOUBLE.pack(0x21, value)
    return _field(1, _START_AND_TIME.pack(0x11, began_ns, 0x19, now_ns) + said + attributes)


def histogram(
    attributes: bytes, began_ns: int, now_ns: int, total: float, counts: Sequence[int], bounds: bytes
) -> bytes:
    """A point of a histogram; ``bounds`` by ``bounds_of``."""
    body = (
        _START_AND_TIME.pack(0x11, began_ns, 0x19, now_ns)
        + _COUNT_AND_SUM.pack(0x21, sum(counts), 0x29, total)
        + _field(6, _little("Q", counts))
        + bounds
        + attributes
    )
    return _field(1, body)


def bounds_of(bounds: Sequence[float]) -> bytes:
    """HistogramDataPoint.explicit_bounds (7)."""
    return _field(7, _little("d", bounds))


def _little(kind: str, numbers: Sequence[float]) -> bytes:
    return Struct(f"<{len(numbers)}{kind}").pack(*numbers)


def counter(name: str, points: Iterable[bytes]) -> bytes:
    """A metric whose sums only grow, as ScopeMetrics.metrics (2) has it."""
    return _field(2, _field(1, name.encode()) + _field(7, b"".join(points) + _CUMULATIVE + _MONOTONIC))


def gauge(name: str, points: Iterable[bytes]) -> bytes:
    """A metric that goes up and down."""
    return _field(2, _field(1, name.encode()) + _field(5, b"".join(points)))


def histograms(name: str, unit: str, points: Iterable[bytes]) -> bytes:
    """A metric of distributions."""
    head = _field(1, name.encode()) + (_field(3, unit.encode()) if unit else b"")
    return _field(2, head + _field(9, b"".join(points) + _CUMULATIVE))


def resource(attributes: Iterable[tuple[str, str]]) -> bytes:
    """As ResourceMetrics.resource (1) has it."""
    return _field(1, b"".join(b"\x0a" + pair for pair in pairs(attributes)))


def of_resource(about: bytes, scope: str, metrics: Iterable[bytes]) -> bytes:
    """As ExportMetricsServiceRequest.resource_metrics (1) has it; ``about`` by ``resource``."""
    named = _field(1, _field(1, scope.encode()))
    return _field(1, about + _field(2, named + b"".join(metrics)))
