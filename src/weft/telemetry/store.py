"""What the telemetry process holds: takes messages in, writes them down, lets go of the old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from weft.names import TAP_MARK
from weft.spiffe import SpiffeId
from weft.telemetry.archive import Archive, Record
from weft.telemetry.calls import total_of
from weft.telemetry.flows import Flow, FlowTable, decided
from weft.telemetry.limits import Limits, Losses, Received
from weft.telemetry.metrics import read_metrics
from weft.telemetry.otlp import Report, Span, reports, spans
from weft.telemetry.push.pusher import Pusher
from weft.telemetry.push.sums import Sums
from weft.telemetry.rollups import MINUTE_MS, Growth
from weft.telemetry.rows import Row
from weft.telemetry.series import SeriesKey, SeriesTable
from weft.telemetry.shares import TraceShare
from weft.telemetry.taps import Taps, record_of
from weft.telemetry.tellers import Tellers
from weft.telemetry.windows import Windows

_log = logging.getLogger(__name__)

T = TypeVar("T")
Unwritten = tuple[SeriesKey, int, Row]
"""What a series counted in a minute (since the epoch)."""

FLUSH_S: Final = 1.0
TRIM_S: Final = 30.0
_RECORDS_PER_SECOND: Final = 500
_WAITING: Final = 4
"""Spans and records that wait to be written: so many seconds of the limit, one of them by one identity."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """Memory in front of an ``Archive``. Messages come in the loop's thread; the disk is another's."""

    def __init__(
        self, path: Path, limits: Limits, *, now_ms: Callable[[], int] = _now_ms, kept_s: float = 0.0
    ) -> None:
        """Open what was kept. ``kept_s``: how old an answer may be (``windows.Windows``).

        Raises:
            WeftError: the directory cannot be used.
        """
        self.limits, self.losses, self.received = limits, Losses(), Received()
        self.now_ms = now_ms
        self.table = FlowTable(limits, self.losses)
        self.tellers = Tellers(limits, self.losses)
        self.series = SeriesTable(limits, self.losses, now_ms(), total_of)
        self._archive = Archive(path, limits)
        self.table.load(self._archive.flows())
        self.tellers.load(self._archive.rollups.tellers())
        kept = self._archive.rollups
        since = kept.since(now_ms() // MINUTE_MS - 60, limits.notes // 2)
        for key, minutes, opened in kept.load(since):
            self.series.load(key, minutes, opened)
        self.series.begin(since)
        self._spans: list[tuple[str, Span]] = []
        self._records: list[Record] = []
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._traces = TraceShare(limits.spans_per_second)
        self.taps = Taps()
        self.sums = Sums(limits, self.losses)
        self.pusher: Pusher | None = None
        self.windows = Windows(kept_s)
        self._disk = asyncio.Lock()
        self._written = self.series.newest

    def take_logs(self, message: bytes, sender: SpiffeId) -> None:
        """An ``ExportLogsServiceRequest``.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        told = reports(message, sender, self.now_ms())
        self.received.messages += 1
        self.received.records += len(told)
        owner = str(sender)
        for report in told:
            if TAP_MARK in report.fields:
                self.taps.add(record_of(report, *decided(report.fields)))
                continue
            self.table.add(report)
            if self._has_room("record", owner, len(self._records), _RECORDS_PER_SECOND):
                self._records.append(_record(report, owner))
            else:
                self.losses.records_left_out += 1

    def take_traces(self, message: bytes, sender: SpiffeId) -> None:
        """An ``ExportTraceServiceRequest``.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        self.received.messages += 1
        owner = str(sender)

        def keep(trace: bytes) -> bool:
            self.received.spans += 1
            kept = self._traces.take(trace, owner) and self._has_room(
                "span", owner, len(self._spans), self.limits.spans_per_second
            )
            self.losses.spans_left_out += not kept
            return kept

        for span in spans(message, sender, keep):
            self._spans.append((owner, span))

    def _has_room(self, kind: str, owner: str, waiting: int, per_second: int) -> bool:
        """Whether one more may wait to be written; then it is counted as the owner's."""
        if waiting >= per_second * _WAITING or self._waiting[kind, owner] >= per_second:
            return False
        self._waiting[kind, owner] += 1
        return True

    def take_metrics(self, message: bytes, sender: SpiffeId) -> None:
        """An ``ExportMetricsServiceRequest``.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        now_ms = self.now_ms()
        told = read_metrics(message, sender, partial(self.sums.take, sender, now_ns=now_ms * 1_000_000))
        self.received.messages += 1
        self.received.points += told.points
        self.losses.points_unusable += told.unusable
        self.tellers.hear(told, now_ms)
        for key, row in told.rows.items():
            if row:
                self.series.add(key, row, now_ms)

    async def keep(self) -> None:
        """Write what came every second, let go of the old every now and then; for ever."""
        trimmed = 0.0
        while True:
            await asyncio.sleep(FLUSH_S)
            self.windows.forget()
            await self.flush()
            await self.flush_metrics()
            if time.monotonic() - trimmed >= TRIM_S:
                trimmed = time.monotonic()
                self.series.trim()
                self.tellers.forget(self.now_ms())
                self.table.forget(self.now_ms() - int(self.limits.flow_age.total_seconds() * 1_000))
                await self._on_disk(lambda: self._archive.trim(self.now_ms()))

    async def flush(self) -> None:
        """Write what came since the last time. What does not go onto the disk is lost, and counted."""
        changed, forgotten = self.table.take()
        found, self._spans = self._spans, []
        records, self._records = self._records, []
        self._waiting.clear()
        if not (changed or forgotten or found or records):
            return

        def write() -> None:
            try:
                self._archive.write(changed, forgotten, found, records)
            except apsw.FullError:
                # The limit on its pages, or the disk: with the oldest gone, once more.
                self._archive.drop_oldest()
                self._archive.write(changed, forgotten, found, records)

        if not await self._on_disk(write):
            self.losses.not_written += len(changed) + len(found) + len(records)

    async def flows(self, since_ms: int) -> list[Flow]:
        """Flows seen since then, busiest first, with the counts of that time to the hour."""
        await self.flush()
        counts = await self.on_archive(lambda archive: archive.counts(since_ms)) if since_ms > 0 else None
        return self.table.flows(counts, since_ms)

    async def flush_metrics(self, *, now: bool = False) -> None:
        """Write what series counted in the slots that are over, or until ``now``."""
        self.series.advance(self.now_ms())
        if now:
            self.series.close()
        if self.series.newest == self._written and not now:
            return
        self._written = self.series.newest
        async with self._disk:
            # Taken only now: whoever has the disk finds everything either there or pending.
            pending, self.series.pending = self.series.pending, {}
            open_ = self.series.open
            grown = [Growth(key, minute, row, open_(key)) for (key, minute), row in pending.items()]
            tellers = self.tellers.take(self.series.newest + now)

            def write() -> None:
                try:
                    self._archive.write_metrics(grown, tellers)
                except apsw.FullError:
                    self._archive.drop_oldest()
                    self._archive.write_metrics(grown, tellers)

            if not await self._in_thread(write):
                self.losses.not_written += len(grown)

    async def on_archive(self, read: Callable[[Archive], Any]) -> Any:
        """What ``read`` gives, in the disk's thread."""
        async with self._disk:
            return await asyncio.to_thread(read, self._archive)

    async def with_unwritten(
        self, read: Callable[[Archive], T], *, totals: bool = False
    ) -> tuple[T, list[Unwritten]]:
        """What ``read`` gives, and what series (or the ``totals``) counted that was not on disk then."""
        async with self._disk:
            waiting = list(self.series.unwritten(totals=totals))
            return await asyncio.to_thread(read, self._archive), waiting

    async def close(self) -> None:
        """Write the rest and close."""
        await self.flush()
        self.series.advance(self.now_ms())
        self.series.finish()
        await self.flush_metrics(now=True)
        async with self._disk:
            self._archive.close()

    async def _on_disk(self, work: Callable[[], None]) -> bool:
        async with self._disk:
            return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(work)
        except apsw.Error as error:
            _log.warning("telemetry cannot be written: %s", error)
            return False
        return True


def _record(report: Report, owner: str) -> Record:
    who = report.reporter
    decision, policy = decided(report.fields)
    body = {
        **report.fields,
        "namespace": who.identity.namespace,
        "workload": who.workload,
        "instance": who.instance,
        "account": who.identity.service_account,
        "kind": who.kind,
        "decision": decision,
        "policy": policy,
        "trace": report.trace,
        "time": report.time_ms,
    }
    request = report.fields.get("request_id", "")
    return owner, report.time_ms, request, who.identity.namespace, who.workload, body
