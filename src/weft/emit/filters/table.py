"""The ordered table of HTTP filters. Its order is behaviour; each row fills its own per-route key only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weft.emit.filters import (
    cluster_discovery,
    cors,
    external_authorization,
    fault,
    forward_proxy,
    grpc_messages,
    jwt,
    local_rate_limit,
    rate_limit_service,
    rbac,
    router,
    session,
)
from weft.ir.listener import Direction
from weft.protos import hcm_v3
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.ir.listener import HttpHandler
    from weft.ir.route import Route
    from weft.protos import well_known

_CLIENT_SIDE: Final = frozenset({Direction.OUTBOUND, Direction.GATEWAY})
_WAY_IN: Final = frozenset({Direction.INBOUND, Direction.GATEWAY})
_EVERYWHERE: Final = frozenset(Direction)


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter: where it runs, what it does everywhere, what a route may add.

    ``wanted``: whether a connection manager needs it, unless all do. ``each``: there are as many of it as a
    connection manager wants; ``named``: they have names of their own, by which ``per_route_named`` has them.
    ``on_demand``: it only runs on routes that have a configuration for it.
    """

    name: str
    directions: frozenset[Direction]
    base: Callable[[], Message] | None
    per_route: Callable[[Route], Message | None] | None = None
    wanted: Callable[[HttpHandler], bool] | None = None
    on_demand: bool = False
    each: Callable[[HttpHandler], Iterable[Message]] | None = None
    named: Callable[[HttpHandler], Iterable[tuple[str, Message]]] | None = None
    per_route_named: Callable[[Route], Iterable[tuple[str, Message]]] | None = None

    def configurations(self, unit: HttpHandler) -> Iterable[tuple[str, Message]]:
        """Of the filters of this kind in a connection manager, each with its name."""
        if self.named is not None:
            return self.named(unit)
        if self.each is not None:
            return ((self.name, made) for made in self.each(unit))
        if self.base is None or (self.wanted is not None and not self.wanted(unit)):
            return ()
        return ((self.name, self.base()),)


FILTERS: Final = (
    # It begins the request anew when the cluster is there: before anything has been done to it.
    HttpFilter(
        cluster_discovery.NAME,
        _CLIENT_SIDE,
        cluster_discovery.base,
        cluster_discovery.per_route,
        wanted=cluster_discovery.wanted,
    ),
    # Who decides in the proxy's place may say who the user is.
    HttpFilter(external_authorization.NAME, _WAY_IN, None, named=external_authorization.of_policies),
    # Who the user is: routes may depend on it, and so may all that comes after.
    HttpFilter(jwt.NAME, _WAY_IN, None, each=jwt.each),
    # Whoever may not do what is asked for learns nothing else, and costs nothing more.
    HttpFilter(rbac.NAME, _WAY_IN, None, each=rbac.each),
    HttpFilter(fault.NAME, _CLIENT_SIDE, fault.base, fault.per_route),  # fail first: spend nothing
    HttpFilter(cors.NAME, _CLIENT_SIDE, cors.base, cors.per_route),  # a preflight never reaches a service
    # Before anything costs something: what is too much is turned away by the proxies themselves first.
    HttpFilter(local_rate_limit.NAME, _WAY_IN, None, each=local_rate_limit.each),
    HttpFilter(rate_limit_service.NAME, _WAY_IN, None, each=rate_limit_service.each),
    # What routes ask for: the proxy's own rules have let it pass, so that nobody is asked in vain.
    HttpFilter(
        external_authorization.NAME,
        _CLIENT_SIDE,
        None,
        on_demand=True,
        named=external_authorization.of_routes,
        per_route_named=external_authorization.per_route,
    ),
    # It chooses the endpoint: after all that may answer or change the request.
    HttpFilter(session.NAME, _CLIENT_SIDE, session.base, session.per_route, on_demand=True),
    # Names are looked up for what was not answered before.
    HttpFilter(forward_proxy.NAME, _CLIENT_SIDE, forward_proxy.base, wanted=forward_proxy.wanted),
    # Next to the application: only what reaches it has messages. Answers come to them from below.
    HttpFilter(grpc_messages.NOTE, _EVERYWHERE, grpc_messages.note, wanted=grpc_messages.wanted),
    HttpFilter(grpc_messages.COUNT, _EVERYWHERE, grpc_messages.count, wanted=grpc_messages.wanted),
    HttpFilter(router.NAME, _EVERYWHERE, None, each=router.each),  # terminal: always last
)


def chain(unit: HttpHandler, direction: Direction) -> list[hcm_v3.HttpFilter]:
    """The filters of a connection manager, in order."""
    return [
        hcm_v3.HttpFilter(name=name, typed_config=pack(config), disabled=row.on_demand)
        for row in FILTERS
        if direction in row.directions
        for name, config in row.configurations(unit)
    ]


def per_route(route: Route) -> Iterator[tuple[str, well_known.Any]]:
    """What each filter does differently on one route, by the filter's name."""
    for row in FILTERS:
        if row.per_route is not None:
            config = row.per_route(route)
            if config is not None:
                yield row.name, pack(config)
        if row.per_route_named is not None:
            for name, config in row.per_route_named(route):
                yield name, pack(config)
