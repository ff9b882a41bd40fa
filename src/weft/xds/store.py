"""What every proxy shall have: a bundle each, and endpoints in lanes that many proxies share.

A bundle is published when it is ready; the pipeline has gathered changes already. Endpoints change one by one
and often, so they are gathered here: the first change goes out at once, those that follow within a tick
together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from weft.names import ENDPOINT_TYPE
from weft.xds.messages import Snapshot
from weft.xds.protocol import Stream
from weft.xds.table import Resource, Table, difference

TICK_SECONDS: Final = 0.02

Lane = Hashable
"""What endpoints depend on besides the cluster: where the client is, and which clusters fail over."""

NOWHERE: Final[Lane] = None


class Bundle(Protocol):
    """Everything for one proxy but endpoints."""

    @property
    def resources(self) -> Mapping[str, Mapping[str, Resource]]:
        """By type URL, then by name."""


class Watcher(Protocol):
    """A connected stream, as the store sees it."""

    @property
    def proxy(self) -> str:
        """The proxy's id."""

    @property
    def stream(self) -> Stream:
        """What it holds."""

    def wake(self) -> None:
        """Something may have to be sent. Returns at once."""


class ConfigStore:
    """Proxy -> snapshot, lane -> endpoint sets, and the streams that must hear of a change."""

    def __init__(self, tick: float = TICK_SECONDS) -> None:
        self._tick = tick
        self._snapshots: dict[str, Snapshot] = {}
        self._lanes: dict[Lane, Table[Resource]] = {}
        self._lane_of: dict[str, Lane] = {}
        self._pending: dict[Lane, dict[str, Resource | None]] = {}
        self._watchers: dict[str, list[Watcher]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flushed = float("-inf")
        self.sequence = 0
        """Counts the changes of endpoints that streams were told of."""

    def publish(
        self,
        proxy: str,
        bundle: Bundle,
        revision: int,
        *,
        lane: Lane = NOWHERE,
        lazy: frozenset[str] = frozenset(),
        ahead: frozenset[str] = frozenset(),
    ) -> None:
        """``proxy`` shall have ``bundle``, made of configuration ``revision``, and the endpoints of ``lane``.

        Publish the endpoints of its clusters first: a cluster without any is told to have none. ``lazy``
        names the clusters that it gets only when it asks for them, but for those ``ahead``.
        """
        self._snapshots[proxy] = snapshot = Snapshot(revision, bundle.resources, lazy, ahead)
        self._lane_of[proxy] = lane
        watchers = self._watchers.get(proxy, ())
        for watcher in watchers:
            # Before it hears of endpoints: those of a cluster that it is about to lose must not vanish first.
            watcher.stream.update(snapshot)
        self.flush()
        for watcher in watchers:
            watcher.stream.update_endpoints(self.endpoints(lane), self.sequence)
            watcher.wake()

    def publish_endpoints(self, lane: Lane, put: Mapping[str, Resource], removed: Iterable[str] = ()) -> None:
        """Endpoint sets of ``lane`` by cluster that changed, and clusters that have none any more."""
        pending = self._pending.setdefault(lane, {})
        pending.update(dict.fromkeys(removed))
        pending.update(put)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._flushed + self._tick), self.flush)

    def flush(self) -> None:
        """Tell the streams now what ``publish_endpoints`` gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        self._flushed = asyncio.get_running_loop().time()
        self.sequence += 1
        changed: dict[Lane, tuple[str, ...]] = {}
        for lane, changes in pending.items():
            old = self.endpoints(lane)
            new = self._lanes[lane] = old.replace(
                {name: resource for name, resource in changes.items() if resource is not None},
                [name for name, resource in changes.items() if resource is None],
            )
            changed[lane] = difference(old, new)
        # Streams with the same subscriptions hold the same set: each set is looked at once.
        concerned: dict[tuple[Lane, int], bool] = {}
        for watcher in self.watchers():
            if watcher.proxy not in self._lane_of:
                continue
            lane = self._lane_of[watcher.proxy]
            watcher.stream.update_endpoints(self.endpoints(lane), self.sequence)
            names = watcher.stream.subscribed(ENDPOINT_TYPE)
            hit = concerned.get((lane, id(names)))
            if hit is None:
                hit = any(name in names for name in changed.get(lane, ()))
                concerned[lane, id(names)] = hit
            if hit:
                watcher.wake()

    def attach(self, watcher: Watcher) -> None:
        """A stream began: give it what its proxy shall have, as far as that is known."""
        self._watchers.setdefault(watcher.proxy, []).append(watcher)
        snapshot = self._snapshots.get(watcher.proxy)
        if snapshot is not None:
            watcher.stream.update_endpoints(self.endpoints(self._lane_of[watcher.proxy]), self.sequence)
            watcher.stream.update(snapshot)

    def detach(self, watcher: Watcher) -> None:
        """A stream ended."""
        left = [known for known in self._watchers.get(watcher.proxy, ()) if known is not watcher]
        if left:
            self._watchers[watcher.proxy] = left
        else:
            self._watchers.pop(watcher.proxy, None)

    def forget(self, proxy: str) -> None:
        """Drop the snapshot of a proxy that is gone."""
        self._snapshots.pop(proxy, None)
        self._lane_of.pop(proxy, None)

    def retain_lanes(self, lanes: Iterable[Lane]) -> None:
        """Drop the endpoints of all other lanes: no proxy is in them any more."""
        keep = {*lanes, *self._lane_of.values()}
        self._lanes = {lane: table for lane, table in self._lanes.items() if lane in keep}
        self._pending = {lane: changes for lane, changes in self._pending.items() if lane in keep}

    def advance(self, revision: int) -> None:
        """``revision`` changes nothing for any proxy: all that is published holds for it too."""
        for proxy, snapshot in self._snapshots.items():
            self._snapshots[proxy] = after = replace(snapshot, revision=revision)
            for watcher in self._watchers.get(proxy, ()):
                watcher.stream.update(after)
                watcher.wake()

    def snapshot(self, proxy: str) -> Snapshot | None:
        """What ``proxy`` shall have."""
        return self._snapshots.get(proxy)

    def endpoints(self, lane: Lane) -> Table[Resource]:
        """The endpoint sets of a lane by cluster, as streams were told."""
        return self._lanes.get(lane) or Table()

    def endpoints_of(self, proxy: str) -> Table[Resource]:
        """The endpoint sets that ``proxy`` may have, of all clusters."""
        return self.endpoints(self._lane_of[proxy]) if proxy in self._lane_of else Table()

    def watchers(self) -> Iterator[Watcher]:
        """All connected streams."""
        for known in tuple(self._watchers.values()):
            yield from known
