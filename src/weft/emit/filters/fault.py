"""Fault injection: delay or fail a share of the requests of a route."""

from __future__ import annotations

from typing import Final

from weft.emit.scalars import duration, fraction
from weft.ir.route import Route
from weft.protos import fault_common_v3, fault_v3

NAME: Final = "envoy.filters.http.fault"


def base() -> fault_v3.HTTPFault:
    """No fault but on routes that have one."""
    return fault_v3.HTTPFault()


def per_route(route: Route) -> fault_v3.HTTPFault | None:
    """The fault of one route."""
    fault = route.fault
    if fault is None:
        return None
    made = fault_v3.HTTPFault()
    if fault.delay is not None:
        made.delay.CopyFrom(
            fault_common_v3.FaultDelay(
                fixed_delay=duration(fault.delay), percentage=fraction(fault.delay_fraction)
            )
        )
    if fault.abort_status is not None:
        made.abort.http_status = fault.abort_status
    elif fault.abort_grpc_status is not None:
        made.abort.grpc_status = fault.abort_grpc_status
    if made.HasField("abort"):
        made.abort.percentage.CopyFrom(fraction(fault.abort_fraction))
    return made
