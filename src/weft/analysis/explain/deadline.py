"""How long a request may take: the route's word, and a gRPC client's own deadline.

Rules: envoy source/common/grpc/common.cc (getGrpcTimeout, toGrpcTimeout), router.cc (finalTimeout).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from weft.analysis.explain.passage import Passage, duration
from weft.analysis.match import Values
from weft.units import format_duration, parse_duration

if TYPE_CHECKING:
    from weft.protos import route_v3

_DEFAULT: Final = "15s"  # Envoy's, for a route that says nothing
_MILLISECOND: Final = timedelta(milliseconds=1)
_NANOSECONDS: Final = {
    "H": 3_600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 10**3, "n": 1,
}  # fmt: skip
_DIGITS_MAX: Final = 8


def deadline(passage: Passage, action: route_v3.RouteAction) -> str | None:
    """The longest that the request may take; None: for ever."""
    if not _is_own(passage, action):
        return duration(action.timeout) if action.HasField("timeout") else _DEFAULT
    most, own = duration(action.max_grpc_timeout), _said(passage.scene.first("grpc-timeout"))
    if not own:
        return most
    return most if most is not None and own > parse_duration(most) else format_duration(own)


def tell(values: Values, passage: Passage, action: route_v3.RouteAction) -> None:
    """The headers by which the upstream learns of it."""
    limit = passage.answer.timeout
    if not limit:
        return
    milliseconds = parse_duration(limit) // _MILLISECOND
    if not passage.silent:
        values["x-envoy-expected-rq-timeout-ms"] = [str(milliseconds)]
    if _is_own(passage, action):
        values["grpc-timeout"] = [f"{milliseconds}m"]


def _is_own(passage: Passage, action: route_v3.RouteAction) -> bool:
    return passage.question.is_grpc and action.HasField("max_grpc_timeout")


def _said(text: str) -> timedelta:
    """A deadline as gRPC writes it, in whole milliseconds; zero for none, or one that cannot be read."""
    number, unit = text[:-1], _NANOSECONDS.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdecimal()) or len(number) > _DIGITS_MAX:
        return timedelta(0)
    return -(-int(number) * unit // 1_000_000) * _MILLISECOND
