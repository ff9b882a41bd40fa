"""Traffic as text: aligned tables, numbers with units, and nothing that a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

NONE: Final = "-"
_BAD, _DOUBTFUL = 0.95, 0.99
_SECOND: Final = 1_000
_GAP: Final = 2
_SHORTEST: Final = 12
_KILO: Final = 1_024


def inert(text: object) -> str:
    """Without characters that a terminal would obey, or that turn or hide what stands beside them."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(text))


def width(text: str) -> int:
    """Columns that it takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, columns: int) -> str:
    """The text in exactly so many columns."""
    text = shorten(text, columns)
    return text + " " * (columns - width(text))


def shorten(text: str, columns: int) -> str:
    """The text in at most so many columns."""
    if width(text) <= columns:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(0, columns - 1)).rstrip() + "…"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    colours: Mapping[str, str] = {},
    columns: int | None = None,
    whole: int = 0,
    shortest: int = _SHORTEST,
) -> str:
    """Aligned columns, the first ``left`` of them to the left.

    ``colours``: of cells that say just this. ``columns``: of the terminal, where there is one; the longest of
    the left columns, but for the first ``whole``, are cut so that the numbers are seen, though not below
    ``shortest``.
    """
    clean = [[inert(cell) for cell in row] for row in rows]
    widths = [max(width(cell) for cell in column) for column in zip(head, *clean, strict=True)]
    while columns is not None and sum(widths) + _GAP * (len(widths) - 1) > columns:
        longest = max(range(whole, left), key=lambda place: widths[place])
        if widths[longest] <= shortest:
            break
        widths[longest] -= 1

    def line(cells: Sequence[str], paint: bool) -> str:
        made = []
        for place, (cell, most) in enumerate(zip(cells, widths, strict=True)):
            text = shorten(cell, most)
            space = " " * (most - width(text))
            shown = click.style(text, fg=colours[cell]) if paint and cell in colours else text
            made.append(shown + space if place < left else space + shown)
        return (" " * _GAP).join(made).rstrip()

    return "\n".join([line(head, False), *(line(row, bool(colours)) for row in clean)])


def terminal_columns() -> int | None:
    """How wide the terminal is; None when standard output is none."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def rate(value: float | None) -> str:
    """``12.5``."""
    return NONE if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def share(value: float | None) -> str:
    """``99.12%``; never 100 for what is less, nor 0 for what is more."""
    if value is None:
        return NONE
    shown = f"{value:.2%}"
    if shown == "100.00%" and value < 1:
        return "99.99%"
    return "<0.01%" if shown == "0.00%" and value > 0 else shown


def ms(value: float | None) -> str:
    """``7ms``, ``0.5ms``, ``1.25s``."""
    if value is None:
        return NONE
    if value >= _SECOND:
        return f"{value / _SECOND:.3g}s" if value < 100 * _SECOND else f"{value / _SECOND:.0f}s"
    return f"{value:.2g}ms" if value < 10 else f"{value:.0f}ms"


def whole_ms(value: int) -> str:
    """What was measured in whole ms: ``<1ms``, ``7ms``."""
    return ms(value) if value else "<1ms"


def size(value: float | None) -> str:
    """``12B``, ``3.4KiB``."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KILO:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
        value /= _KILO
    return f"{value:.1f}TiB"


def identity(principal: str) -> str:
    """``shop/front`` for ``spiffe://cluster.local/ns/shop/sa/front``; others whole."""
    parts = principal.split("/")
    if len(parts) == 7 and parts[0] == "spiffe:" and (parts[3], parts[5]) == ("ns", "sa"):
        return f"{parts[4]}/{parts[6]}"
    return principal or NONE


def judged(value: float | None) -> dict[str, str]:
    """The colour of a share of successes, by its text."""
    if value is None:
        return {}
    return {share(value): "red" if value < _BAD else "yellow" if value < _DOUBTFUL else "green"}


def has_connections(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any row tells of TCP."""
    return any(row.get(name) for row in rows for name in ("opened", "connections", "sent", "received"))


HTTP_HEAD: Final = ("REQUESTS", "SUCCESS", "RPS", "P50", "P95", "P99", "MTLS")
TCP_HEAD: Final = ("CONNS", "SENT/S", "RECEIVED/S")


def signals(row: Mapping[str, Any], *, tcp: bool) -> list[str]:
    """The cells under ``HTTP_HEAD`` (and ``TCP_HEAD``)."""
    cells = [f"{row['requests']:.0f}", share(row["success"]), rate(row["rps"])]
    cells += [ms(row[name]) for name in ("p50", "p95", "p99")]
    cells.append(f"{row['mtls']:.0%}" if row["mtls"] in (0, 1) else share(row["mtls"]))
    if tcp:
        cells += [
            str(row.get("connections") or 0),
            size(row["sentPerSecond"]),
            size(row["receivedPerSecond"]),
        ]
    return cells
