"""What came in a window, with each call counted once: both of its ends tell of it, or one of them alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from weft.telemetry.rows import REQUESTS, Row, pack, unpack
from weft.telemetry.series import OTHER, SLOT_MS, TOTAL, SeriesKey, SeriesTable
from weft.telemetry.signals import Signals, outcome, went_nowhere

DESTINATION, SOURCE = "destination", "source"


_REASONS: Final = 6
_CODES: Final = {"ok": "200", "refused": "400", "failed": "500"}


def counted(key: SeriesKey, tells: Callable[[str, str], bool]) -> bool:
    """Whether a series is the one that counts for its calls.

    That is the called workload's own. What never came to it, or what has no proxy, only the caller can tell
    of. ``tells``: whether a workload (namespace, name) has a proxy that does.
    """
    if key.side == DESTINATION:
        return True
    return key.side == SOURCE and (
        went_nowhere(key.flags) or not tells(key.peer_namespace, key.peer_workload)
    )


def total_of(table: SeriesTable, key: SeriesKey) -> SeriesKey | None:
    """The series of the mesh that takes in this one: told apart by outcome, protocol and mutual TLS."""
    if not counted(key, table.tells):
        return None
    return SeriesKey(
        TOTAL, "", "", "", "", "", "",
        protocol=key.protocol, secured=key.secured, code=_CODES[outcome(key.code, key.grpc)],
    )  # fmt: skip


class Came(NamedTuple):
    """What a series counted in a window. ``open``: connections now; ``last``: when it grew last, in ms."""

    key: SeriesKey
    row: Row
    open: int = 0
    last: int = 0


def in_memory(table: SeriesTable, since_slot: int) -> Iterator[Came]:
    """What came since the beginning of a slot that the table knows; series without anything too."""
    for series in table:
        row = series.total - series.before(since_slot) if series.last >= since_slot else 0
        yield Came(series.key, row, series.open, (series.last + 1) * SLOT_MS)


class End(NamedTuple):
    """A workload, as an end of a call. ``sure``: it told of itself; else the other end did."""

    namespace: str
    workload: str
    app: str = ""
    version: str = ""
    principal: str = ""
    kind: str = "workload"
    sure: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: a Who."""
        return {
            "namespace": self.namespace,
            "workload": "" if self.workload == OTHER else self.workload,
            "app": self.app,
            "version": self.version,
            "principal": self.principal,
            "kind": "other" if self.workload == OTHER else self.kind,
            "sure": self.sure,
        }


def own(key: SeriesKey) -> End:
    """The end that tells."""
    return End(key.namespace, key.workload, key.app, key.version, key.principal, key.kind, sure=True)


def peer(key: SeriesKey) -> End:
    """The end that is told about."""
    known = key.peer_principal or key.peer_workload
    return End(
        key.peer_namespace,
        key.peer_workload,
        key.peer_app,
        key.peer_version,
        key.peer_principal,
        "workload" if known else "outside",
    )


class Service(NamedTuple):
    """What was called: ``host`` is its DNS name."""

    name: str
    namespace: str
    host: str

    def to_dict(self) -> dict[str, str]:
        """As JSON has it."""
        return self._asdict()


def service(key: SeriesKey) -> Service:
    """The service of a series."""
    return Service(key.service_name, key.service_namespace, key.service)


Failures = Counter[tuple[str, str, str]]


@dataclass(slots=True)
class Edge:
    """Calls of one end to another. ``sides``: who told of them; ``signals``: what one of them said;
    ``failures``: how many were no success, by HTTP status, gRPC status and Envoy's flags."""

    source: End
    destination: End
    service: Service
    protocol: str
    sides: set[str]
    seen_by: str
    signals: Signals
    failures: Failures = field(default_factory=Counter)

    def to_dict(self, window_ms: int) -> dict[str, Any]:
        """As JSON has it."""
        sent = self.signals.sent
        return {
            "source": self.source.to_dict(),
            "destination": self.destination.to_dict(),
            "service": self.service.to_dict(),
            "protocol": self.protocol,
            "toldBy": sorted(self.sides, reverse=True),
            "seenBy": self.seen_by,
            "secured": bool(sent) and self.signals.secured == sent,
            **self.signals.to_dict(window_ms),
            "failures": [
                {
                    "code": code, "grpc": grpc, "flags": flags, "requests": number,
                    "failed": outcome(code, grpc) == "failed",
                }
                for (code, grpc, flags), number in self.failures.most_common(_REASONS)
            ]
            if self.failures
            else [],
            "lastSeen": self.signals.last,
        }  # fmt: skip


