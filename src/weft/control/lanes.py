"""Endpoints on their way to proxies: for every place that clients are in, those of the clusters they use."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from weft.emit.endpoints import pack
from weft.emit.packed import Packed
from weft.ir.cluster import Cluster, Discovery
from weft.ir.endpoint import EndpointSet
from weft.ir.placement import ANYWHERE, Placement, Standpoint, seen
from weft.ir.proxy import Proxy
from weft.names import local_endpoints
from weft.xds.store import ConfigStore

_log = logging.getLogger(__name__)

Ranked = frozenset[tuple[str, Placement, Standpoint]]
"""Clusters whose endpoints depend on where the client is: how, and what of the client matters."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients are, as far as endpoints depend on it."""

    network: str
    ranked: Ranked


@dataclass(slots=True)
class _Lane:
    """What was published of a lane: by cluster, the endpoints and their bytes; ``how`` those are ranked."""

    how: dict[str, tuple[Placement, Standpoint]]
    sets: dict[str, EndpointSet] = field(default_factory=dict)
    packed: dict[str, Packed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Use:
    """What a proxy at ``client`` uses: the ``names`` of those ``clusters`` that get their endpoints here.

    ``local`` names its own replicas, which are the endpoints of the cluster ``peers``; none if that is empty.
    """

    place: Place
    names: frozenset[str]
    clusters: tuple[Cluster, ...]
    client: Standpoint
    local: str
    peers: str


_CHUNK: Final = 100

Breathe = Callable[[], Awaitable[None]]
"""Gives the event loop to others if it was held for long."""

Endpoints = Callable[[str], EndpointSet]
"""The endpoints of a cluster, the same object as long as they are the same."""


class Lanes:
    """Keeps the endpoint lanes of a ``ConfigStore`` as the world is."""

    def __init__(self, config: ConfigStore) -> None:
        self._config = config
        self._lanes: dict[Place, _Lane] = {}
        self._uses: dict[str, _Use] = {}
        self._names: WeakValueDictionary[frozenset[str], frozenset[str]] = WeakValueDictionary()
        # Replicas by their name: of which cluster they are, its endpoints, the same under their name.
        self._replicas: dict[str, tuple[str, EndpointSet, EndpointSet]] = {}

    def require(self, proxy_id: str, proxy: Proxy, endpoints: Endpoints) -> Place:
        """Have the endpoints of all clusters of ``proxy`` in its lane; gives the lane. Never removes any."""
        before = self._uses.get(proxy_id)
        client = proxy.identity.standpoint
        if (
            before is not None
            and before.clusters is proxy.clusters
            and before.client == client
            and before.peers == proxy.peers
        ):
            return before.place  # all of them are there
        clusters = [cluster for cluster in proxy.clusters if cluster.discovery is Discovery.EDS]
        names = self._share(frozenset(cluster.name for cluster in clusters))
        ranked = frozenset(
            (cluster.name, cluster.placement, seen(cluster.placement, client))
            for cluster in clusters
            if cluster.placement != ANYWHERE
        )
        place = Place(client.network, ranked)
        known = before is not None and before.names is names and before.place == place
        who = proxy.identity.name
        local = local_endpoints(who.namespace, who.name)
        self._uses[proxy_id] = _Use(place, names, proxy.clusters, client, local, proxy.peers)
        if known and before is not None and before.peers == proxy.peers:
            return place
        lane = self._lanes.get(place)
        if lane is None:
            how = {name: (placement, standpoint) for name, placement, standpoint in ranked}
            lane = self._lanes[place] = _Lane(how)
        # An Envoy that starts waits for its replicas, be there none.
        self._replicas[local] = self._replica(local, proxy.peers, endpoints)
        missing = [local, *(name for name in names if name not in lane.sets)]
        self._publish(place, lane, missing, endpoints)
        return place

    def _replica(self, local: str, peers: str, endpoints: Endpoints) -> tuple[str, EndpointSet, EndpointSet]:
        found, before = endpoints(peers) if peers else _NOBODY, self._replicas.get(local)
        if before is not None and before[1] is found:
            return before
        return peers, found, EndpointSet(cluster=local, endpoints=found.endpoints)

    def _of(self, name: str, endpoints: Endpoints) -> EndpointSet:
        """The endpoints of a cluster, or of a proxy's own replicas."""
        replica = self._replicas.get(name)
        if replica is None:
            return endpoints(name)
        self._replicas[name] = replica = self._replica(name, replica[0], endpoints)
        return replica[2]

    def _share(self, names: frozenset[str]) -> frozenset[str]:
        """The one copy of these names that all proxies hold."""
        return self._names.setdefault(names, names)

    async def refresh(
        self, endpoints: Endpoints, breathe: Breathe, *, ahead: Callable[[str], bool] | None = None
    ) -> bool:
        """Publish what changed; whether something was left out. Awaits ``breathe`` every now and then.

        With ``ahead`` proxies have not heard of the change yet. Then endpoints that bring an identity which
        their cluster did not have are left out: a proxy has to hear of the identity (in the cluster) before
        it connects to its bearer. So are those of clusters that are none of endpoints any more, which
        ``ahead`` tells: until their routes have moved they carry traffic.
        """
        left = False
        for place, lane in tuple(self._lanes.items()):
            changed = []
            for number, name in enumerate(tuple(lane.sets)):
                if number % _CHUNK == _CHUNK - 1:
                    await breathe()
                old = lane.sets[name]
                try:
                    new = self._of(name, endpoints)
                except Exception:
                    _log.exception("the endpoints of %s cannot be told; they stay as they are", name)
                    continue
                if new is old or new == old:
                    continue
                if ahead is None or (not _identities(new) - _identities(old) and self._stays(name, ahead)):
                    changed.append(name)
                else:
                    left = True
            self._publish(place, lane, changed, endpoints)
        return left

    def _stays(self, name: str, ahead: Callable[[str], bool]) -> bool:
        return name in self._replicas or ahead(name)

    def _publish(self, place: Place, lane: _Lane, names: Iterable[str], endpoints: Endpoints) -> None:
        put: dict[str, Packed] = {}
        for name in names:
            try:
                found = self._of(name, endpoints)
                packed = pack(found, *lane.how.get(name, (ANYWHERE, Standpoint(network=place.network))))
            except Exception:
                # Whatever is wrong with one cluster's endpoints must not keep the others from theirs.
                _log.exception("the endpoints of %s cannot be told; they stay as they are", name)
                continue
            lane.sets[name] = found
            if lane.packed.get(name) is not packed:
                put[name] = lane.packed[name] = packed
        if put:
            self._config.publish_endpoints(place, put)

    def forget(self, proxy_id: str) -> None:
        """A proxy is gone."""
        self._uses.pop(proxy_id, None)

    def sweep(self) -> None:
        """Drop what no proxy uses any more. Call when no proxy has it, after a whole pass."""
        used: dict[Place, set[str]] = {}
        for place, names in {(use.place, use.names) for use in self._uses.values()}:
            used.setdefault(place, set()).update(names)
        local = {use.local: use.place for use in self._uses.values()}
        for name, place in local.items():
            used[place].add(name)
        for name in self._replicas.keys() - local.keys():
            del self._replicas[name]
        for place in self._lanes.keys() - used.keys():
            del self._lanes[place]
        self._config.retain_lanes(used)
        for place, wanted in used.items():
            lane = self._lanes[place]
            unused = lane.sets.keys() - wanted
            for name in unused:
                del lane.sets[name], lane.packed[name]
            if unused:
                self._config.publish_endpoints(place, {}, unused)


_NOBODY: Final = EndpointSet(cluster="", endpoints=())


def _identities(found: EndpointSet) -> set[tuple[str, str]]:
    return {(endpoint.namespace, endpoint.service_account) for endpoint in found.endpoints}
