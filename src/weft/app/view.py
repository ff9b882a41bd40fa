"""What ``weft up`` shows: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Workload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One workload or gateway as a person reads it. ``certificate`` says how long it is still valid."""

    name: str
    namespace: str
    kind: str
    state: str
    ready: bool
    address: str
    capture: str
    certificate: str
    restarts: int
    message: str


def row(workload: Workload, now: datetime.datetime) -> Row:
    """Read one entry of the node's ``list`` (docs/reference/node-socket.md)."""
    return Row(
        name=str(workload.get("name", "")),
        namespace=str(workload.get("namespace", "")),
        kind="gateway" if workload.get("kind") == "router" else "workload",
        state=str(workload.get("state", "")),
        ready=bool(workload.get("ready")),
        address=str(workload.get("address") or ""),
        capture=str(workload.get("capture") or ""),
        certificate=remaining((workload.get("certificate") or {}).get("notAfter"), now),
        restarts=int(workload.get("restarts") or 0) + int(workload.get("proxyRestarts") or 0),
        message=str(workload.get("message") or ""),
    )


def remaining(not_after: str | None, now: datetime.datetime) -> str:
    """How long a certificate (RFC 3339 time) is still valid: ``23h58m``; empty when there is none."""
    if not not_after:
        return ""
    left = int((datetime.datetime.fromisoformat(not_after) - now).total_seconds())
    if left <= 0:
        return "expired"
    hours, rest = divmod(left, 3600)
    if hours >= 48:
        return f"{hours // 24}d"
    return f"{hours}h{rest // 60:02}m" if hours else f"{rest // 60}m{rest % 60:02}s"


class View(Protocol):
    """Where ``weft up`` reports to."""

    def say(self, text: str) -> None:
        """One line for people, kept on the screen."""

    def show(self, rows: Sequence[Row], change: str) -> None:
        """The state now. ``change`` is the last change and how far it got."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines:
    """For pipes and logs: says what became different."""

    def __init__(self, write: Callable[[str], object] = sys.stdout.write) -> None:
        self._write = write
        self._seen: dict[tuple[str, str], tuple[str, bool, int]] = {}
        self._change = ""

    def say(self, text: str) -> None:
        """One line."""
        self._write(text + "\n")
        sys.stdout.flush()

    def show(self, rows: Sequence[Row], change: str) -> None:
        """A line for each workload whose state differs from what was said last."""
        now = {(r.namespace, r.name): (r.state, r.ready, r.restarts) for r in rows}
        for r in rows:
            key = (r.namespace, r.name)
            if self._seen.get(key) != now[key]:
                state = "ready" if r.ready else r.state
                place = f" at {r.address}" if r.address and r.ready else ""
                restarts = f", restarts: {r.restarts}" if r.restarts else ""
                message = f": {r.message}" if r.message and not r.ready else ""
                self.say(f"{r.kind} {r.namespace}/{r.name} {state}{place}{restarts}{message}")
        for namespace, name in self._seen.keys() - now.keys():
            self.say(f"workload {namespace}/{name} gone")
        if change and change != self._change:
            self.say(change)
        self._seen, self._change = now, change

    def close(self) -> None:
        """Nothing to restore."""


class Table:
    """For terminals: a table that is drawn in place; what is said scrolls above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="visible")
        self._live.start()

    def say(self, text: str) -> None:
        """One line above the table."""
        self._console.print(text, highlight=False, markup=False)

    def show(self, rows: Sequence[Row], change: str) -> None:
        """Draw the table anew."""
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, caption=change or None, caption_justify="left", pad_edge=False)
        for title in ("WORKLOAD", "NAMESPACE", "STATE", "ADDRESS", "CAPTURE", "CERTIFICATE", "RESTARTS"):
            table.add_column(title, justify="right" if title == "RESTARTS" else "left", no_wrap=True)
        for r in sorted(rows, key=lambda r: (r.kind == "workload", r.namespace, r.name)):
            style = "green" if r.ready else "red" if r.state == "failed" else "yellow"
            state = "ready" if r.ready else r.state
            if r.message and not r.ready:
                state = f"{state}: {r.message[:40]}"
            table.add_row(
                r.name,
                r.namespace,
                f"[{style}]●[/] {state}",
                r.address,
                r.capture,
                r.certificate,
                str(r.restarts),
            )
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Keep the last table on the screen and give the cursor back."""
        self._live.stop()


def view(*, terminal: bool) -> View:
    """The view for where output goes."""
    return Table() if terminal else Lines()
