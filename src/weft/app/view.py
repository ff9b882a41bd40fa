"""What ``weft up`` shows: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Workload = Mapping[str, Any]

# From so many columns on there is room for namespace and capture too.
_WIDE: Final = 100
# Lines that are no rows: the head, its rule, what is hidden, the last change, one for the cursor.
_AROUND: Final = 7


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


def progress(state: Mapping[str, Any]) -> str:
    """One line on a revision, from the API's answer to ``/weft/v1/convergence/REVISION``."""
    total, missing, rejected = state["total"], state["missing"], state["rejected"]
    text = f"revision {state['revision']}: live on {total - len(missing)} of {total} proxies"
    if rejected:
        return f"{text}; {rejected[0]['proxy']} refuses {rejected[0]['name']} (weft proxy status)"
    return text


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
    """For terminals: a table that is drawn in place; what is said scrolls above it.

    It fits its terminal: narrow ones show fewer columns, low ones the rows that need attention first.
    ``console`` is for tests.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop", transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        """One line above the table."""
        # Not `markup=False`: it would hold for the table too, which is drawn again in the same breath.
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)

    def show(self, rows: Sequence[Row], change: str) -> None:
        """Draw the table anew."""
        self._live.update(draw(rows, change, *self._console.size), refresh=True)

    def close(self) -> None:
        """Take the table away, what was said stays, and give the cursor back."""
        self._live.stop()


def draw(rows: Sequence[Row], change: str, width: int, height: int) -> RenderableType:
    """The table for a terminal of so many columns and lines."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    wide = width >= _WIDE
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for title in ("WORKLOAD", *(("NAMESPACE",) if wide else ()), "STATE", "ADDRESS"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("CAPTURE", no_wrap=True)
    table.add_column("CERT", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    ordered = sorted(rows, key=lambda r: (r.kind == "workload", r.namespace, r.name))
    room = max(1, height - _AROUND)
    hidden = 0
    if len(ordered) > room:
        # What is not ready must be seen; the rest is counted.
        ordered.sort(key=lambda r: r.ready)
        hidden = len(ordered) - room + 1
    for r in ordered[: len(ordered) - hidden]:
        style = "green" if r.ready else "red" if r.state == "failed" else "yellow"
        state = Text.assemble(("● ", style), "ready" if r.ready else r.state)
        note = r.message if not r.ready else f"restarts: {r.restarts}" if r.restarts else ""
        name = (r.name, *((r.namespace,) if wide else ()))
        capture = (r.capture,) if wide else ()
        table.add_row(
            *map(Text, name), state, Text(r.address), *capture, r.certificate, Text(note, style="dim")
        )
    below = [f"and {hidden} more, {sum(r.ready for r in ordered[-hidden:])} of them ready"] if hidden else []
    return Group(table, *(Text(line) for line in (*below, *([change] if change else []))))


def view(*, terminal: bool) -> View:
    """The view for where output goes."""
    return Table() if terminal else Lines()
