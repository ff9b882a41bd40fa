"""How each proxy gets its clusters, and which of them it is sent before it asks.

A proxy keeps for life what was settled when it started: to go over would drain the connections of its
application, and old ones could not ask for what they need. Only ``clusterDelivery: eager`` holds at once, as
it takes nothing away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from weft import ir
from weft.compile.delivery import OnDemand, is_many, on_demand
from weft.compile.memo import Memo
from weft.compile.settings import Delivery, Settings
from weft.names import CLUSTER_TYPE
from weft.store.interface import Private
from weft.xds.connection import Connection

# An account that calls everything must not have everything pushed.
_LEARNED: Final = 300

Account = str
"""``namespace/service account``."""

_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Delivered:
    """``proxy`` gets its clusters, the ``lazy`` ones when it asks, but for those that go ``ahead``."""

    proxy: ir.Proxy
    lazy: frozenset[str] = _NOTHING
    ahead: frozenset[str] = _NOTHING


@dataclass(slots=True)
class _Settled:
    """What holds for a proxy; ``names`` are those that it asked for, as they were last looked at."""

    on_demand: bool
    ahead: frozenset[str]
    made: OnDemand | None = None
    names: frozenset[str] = _NOTHING


class Deliveries:
    """What is settled for the connected proxies, and what is known of each service account.

    Args:
        learned: the table that outlives this process: clusters that workloads of an account asked for.
    """

    def __init__(self, learned: Private) -> None:
        self._table = learned
        self._learned: dict[Account, dict[str, None]] = {}
        self._settled: dict[str, _Settled] = {}
        self._changed: set[Account] = set()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read what was learned before."""
        for account, value in (await self._table.list()).items():
            self._learned.setdefault(account, dict.fromkeys(msgspec.json.decode(value, type=list[str])))

    async def keep(self) -> None:
        """Write down what is learned, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for account in sorted(changed):
                await self._table.put(account, msgspec.json.encode(list(self._learned[account])))

    def deliver(self, connection: Connection, proxy: ir.Proxy, settings: Settings, memo: Memo) -> Delivered:
        """``proxy`` as it is to be sent on ``connection``."""
        settled = self._settled.get(connection.proxy)
        if settled is None:
            settled = self._settled[connection.proxy] = self._settle(connection, proxy, settings, memo)
        if settings.delivery is Delivery.EAGER:
            settled.on_demand = False
        if not settled.on_demand:
            return Delivered(proxy)
        if settled.made is None or settled.made.source != proxy:
            settled.made = on_demand(proxy, memo, settled.made)
        return Delivered(settled.made.proxy, settled.made.lazy, settled.ahead)

    def _settle(self, connection: Connection, proxy: ir.Proxy, settings: Settings, memo: Memo) -> _Settled:
        stream = connection.stream
        held = frozenset(stream.held(CLUSTER_TYPE))
        if not held:
            asks = is_many(proxy, settings)
        else:
            # It runs already. One that asks by name goes on; else it shows by what it has not got.
            lazy = on_demand(proxy, memo).lazy
            asks = bool(stream.subscribed(CLUSTER_TYPE)) or 2 * len(lazy & held) < len(lazy)
        if not asks:
            return _Settled(False, _NOTHING)
        known = self._learned.get(_account(proxy.identity), {})
        # What it has it keeps: somebody may use it.
        ahead = frozenset(known) | frozenset(name for name in held if name.startswith("outbound|"))
        return _Settled(True, ahead)

    def forget(self, proxy: str) -> None:
        """A proxy is gone."""
        self._settled.pop(proxy, None)

    def progressed(self, connection: Connection) -> None:
        """Learn what a proxy asked for since it was looked at."""
        settled = self._settled.get(connection.proxy)
        if settled is None or settled.made is None:
            return
        names = connection.stream.subscribed(CLUSTER_TYPE)
        if names is settled.names:
            return
        new, settled.names = names - settled.names, names
        self._learn(_account(connection.peer.identity), new & settled.made.lazy)

    def _learn(self, account: Account, names: Iterable[str]) -> None:
        known = self._learned.setdefault(account, {})
        new = [name for name in sorted(names) if name not in known]
        if not new:
            return
        known.update(dict.fromkeys(new))
        for name in list(known)[: max(0, len(known) - _LEARNED)]:
            del known[name]
        self._changed.add(account)
        self._wake.set()


def _account(identity: ir.ProxyIdentity) -> Account:
    return f"{identity.name.namespace}/{identity.service_account}"
