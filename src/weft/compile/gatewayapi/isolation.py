"""Which of the listeners at a port a host name belongs to: the one that names it most exactly."""

from __future__ import annotations

from collections.abc import Iterable

from weft import ir
from weft.compile.gatewayapi.listeners import Listener
from weft.compile.hosts import covers, specificity, with_port
from weft.compile.memo import Memo

MISDIRECTED = 421
"""The client uses a connection that was made for another host: it shall open one for this host."""


def belongs(name: str, listener: Listener, rivals: Iterable[Listener]) -> bool:
    """Whether connections for ``name``, which a listener's host name covers, are that listener's."""
    return not any(
        rival is not listener
        and rival.hostname != listener.hostname
        and covers(rival.hostname, name)
        and covers(listener.hostname, rival.hostname)
        for rival in rivals
    )


def misdirected(
    listener: Listener, rivals: Iterable[Listener], known: Iterable[str], memo: Memo
) -> tuple[ir.VirtualHost, ...]:
    """Hosts of other listeners at the same port, for requests on a connection that is not theirs.

    ``known`` are the names that the listener answers itself. What no listener has answers 404.
    """
    taken = {*known, listener.hostname}
    names = {rival.hostname for rival in rivals if rival is not listener} - taken
    return tuple(memo(_elsewhere, name, listener.port) for name in sorted(names, key=specificity))


def _elsewhere(name: str, port: int) -> ir.VirtualHost:
    route = ir.Route(name="misdirected", match=ir.RequestMatch(), action=ir.Respond(status=MISDIRECTED))
    return ir.VirtualHost(name=with_port(name, port), domains=(name,), routes=(route,))
