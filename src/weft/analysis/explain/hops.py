"""A request that was made, by the access logs of the proxies that it passed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weft.analysis.explain.authorization import audits_of, logged
from weft.analysis.explain.configuration import Table
from weft.analysis.explain.live import Running
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.match import Scene
from weft.analysis.response_flags import in_words
from weft.names import ClusterName

if TYPE_CHECKING:
    from weft.protos import route_v3

_NONE = {None, "", "-"}


@dataclass(frozen=True, slots=True)
class Hop:
    """One line of an access log. ``proxy`` is ``namespace/name``; ``line`` as Envoy wrote it."""

    proxy: str
    line: Mapping[str, Any]

    def text(self, field: str) -> str:
        """A field; empty when there is no value."""
        value = self.line.get(field)
        return "" if value in _NONE else str(value)

    @property
    def inbound(self) -> bool:
        """Whether it was on its way into the workload."""
        return self.text("reporter") == "destination"


def hops_of(request_id: str, lines: Iterable[tuple[str, str]]) -> list[Hop]:
    """Lines that bear a request's id, in the order in which the request passed.

    ``lines`` are of any log, with whose it is. A caller's proxy comes before the one that it calls. Where a
    proxy has logged in our own form and in others, ours counts.
    """
    found: list[Hop] = []
    for proxy, line in lines:
        if request_id not in line or not line.lstrip().startswith("{"):
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("request_id") == request_id:
            found.append(Hop(proxy, row))
    ours = {hop.proxy for hop in found if hop.text("reporter")}
    found = [hop for hop in found if hop.text("reporter") or hop.proxy not in ours]
    return sorted(found, key=lambda hop: (hop.text("start_time"), hop.inbound))


def describe(hop: Hop, running: Running | None) -> dict[str, Any]:
    """What a proxy did with the request; with what it runs, which virtual host and resource that was."""
    cluster = hop.text("upstream_cluster")
    parts = ClusterName.parse(cluster)
    host, route = _route(hop, running) if running is not None else (None, None)
    audits = audits_of(running.configuration) if running is not None else frozenset[str]()
    cause = Origins().cause(route.metadata, section="http") if route is not None else None
    return {
        "proxy": hop.proxy,
        "direction": "inbound" if hop.inbound else "outbound",
        "time": hop.text("start_time") or None,
        "method": hop.text("method") or None,
        "authority": hop.text("authority") or None,
        "path": hop.text("path") or None,
        "status": hop.line.get("response_code"),
        "flags": hop.text("response_flags") or None,
        "meaning": in_words(hop.text("response_flags")) or None,
        "details": hop.text("response_code_details") or None,
        "durationMs": hop.line.get("duration"),
        "attempts": hop.line.get("upstream_request_attempt_count"),
        "address": hop.text("downstream_local_address") or None,
        "peer": hop.text("downstream_peer_principal") or None,
        "virtualHost": host.name if host is not None else None,
        "route": _cause(cause),
        "routeName": hop.text("route_name") or None,
        "cluster": cluster or None,
        "service": (parts.host or None) if parts else None,
        "subset": (parts.subset or None) if parts else None,
        "endpoint": hop.text("upstream_host") or None,
        "upstreamPrincipal": hop.text("upstream_peer_principal") or None,
        "authz": logged(hop.line, audits),
    }


def _cause(cause: Cause | None) -> dict[str, Any]:
    fields = ("kind", "namespace", "name", "rule", "match")
    return {field: getattr(cause, field, None) for field in fields}


def _route(hop: Hop, running: Running) -> tuple[route_v3.VirtualHost | None, route_v3.Route | None]:
    """The virtual host and the route that a line speaks of: of that name, and to that cluster."""
    cluster, name = hop.text("upstream_cluster"), hop.text("route_name")
    scene = Scene(headers={":authority": [hop.text("authority")]})
    for host in _hosts(running, scene):
        for route in host.routes:
            if route.name == name and (not cluster or cluster in _clusters(route)):
                return host, route
    return None, None


def _hosts(running: Running, scene: Scene) -> Iterator[route_v3.VirtualHost]:
    for config in running.configuration.tables():
        host = Table(config).host(scene)
        if host is not None:
            yield host


def _clusters(route: route_v3.Route) -> set[str]:
    if not route.HasField("route"):
        return set()
    weighted = {part.name for part in route.route.weighted_clusters.clusters}
    return weighted or {route.route.cluster}
