"""Authorizers that routes ask for: the listeners that use those routes have them ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from weft import ir
from weft.compile.memo import Memo
from weft.model.http_route import HTTPRoute
from weft.model.resource import Key


def asked_for(routes: Mapping[Key, HTTPRoute]) -> bool:
    """Whether some route has an ``externalAuth`` filter."""
    return any(
        item.external_auth is not None
        for route in routes.values()
        for rule in route.spec.rules or ()
        for filters in (rule.filters, *(ref.filters for ref in rule.backend_refs or ()))
        for item in filters or ()
    )


def prepared(proxy: ir.Proxy, memo: Memo) -> ir.Proxy:
    """The proxy, whose connection managers have the authorizers of the tables that they use."""
    wanted = {table.name: found for table in proxy.routes if (found := memo(_of_table, table))}
    if not wanted:
        return proxy
    needs = tuple(wanted.items())
    return replace(proxy, listeners=tuple(memo(_listener, listener, needs) for listener in proxy.listeners))


def _of_table(table: ir.RouteTable) -> tuple[ir.Authorizer, ...]:
    """Each once, in the order of their names: routes that change places change no listener."""
    found = {
        one.name: one for host in table.virtual_hosts for route in host.routes for one in route.authorizers
    }
    return tuple(found[name] for name in sorted(found))


_Needs = tuple[tuple[str, tuple[ir.Authorizer, ...]], ...]


def _listener(listener: ir.Listener, needs: _Needs) -> ir.Listener:
    chains = tuple(_chain(chain, needs) for chain in listener.chains)
    last = listener.default_chain and _chain(listener.default_chain, needs)
    if last is listener.default_chain and all(
        new is old for new, old in zip(chains, listener.chains, strict=True)
    ):
        return listener
    return replace(listener, chains=chains, default_chain=last)


def _chain(chain: ir.FilterChain, needs: _Needs) -> ir.FilterChain:
    handler = chain.handler
    if not isinstance(handler, ir.HttpHandler) or not isinstance(handler.routes, str):
        return chain
    found = dict(needs).get(handler.routes)
    return replace(chain, handler=replace(handler, authorizers=found)) if found else chain
