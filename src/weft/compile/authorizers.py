"""Authorizers that routes ask for: the listeners that use those routes have them ready.

A route runs a filter that its connection manager has. One that has it not would let the request pass: that is
so of connections that were there before, which their listener serves until they end. So a table whose routes
ask for authorizers has a name of its own for each set of them, and such connections keep the table they had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from weft import ir
from weft.compile.memo import Memo
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key
from weft.names import table_variant


def asked_for(routes: Mapping[Key, HTTPRoute]) -> bool:
    """Whether some route has an ``externalAuth`` filter."""
    return any(
        item.external_auth is not None
        for route in routes.values()
        for rule in route.spec.rules or ()
        for filters in (rule.filters, *(ref.filters for ref in rule.backend_refs or ()))
        for item in filters or ()
    )


@dataclass(frozen=True, slots=True)
class _Variant:
    """A table under its own name, and the authorizers of its routes."""

    table: ir.RouteTable
    authorizers: tuple[ir.Authorizer, ...]


def prepared(proxy: ir.Proxy, memo: Memo) -> ir.Proxy:
    """The proxy, whose connection managers have the authorizers of the tables that they use."""
    found = {table.name: variant for table in proxy.routes if (variant := memo(_variant, table)) is not None}
    if not found:
        return proxy
    variants = tuple(found.values())
    names = tuple(found)
    return replace(
        proxy,
        listeners=tuple(memo(_listener, listener, names, variants) for listener in proxy.listeners),
        routes=tuple(found[table.name].table if table.name in found else table for table in proxy.routes),
    )


def _variant(table: ir.RouteTable) -> _Variant | None:
    """Authorizers once each, in the order of their names: routes that change places change no listener."""
    found = {
        one.name: one for host in table.virtual_hosts for route in host.routes for one in route.authorizers
    }
    if not found:
        return None
    names = sorted(found)
    mark = hashlib.sha256("|".join(names).encode()).hexdigest()[:8]
    return _Variant(
        replace(table, name=table_variant(table.name, mark)), tuple(found[name] for name in names)
    )


def _listener(listener: ir.Listener, names: tuple[str, ...], variants: tuple[_Variant, ...]) -> ir.Listener:
    known = dict(zip(names, variants, strict=True))
    return listener.with_chains(lambda chain: _chain(chain, known))


def _chain(chain: ir.FilterChain, known: Mapping[str, _Variant]) -> ir.FilterChain:
    handler = chain.handler
    if not isinstance(handler, ir.HttpHandler) or not isinstance(handler.routes, str):
        return chain
    variant = known.get(handler.routes)
    if variant is None:
        return chain
    handler = replace(handler, routes=variant.table.name, authorizers=variant.authorizers)
    return replace(chain, handler=handler)
