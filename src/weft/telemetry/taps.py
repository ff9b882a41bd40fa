"""Requests that somebody watches as they happen: the newest of them, and what one asks to see of them.

Proxies send them because a share was raised in their runtime (``weft.control.tap``); here they are kept in
memory only, the newest few thousand, and counted in no flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Self

from weft.card import UNKNOWN, Card
from weft.units import parse_duration

if TYPE_CHECKING:
    from weft.telemetry.otlp import Report

KEPT: Final = 10_000
MOST: Final = 1_000
LONGEST_WAIT_S: Final = 10.0

_STATUS: Final = re.compile(r"([1-5])xx|([0-9]{1,3})(?:-([0-9]{1,3}))?")
_NAMES: Final = ("method", "path", "status", "caller", "host", "errors", "slow", "trace")
_SERVER_FAULTS: Final = frozenset({2, 4, 12, 13, 14, 15})
_FAULT: Final = 500

Record = Mapping[str, Any]


def failed(record: Record) -> bool:
    """Whether the server failed: 5xx, no answer, a broken connection, or a gRPC status that says so."""
    if record["protocol"] == "tcp":
        return bool(record["flags"])
    grpc = record["grpc"]
    return record["code"] >= _FAULT or record["code"] == 0 or (grpc is not None and grpc in _SERVER_FAULTS)


def record_of(report: Report, decision: str, policy: str) -> dict[str, Any]:
    """A report as people are shown it. Times in ms, sizes in bytes; ``code`` 0: there was no answer."""
    said, who = report.fields, report.reporter
    http = "path" in said or "method" in said
    grpc = said.get("grpc", "")
    return {
        "time": report.time_ms,
        "namespace": who.identity.namespace,
        "workload": who.workload,
        "instance": who.instance,
        "account": who.identity.service_account,
        "kind": who.kind,
        "service": said.get("service", ""),
        "source": said.get("source", ""),
        "sourceWorkload": _workload(said.get("caller", "")),
        "sourceIp": said.get("source_ip", ""),
        "tls": "mtls" if said.get("source") else "tls" if said.get("tls") else "none",
        "protocol": ("grpc" if grpc else "http") if http else "tcp",
        "method": said.get("method", ""),
        "host": said.get("host", "") if http else said.get("sni", ""),
        "path": said.get("path", ""),
        "port": _whole(said.get("port")),
        "code": _whole(said.get("code")),
        "grpc": _whole(grpc) if grpc else None,
        "flags": said.get("flags", ""),
        "details": said.get("details", ""),
        "duration": _whole(said.get("duration")),
        "received": _whole(said.get("received")),
        "sent": _whole(said.get("sent")),
        "route": said.get("route", ""),
        "decision": decision,
        "policy": policy,
        "requestId": said.get("request_id", ""),
        "trace": report.trace,
    }


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which requests somebody wants to see. What is empty chooses nothing out.

    ``status``: ranges of codes, both ends in. ``caller``: part of an identity or an address. ``path`` and
    ``host``: a beginning, or a pattern with ``*``. ``slow``: ms at least.
    """

    method: str = ""
    path: str = ""
    host: str = ""
    status: tuple[tuple[int, int], ...] = ()
    caller: str = ""
    errors: bool = False
    slow: int = 0
    trace: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Self:
        """Read what a URL's query or a command line says.

        Raises:
            ValueError: something cannot be read; says what to write.
        """
        slow = asked.get("slow", "")
        return cls(
            method=asked.get("method", "").upper(),
            path=asked.get("path", ""),
            host=asked.get("host", "").lower(),
            status=tuple(_status(part) for part in asked.get("status", "").split(",") if part),
            caller=asked.get("caller", "").lower(),
            errors=asked.get("errors", "") not in {"", "false", "0"},
            slow=int(parse_duration(slow).total_seconds() * 1_000) if slow else 0,
            trace=asked.get("trace", "").lower(),
        )

    @staticmethod
    def chosen(asked: Mapping[str, str]) -> dict[str, str]:
        """Those of the parameters that this is about."""
        return {name: asked[name] for name in _NAMES if asked.get(name)}

    def fits(self, record: Record) -> bool:
        """Whether it is one of those."""
        return (
            (not self.method or record["method"] == self.method)
            and (not self.path or _begins(record["path"], self.path))
            and (not self.host or _begins(record["host"].lower(), self.host))
            and (not self.status or any(low <= record["code"] <= high for low, high in self.status))
            and (not self.caller or self.caller in _caller(record))
            and (not self.errors or failed(record))
            and record["duration"] >= self.slow
            and (not self.trace or record["trace"] == self.trace)
        )


