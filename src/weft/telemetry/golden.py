"""The questions ``workloads``, ``stat`` and ``edges``: how everything does, in a window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from weft.telemetry.calls import DESTINATION, SOURCE, End, Service, own, service
from weft.telemetry.estimates import estimate
from weft.telemetry.selection import GROUPINGS, Selection, choice, destination
from weft.telemetry.series import OTHER
from weft.telemetry.signals import Signals
from weft.telemetry.store import Store
from weft.telemetry.windows import Parameters, duration_ms, window

ESTIMATED = ("route", "path")


async def workloads(store: Store, asked: Parameters) -> dict[str, Any]:
    """Every known workload and service with its signals. ``window`` (1m), ``namespace``."""
    seen = await window(store, duration_ms(asked, "window", "1m"))
    only = asked.get("namespace", "")
    found: dict[tuple[str, str], _Workload] = {}

    def of(namespace: str, name: str) -> _Workload:
        return found.setdefault((namespace, name), _Workload(namespace, name))

    for teller in store.tellers.all():
        if teller.workload:
            known = of(teller.namespace, teller.workload)
            known.kind, known.last = teller.kind, max(known.last, teller.last)
            known.principals.add(teller.principal)
    for each in seen.came:
        key = each.key
        if key.workload in {"", OTHER}:
            continue
        known = of(key.namespace, key.workload)
        known.app, known.version, known.kind = key.app or known.app, key.version or known.version, key.kind
        known.last = max(known.last, each.last)
        known.principals.add(key.principal)
        if key.side == SOURCE and each.row:
            known.outbound.count(key, each.row, opened=each.open, last=each.last)
    # Each row is added up once; what it belongs to, out of these sums.
    parts: defaultdict[tuple[End, Service, str], Signals] = defaultdict(Signals)
    for each in seen.counted:
        part = destination(each.key), service(each.key), each.key.side
        parts[part].count(each.key, each.row, opened=each.open, last=each.last)
    services: defaultdict[Service, _Service] = defaultdict(_Service)
    for called in {service(each.key) for each in seen.came if each.key.service_name}:
        services[called] = _Service()  # with traffic or without
    total = Signals()
    for (end, called, side), signals in parts.items():
        total.merge(signals)
        if called.name:
            services[called].merge(end, side, signals)
        if end.workload not in {"", OTHER}:
            known = of(end.namespace, end.workload)
            known.services.update({called.name} - {""})
            known.sides.add(side)
            known.app, known.version = known.app or end.app, known.version or end.version
            known.inbound.merge(signals)
            known.last = max(known.last, signals.last)
    alive = store.tellers.alive(seen.to_ms)
    return {
        **seen.header(),
        "workloads": [
            known.to_dict(seen.length_ms, alive.get(who, 0))
            for who, known in sorted(found.items())
            if only in {"", known.namespace}
        ],
        "services": [
            {**called.to_dict(), **known.to_dict(seen.length_ms)}
            for called, known in sorted(services.items())
            if only in {"", called.namespace}
        ],
        "total": total.to_dict(seen.length_ms) if not only else None,
    }


class _Workload:
    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        self.app = self.version = ""
        self.kind, self.last = "workload", 0
        self.principals: set[str] = set()
        self.services: set[str] = set()
        self.sides: set[str] = set()
        self.inbound, self.outbound = Signals(), Signals()

    def to_dict(self, window_ms: int, instances: int) -> dict[str, Any]:
        own_word = not self.sides or DESTINATION in self.sides
        return {
            "namespace": self.namespace,
            "workload": self.name,
            "app": self.app,
            "version": self.version,
            "kind": self.kind,
            "principals": sorted(self.principals),
            "services": sorted(self.services),
            "instances": instances,
            "lastSeen": self.last,
            "seenBy": DESTINATION if own_word and self.kind != "gateway" else SOURCE,
            # What comes to a gateway from outside, it tells as what it passes on.
            "inbound": (self.outbound if self.kind == "gateway" else self.inbound).to_dict(window_ms),
            "outbound": self.outbound.to_dict(window_ms),
        }


class _Service:
    def __init__(self) -> None:
        self.workloads: set[str] = set()
        self.sides: set[str] = set()
        self.inbound = Signals()

    def merge(self, end: End, side: str, signals: Signals) -> None:
        self.inbound.merge(signals)
        self.sides.add(side)
        self.workloads.update({end.workload} - {"", OTHER})

    def to_dict(self, window_ms: int) -> dict[str, Any]:
        return {
            "workloads": sorted(self.workloads),
            "seenBy": DESTINATION if DESTINATION in self.sides else SOURCE,
            "inbound": self.inbound.to_dict(window_ms),
        }


async def stat(store: Store, asked: Parameters) -> dict[str, Any]:
    """Signals by ``by`` of what ``of`` names. ``direction``, ``window`` (1m), ``namespace``."""
    by = choice(asked, "by", (*GROUPINGS, *ESTIMATED))
    chosen = Selection.read(asked)
    length_ms = duration_ms(asked, "window", "1m")
    about = {"by": by, "of": asked.get("of", ""), "direction": chosen.direction}
    if by in ESTIMATED:
        return await estimate(store, chosen, by, length_ms) | about
    seen = await window(store, length_ms)
    once = seen.once
    rows: dict[str, tuple[dict[str, Any], Signals, set[str]]] = {}
    total = Signals()
    for each in seen.came:
        key = each.key
        if not each.row or not chosen.wants(key) or not chosen.counts(key, once=key in once):
            continue
        name, more = GROUPINGS[by](key, chosen)
        row = rows.setdefault(name, (dict(more), Signals(), set()))
        row[1].count(key, each.row, opened=each.open, last=each.last)
        row[2].add(key.side)
    for _, signals, _ in rows.values():
        total.merge(signals)
    if by == "caller":
        _name_callers(rows, {each.key: own(each.key) for each in seen.came if each.key.workload != OTHER})
    return {
        **seen.header(),
        **about,
        "sampled": False,
        "rows": [
            {
                "key": name,
                **more,
                "seenBy": DESTINATION if DESTINATION in sides else SOURCE,
                **signals.to_dict(seen.length_ms),
            }
            for name, (more, signals, sides) in sorted(
                rows.items(), key=lambda item: (-item[1][1].calls, item[0])
            )
        ],
        "total": total.to_dict(seen.length_ms),
    }


def _name_callers(
    rows: Mapping[str, tuple[dict[str, Any], Signals, set[str]]], ends: Mapping[Any, Any]
) -> None:
    """Say what callers say of themselves; and which workload a principal is, if only one bears it."""
    bearers: defaultdict[str, set[Any]] = defaultdict(set)
    selves: dict[tuple[str, str], Any] = {}
    for end in ends.values():
        bearers[end.principal].add(end)
        selves[end.namespace, end.workload] = end
    for name, (more, _, _) in rows.items():
        said = more["source"]
        if said["workload"]:
            if (end := selves.get((said["namespace"], said["workload"]))) is not None:
                more["source"] = end.to_dict()
        elif name and len(bearers[name]) == 1:
            more["source"] = next(iter(bearers[name]))._replace(sure=False).to_dict()


async def edges(store: Store, asked: Parameters) -> dict[str, Any]:
    """Who calls whom. ``window`` (1m), ``namespace`` (of either end)."""
    seen = await window(store, duration_ms(asked, "window", "1m"))
    only = asked.get("namespace", "")
    found = [
        edge
        for edge in seen.edges
        if only in {"", edge.source.namespace, edge.destination.namespace, edge.service.namespace}
    ]
    found.sort(key=lambda edge: (-edge.signals.calls, edge.source, edge.destination, edge.service))
    return {**seen.header(), "edges": [edge.to_dict(seen.length_ms) for edge in found]}
