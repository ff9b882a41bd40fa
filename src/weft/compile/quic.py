"""HTTP/3: HTTPS listeners of a gateway served over QUIC as well, at the UDP port of the same number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.memo import Memo
from weft.compile.settings import POST_QUANTUM
from weft.names import HTTP3_ANNOTATION

_REMEMBERED: Final = 24 * 60 * 60
"""For how many seconds a client may believe that there is HTTP/3."""


def asked_for(annotations: Mapping[str, str] | None) -> bool:
    """Whether a Gateway of either API wants HTTP/3."""
    return (annotations or {}).get(HTTP3_ANNOTATION, "").lower() == "true"


def possible(chain: ir.FilterChain) -> bool:
    """Envoy asks no client for a certificate over QUIC, and limits no key exchange: both stay with TCP."""
    return (
        isinstance(chain.handler, ir.HttpHandler)
        and chain.tls is not None
        and chain.tls.trust is None
        and chain.tls.limits != POST_QUANTUM
    )


def offer(port: int) -> str:
    """What ``alt-svc`` says to clients of HTTPS."""
    return f'h3=":{port}"; ma={_REMEMBERED}'


def name_of(listener: str) -> str:
    """The name of a listener for datagrams, as Istio has it: ``udp_0.0.0.0_443``."""
    return f"udp_{listener}"


def beside(listener: ir.Listener, chains: Iterable[ir.FilterChain]) -> ir.Listener | None:
    """The listener for QUIC next to one for TCP, with those of the chains that are possible there."""
    found = tuple(_over_quic(chain) for chain in chains if possible(chain))
    if not found:
        return None
    return replace(listener, name=name_of(listener.name), chains=found, inspect_tls=False, quic=True)


def _over_quic(chain: ir.FilterChain) -> ir.FilterChain:
    assert isinstance(chain.handler, ir.HttpHandler)
    assert chain.tls is not None
    return replace(
        chain,
        handler=replace(chain.handler, version=ir.HttpVersion.HTTP3),
        tls=replace(chain.tls, alpn=("h3",), limits=ir.TlsLimits()),
    )


def told(table: ir.RouteTable, other: str) -> ir.RouteTable:
    """A table whose answers name another way to the same."""
    return replace(table, response_headers=ir.HeaderEdit(set=(("alt-svc", other),)))


Part = tuple[tuple[ir.Listener, ...], tuple[ir.RouteTable, ...]]


def with_http3(
    listeners: tuple[ir.Listener, ...], tables: tuple[ir.RouteTable, ...], wanted: frozenset[str], memo: Memo
) -> Part:
    """Listeners and tables with HTTP/3 for the tables that are ``wanted``."""
    found: list[ir.Listener] = []
    ports: dict[str, int] = {}
    for listener in listeners:
        chains = [
            chain
            for chain in listener.chains
            if isinstance(chain.handler, ir.HttpHandler) and chain.handler.routes in wanted
        ]
        made = beside(listener, chains)
        if made is None:
            continue
        found.append(memo.same(made))
        for chain in made.chains:
            if isinstance(chain.handler, ir.HttpHandler) and isinstance(chain.handler.routes, str):
                ports[chain.handler.routes] = listener.port
    if not found:
        return listeners, tables
    offered = (
        memo(told, table, offer(ports[table.name])) if table.name in ports else table for table in tables
    )
    return (*listeners, *found), tuple(offered)
