"""Endpoints on other networks: reached through the gateways there (Istio: ep_filters.go)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import lcm

from weft.ir.endpoint import Endpoint, Locality, NetworkGateway


def reachable(
    endpoints: Iterable[Endpoint], gateways: tuple[NetworkGateway, ...], network: str
) -> Iterator[Endpoint]:
    """What a client on ``network`` connects to: endpoints that it reaches, gateways in place of the others.

    A network without gateways is one that everybody reaches. Gateways pass mutual TLS only, by its SNI; they
    share what the endpoints behind them weigh, so all weights are multiplied until they divide evenly.
    """
    if not gateways:
        yield from endpoints
        return
    by_network: dict[str, list[NetworkGateway]] = {}
    for gateway in gateways:
        by_network.setdefault(gateway.network, []).append(gateway)
    scale = lcm(*(len(group) for group in by_network.values()))
    remote: dict[tuple[Locality, NetworkGateway], int] = {}
    for endpoint in endpoints:
        weight = max(1, endpoint.weight) * scale
        through = by_network.get(endpoint.network, ())
        if not through or endpoint.network in {"", network}:
            if endpoint.address:
                yield replace(endpoint, weight=weight)
        elif endpoint.mesh_tls:
            for gateway in through:
                key = (endpoint.locality, gateway)
                remote[key] = remote.get(key, 0) + weight // len(through)
    for (place, gateway), weight in sorted(remote.items()):
        yield Endpoint(
            address=gateway.address,
            port=gateway.port,
            weight=weight,
            locality=place,
            network=gateway.network,
            mesh_tls=True,
        )
