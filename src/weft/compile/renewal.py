"""Connections that stand were verified when they began. Once something is revoked, all are made anew.

Envoy ends the connections of a filter chain, and the pools of a cluster, when their configuration changes:
it lets requests end, and cuts what is left when its drain time is over. A revocation begins an epoch, whose
number is written into what mutual TLS within the mesh passes through. The first one writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.memo import Memo

_KEY: Final = "epoch"


def renewed(proxy: ir.Proxy, epoch: int, memo: Memo) -> ir.Proxy:
    """The proxy in an epoch. Equal inputs give the very same objects."""
    if not epoch:
        return proxy
    clusters, meshed = memo(_clusters, proxy.clusters, epoch)
    return replace(
        proxy,
        listeners=tuple(memo(_listener, listener, meshed, epoch) for listener in proxy.listeners),
        clusters=clusters,
    )


def _clusters(clusters: tuple[ir.Cluster, ...], epoch: int) -> tuple[tuple[ir.Cluster, ...], frozenset[str]]:
    """All, and the names of those that lead to peers of the mesh."""
    found = tuple(_cluster(cluster, epoch) for cluster in clusters)
    pairs = zip(clusters, found, strict=True)
    return found, frozenset(new.name for old, new in pairs if new is not old)


def _cluster(cluster: ir.Cluster, epoch: int) -> ir.Cluster:
    tls = cluster.tls
    if tls is None or tls.certificate is None or tls.certificate.source is not ir.SecretFrom.FILE:
        return cluster
    return replace(cluster, metadata=(*cluster.metadata, (_KEY, str(epoch))))


def _listener(listener: ir.Listener, meshed: frozenset[str], epoch: int) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, meshed, epoch))


def _chain(chain: ir.FilterChain, meshed: frozenset[str], epoch: int) -> ir.FilterChain:
    """Bytes are passed on over a connection of their own, which ends with the one they come by."""
    tls, handler = chain.tls, chain.handler
    verified = tls is not None and tls.trust is not None and tls.trust.source is ir.SecretFrom.FILE
    passed = isinstance(handler, ir.TcpHandler) and any(
        destination.cluster in meshed for destination in handler.destinations
    )
    return replace(chain, epoch=epoch) if verified or passed else chain