def _caller(record: Record) -> str:
    """All that is known of it."""
    return f"{record['source']} {record['sourceWorkload']} {record['sourceIp']}".lower()


def _workload(card: str) -> str:
    """Which one calls, as its certificate says; empty for what says nothing."""
    read = Card.parse(card)
    return read.workload if read is not None and read.workload != UNKNOWN else ""


def _begins(text: str, pattern: str) -> bool:
    if "*" not in pattern:
        return text.startswith(pattern)
    # Only the star means something here.
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def _status(text: str) -> tuple[int, int]:
    match = _STATUS.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"status: {text[:20]!r} is none: write 503, 5xx or 500-599")
    if match[1]:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    low = int(match[2])
    return low, int(match[3] or low)


class _Ring:
    """What came of one identity. ``dropped``: numbers of those that made room, as far as known."""

    __slots__ = ("dropped", "kept")

    def __init__(self) -> None:
        self.kept: deque[tuple[int, dict[str, Any]]] = deque()
        self.dropped: deque[int] = deque(maxlen=KEPT)


class Taps:
    """The newest watched requests, numbered from 1. One that asks too late is told how many it missed.

    Who tells most makes room for all others: nobody can flood away what others tell.
    """

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._rings: dict[str, _Ring] = {}
        self._last = self._held = 0
        self._grown = asyncio.Event()

    def add(self, record: dict[str, Any]) -> None:
        """One more; the oldest goes when there are too many."""
        self._last += 1
        ring = self._rings.setdefault(f"{record['namespace']}/{record['account']}", _Ring())
        ring.kept.append((self._last, record))
        self._held += 1
        if self._held > self._most:
            largest = max(self._rings.values(), key=lambda one: len(one.kept))
            largest.dropped.append(largest.kept.popleft()[0])
            self._held -= 1
        self._grown.set()

    @property
    def last(self) -> int:
        """The number of the newest."""
        return self._last

    async def after(self, number: int, seconds: float) -> bool:
        """Wait for one that is newer than ``number``, and no longer than that; whether there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LONGEST_WAIT_S)):
                while self._last <= number:
                    self._grown.clear()
                    await self._grown.wait()
        return self._last > number

    def since(
        self, number: int, proxies: Iterable[str], wanted: Wanted, most: int = MOST
    ) -> tuple[list[dict[str, Any]], int, int]:
        """The oldest ``most`` that are newer than ``number``, of these proxies (``namespace/name``).

        With them: how many of these proxies' came, wanted or not, and how many of their namespaces' were
        forgotten before.
        """
        chosen = frozenset(proxies)
        namespaces = {name.partition("/")[0] for name in chosen}
        rings = [ring for name, ring in self._rings.items() if name.partition("/")[0] in namespaces]
        missed = sum(dropped > number for ring in rings for dropped in ring.dropped)
        came = sorted(
            ((place, record) for ring in rings for place, record in ring.kept if place > number),
            key=lambda one: one[0],
        )
        seen = [record for _, record in came if f"{record['namespace']}/{record['instance']}" in chosen]
        found = list(itertools.islice(filter(wanted.fits, seen), most))
        return found, len(seen), missed


async def answer(taps: Taps, asked: Mapping[str, str]) -> dict[str, Any]:
    """The question ``tap``: what came after ``after`` (empty: nothing yet) of ``proxies`` and is wanted.

    Waits for ``wait``, until there is one at least.

    Raises:
        ValueError: a parameter cannot be read; says which.
    """
    wanted = Wanted.of(asked)
    text = asked.get("after", "")
    if not text:
        return {"next": taps.last, "records": [], "seen": 0, "missed": 0}
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError("after: write the number of the last answer's next")
    after = min(int(text), taps.last)
    if wait := asked.get("wait", ""):
        await taps.after(after, parse_duration(wait).total_seconds())
    proxies = [name for name in asked.get("proxies", "").split(",") if name]
    last = taps.last
    records, seen, missed = taps.since(after, proxies, wanted)
    return {"next": last, "records": records, "seen": seen, "missed": missed}
