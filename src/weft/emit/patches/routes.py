"""Patches of route tables, their virtual hosts and routes (Istio: rc_patch.go)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from weft.emit.patches.lists import keep, patch_list
from weft.emit.patches.merge import MERGES, merge_value
from weft.emit.patches.sorted import Patches, applied
from weft.emit.patches.value import value_of
from weft.ir.patch import Context, Operation, Patch, Target
from weft.names import table_name

if TYPE_CHECKING:
    from weft.protos import route_v3

_ACTIONS: Final = {"route": "ROUTE", "redirect": "REDIRECT", "direct_response": "DIRECT_RESPONSE"}


def patch_routes(table: route_v3.RouteConfiguration, patches: Patches, context: Context) -> None:
    """Apply to a route table what is for it, in place."""
    here = [
        patch for patch in patches.of(Target.ROUTE_CONFIGURATION, context) if _is_about(table.name, patch)
    ]
    for patch in here:
        if patch.operation in MERGES:
            applied(patch, merge_value, table, patch)
    hosts = [patch for patch in patches.of(Target.VIRTUAL_HOST, context) if _is_about(table.name, patch)]
    routes = [patch for patch in patches.of(Target.HTTP_ROUTE, context) if _is_about(table.name, patch)]
    if not hosts and not routes:
        return
    removed = {host.name for host in table.virtual_hosts if not _patch_host(host, hosts, routes)}
    keep(table.virtual_hosts, lambda host: host.name not in removed)  # type: ignore[attr-defined]
    for patch in hosts:
        if patch.operation is Operation.ADD:
            applied(patch, patch_list, table.virtual_hosts, patch, None)


def _patch_host(host: route_v3.VirtualHost, hosts: Sequence[Patch], routes: Sequence[Patch]) -> bool:
    """False when the host is to be removed."""
    for patch in hosts:
        if not _is_host(host, patch):
            continue
        if patch.operation is Operation.REMOVE:
            return False
        if patch.operation in MERGES:
            applied(patch, merge_value, host, patch)
        elif patch.operation is Operation.REPLACE:
            applied(patch, _replace, host, patch)
    _patch_each(host, [patch for patch in routes if _is_host(host, patch)])
    return True


def _patch_each(host: route_v3.VirtualHost, patches: Sequence[Patch]) -> None:
    removed: set[int] = set()
    for index, route in enumerate(host.routes):
        for patch in patches:
            if not _is_route(route, patch):
                continue
            if patch.operation is Operation.REMOVE:
                removed.add(index)
                break
            if patch.operation in MERGES:
                applied(patch, merge_value, route, patch)
    for index in sorted(removed, reverse=True):
        del host.routes[index]
    for patch in patches:
        if patch.operation in MERGES or patch.operation is Operation.REMOVE:
            continue
        matches = _matcher(patch) if patch.match.by_route else None
        if patch.operation is Operation.INSERT_FIRST and matches and not any(map(matches, host.routes)):
            continue
        applied(patch, patch_list, host.routes, patch, matches)


def _matcher(patch: Patch) -> Any:
    return lambda route: _is_route(route, patch)


def _replace(into: Any, patch: Patch) -> None:
    value = value_of(patch)
    if value is not None:
        into.CopyFrom(value)


def _is_about(name: str, patch: Patch) -> bool:
    match, name = patch.match, table_name(name)
    port, port_name, gateway = _parts(name)
    return (
        match.routes in {"", name}
        and match.routes_port in {0, port}
        and (gateway is None or match.routes_port_name in {"", port_name})
        and (gateway is None or match.routes_gateway in {"", gateway})
    )


def _parts(name: str) -> tuple[int, str, str | None]:
    """Port, port's name and ``namespace/name`` of the gateway in a table's name; None for a sidecar's.

    Sidecars have ``8080`` and ``inbound|8080||``, gateways ``http.80`` and ``https.443.PORT.NAME.NAMESPACE``.
    """
    if name.startswith("inbound|"):
        return _number(name.split("|")[1]), "", None
    if name.startswith("http."):
        return _number(name.removeprefix("http.")), "", ""
    parts = name.split(".")
    if parts[0] == "https" and len(parts) == 5:
        return _number(parts[1]), parts[2], f"{parts[4]}/{parts[3]}"
    return _number(name), "", None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _is_host(host: route_v3.VirtualHost, patch: Patch) -> bool:
    match = patch.match
    return match.virtual_host in {"", host.name} and (not match.domain or match.domain in host.domains)


def _is_route(route: route_v3.Route, patch: Patch) -> bool:
    match = patch.match
    action = _ACTIONS.get(route.WhichOneof("action") or "")
    return match.route in {"", route.name} and (
        not match.route_action or action is None or match.route_action == action
    )
