"""The outbound side of a sidecar: listeners and route tables, egress listener by egress listener."""

from __future__ import annotations

from dataclasses import dataclass

from weft import ir
from weft.compile import explicit_proxy
from weft.compile.gatewayapi.mesh import meshed
from weft.compile.istio.sidecar import UNIX, WHOLE, Egress
from weft.compile.mesh_listeners import listeners_of, stream_socket
from weft.compile.mesh_routes import Routing, Tables, routing_of, streams_of, tables_of
from weft.compile.outbound import ANYWHERE, port_listener
from weft.compile.outlook import Outlook, spoken
from weft.compile.routes import table
from weft.compile.rules import Rules
from weft.compile.service import Labels
from weft.compile.settings import Settings
from weft.compile.view import View
from weft.compile.world import World


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """``hosts`` are those of all ports, for an explicit proxy; ``streams`` as in ``Tables``."""

    listeners: tuple[ir.Listener, ...]
    tables: tuple[ir.RouteTable, ...]
    hosts: explicit_proxy.ByPort
    streams: frozenset[tuple[str, int]]


def sending_of(
    world: World,
    outlooks: tuple[Outlook, ...],
    rules: Rules,
    labels: Labels,
    attachment: ir.Attachment,
    settings: Settings,
) -> Sending:
    """What the listeners of a Sidecar, or its one listener for everything, come to.

    An earlier listener has an address and port, and the table of a port, for itself.
    """
    listeners: dict[str, ir.Listener] = {}
    tables: dict[str, ir.RouteTable] = {}
    hosts: explicit_proxy.ByPort = ()
    streams: frozenset[tuple[str, int]] = frozenset()
    claimed: set[int] = set()
    for outlook in outlooks:
        port = outlook.egress.port
        made = _tables(world, outlook, rules, labels, settings)
        streams = streams | made.streams if streams else made.streams
        for item in _of_port(outlook, made, settings, world):
            if port is not None or _port(item.name) not in claimed:
                tables.setdefault(item.name, item)
        for listener in _listeners(world, outlook, rules, labels, attachment, settings):
            listeners.setdefault(listener.name, listener)
        if port is None:
            hosts = (*hosts, *made.hosts)
        else:
            claimed.add(port)
    ordered = tuple(tables[name] for name in sorted(tables))
    return Sending(tuple(listeners.values()), ordered, hosts, streams)


def _port(table: str) -> int:
    """The port of a table's name: ``80``, ``host:80``; 0 for a socket."""
    number = table.rpartition(":")[2]
    return int(number) if number.isdigit() else 0


def _tables(world: World, outlook: Outlook, rules: Rules, labels: Labels, settings: Settings) -> Tables:
    memo, view = world.memo, outlook.view
    routes = memo(meshed, world.gateway_facts, view, rules, memo)
    routing = memo(routing_of, view, outlook.resources, routes, settings)
    return memo(tables_of, view, routing, rules, routing.bearer(labels), settings, memo)


def _of_port(outlook: Outlook, made: Tables, settings: Settings, world: World) -> tuple[ir.RouteTable, ...]:
    """The tables of a listener; one with a port has that port's, if only to say that nobody is there."""
    egress, memo = outlook.egress, world.memo
    if egress.port is None:
        return made.tables
    if egress.port == 0 and not egress.protocol.may_be_http:
        return ()
    if egress.explicit or not egress.port:
        tunnels = memo(explicit_proxy.tunnels_of, outlook.view, settings) if egress.explicit else ()
        return (memo(explicit_proxy.table, made.hosts, tunnels, settings, _name(egress)),)
    name = str(egress.port)
    found = tuple(item for item in made.tables if _port(item.name) == egress.port)
    return found if any(item.name == name for item in found) else (*found, memo(table, name, (), settings))


def _name(egress: Egress) -> str:
    return str(egress.port) if egress.port else egress.bind


def _listeners(
    world: World,
    outlook: Outlook,
    rules: Rules,
    labels: Labels,
    attachment: ir.Attachment,
    settings: Settings,
) -> tuple[ir.Listener, ...]:
    memo, egress = world.memo, outlook.egress
    redirected = attachment.capture in {ir.Capture.REDIRECT, ir.Capture.SECCOMP}
    asked = egress.port is not None or attachment.capture is ir.Capture.NONE
    bound = egress.bound or (egress is not WHOLE and asked and not redirected)
    if not (bound or redirected):
        return ()
    bind = egress.bind or (explicit_proxy.own_address(attachment) if bound else "")
    if egress.explicit and egress.port:
        own = bind or explicit_proxy.own_address(attachment)
        return (memo(explicit_proxy.proxy_listener, own, egress.port, _name(egress)),)
    if egress.port == 0 and egress.protocol.may_be_http:
        return _socket(outlook, settings, world) if bind.startswith(UNIX) else ()
    view = outlook.view if egress.port is None else memo(spoken, outlook.view, egress.protocol)
    streams = _streams(world, outlook, view, settings)
    if egress.port == 0:
        if not bind.startswith(UNIX):
            return ()
        return (memo(stream_socket, view, streams, rules, streams.bearer(labels), bind, settings, memo),)
    listeners = memo(
        listeners_of,
        view,
        streams,
        rules,
        streams.bearer(labels),
        world.headless(view),
        bind,
        bound,
        settings,
        memo,
    )
    if not listeners and egress.port and egress.protocol.may_be_http:
        name = str(egress.port)
        return (memo(port_listener, bind or ANYWHERE, egress.port, name, (), False, True, bound, settings),)
    return listeners


def _streams(world: World, outlook: Outlook, view: View, settings: Settings) -> Routing:
    """HTTP rules come and go without touching a listener."""
    layer4 = tuple(rule for rule in outlook.resources if rule.spec.tls or rule.spec.tcp)
    return world.memo(streams_of, view, layer4, settings)


def _socket(outlook: Outlook, settings: Settings, world: World) -> tuple[ir.Listener, ...]:
    """A Unix socket where HTTP is spoken to all services that are shown there."""
    bind = outlook.egress.bind
    return (world.memo(port_listener, bind, 0, bind, (), False, True, True, settings),)
