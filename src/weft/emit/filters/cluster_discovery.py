"""Asks the control plane for a cluster that a route leads to and that the proxy has not got (ODCDS).

The request waits meanwhile. On most proxies all clusters are there, and so this is not.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft.emit.scalars import duration
from weft.emit.tls import ads_source
from weft.ir.listener import HttpHandler
from weft.ir.route import Route
from weft.protos import on_demand_v3

NAME: Final = "envoy.filters.http.on_demand"
# Longer than a control plane takes to start again, and than Envoy waits for what another cluster misses
# (15 s): as long as one is not ready it asks for none.
WAIT: Final = timedelta(seconds=20)


def base() -> on_demand_v3.OnDemand:
    """Over the one stream."""
    made = on_demand_v3.OnDemand()
    made.odcds.source.CopyFrom(ads_source())
    made.odcds.timeout.CopyFrom(duration(WAIT))
    return made


def per_route(route: Route) -> on_demand_v3.PerRouteConfig | None:
    """Nothing is asked for on routes to what does not exist: that is answered at once."""
    return None if route.on_demand else on_demand_v3.PerRouteConfig()


def wanted(unit: HttpHandler) -> bool:
    """Only where clusters come on demand."""
    return unit.on_demand