_Pair = tuple[End, End, Service, str]


class Edges:
    """Who calls whom, out of what came in a window."""

    def __init__(self, came: Iterable[Came]) -> None:
        told: dict[_Pair, Signals] = defaultdict(Signals)
        heard: dict[_Pair, Signals] = defaultdict(Signals)
        failures: dict[_Pair, Failures] = defaultdict(Counter)
        self._own: dict[tuple[str, str], End] = {}
        self._bearers: dict[str, set[End]] = defaultdict(set)
        for each in came:
            key = each.key
            if key.side == TOTAL:
                continue
            me = own(key)
            if key.workload not in {"", OTHER}:
                self._own[me.namespace, me.workload] = me
                self._bearers[me.principal].add(me)
            if not each.row:
                continue
            if key.side == SOURCE:
                pair = me, peer(key), service(key), key.protocol
                told[pair].count(key, each.row, opened=each.open, last=each.last)
            else:
                pair = peer(key), me, service(key), key.protocol
                heard[pair].count(key, each.row, opened=each.open, last=each.last)
            if outcome(key.code, key.grpc) != "ok":
                one = Signals()
                one.count(key, each.row)
                if number := one.errors + one.refused:
                    failures[pair][key.code, key.grpc, key.flags] += number
        self.edges = self._joined(told, heard, failures)

    def _sure(self, end: End) -> End:
        """What the other end itself says, if it does."""
        return self._own.get((end.namespace, end.workload), end)

    def _joined(
        self, told: dict[_Pair, Signals], heard: dict[_Pair, Signals], failures: dict[_Pair, Failures]
    ) -> list[Edge]:
        edges: dict[tuple[End, End, Service, str], Edge] = {}
        # Who has called a workload, by what that workload can see of it.
        callers: dict[tuple[str, str, str, str], list[Edge]] = defaultdict(list)
        for (source, destination, called, protocol), signals in told.items():
            sure = self._sure(destination)
            pair = source, sure, called, protocol
            known = edges.get(pair)
            if known is None:
                known = edges[pair] = Edge(source, sure, called, protocol, {SOURCE}, SOURCE, Signals())
                callers[source.principal, sure.namespace, sure.workload, protocol].append(known)
                callers["", sure.namespace, sure.workload, protocol].append(known)
            known.signals.merge(signals)
            if failed := failures.get((source, destination, called, protocol)):
                known.failures.update(failed)
        found = list(edges.values())
        for (source, destination, called, protocol), signals in heard.items():
            known_callers = callers.get(
                (source.principal, destination.namespace, destination.workload, protocol), []
            )
            if source.workload:
                # Its certificate says which of those with this identity it is.
                known_callers = [edge for edge in known_callers if _same(edge.source, source)]
            if not source.principal:
                # Plaintext: calls of the mesh's own, and those of strangers beyond.
                known_callers = [edge for edge in known_callers if edge.signals.secured < edge.signals.sent]
                _subtract(signals, known_callers)
            for edge in known_callers:
                edge.sides.add(DESTINATION)
            if not known_callers or not source.principal:
                if not signals:
                    continue
                found.append(
                    Edge(
                        self._named(source), destination, called, protocol,
                        {DESTINATION}, DESTINATION, signals,
                        failures.get((source, destination, called, protocol), Counter()),
                    )
                )  # fmt: skip
        return found

    def _named(self, source: End) -> End:
        """A caller that did not tell of this: as its certificate says, else as the only one that bears its
        principal.
        """
        if source.workload:
            return self._sure(source)
        bearers = self._bearers.get(source.principal, set())
        if source.principal and len(bearers) == 1:
            return next(iter(bearers))._replace(sure=False)
        return source


def _same(one: End, other: End) -> bool:
    return (one.namespace, one.workload) == (other.namespace, other.workload)


def _subtract(signals: Signals, edges: Iterable[Edge]) -> None:
    """Leave what none of these callers told of."""
    for edge in edges:
        there = unpack(edge.signals.sum)
        plain = 1 - (edge.signals.secured / edge.signals.sent if edge.signals.sent else 0)
        if plain > 0:
            left = [
                max(0, have - round(plain * gone))
                for have, gone in zip(unpack(signals.sum), there, strict=True)
            ]
            signals.sum = pack(left)
            signals.errors = min(max(0, signals.errors - edge.signals.errors), left[REQUESTS])
            signals.refused = min(max(0, signals.refused - edge.signals.refused), left[REQUESTS])
