"""``weft top``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from weft.cli.server import connect, server_option
from weft.cli.tap import filter_options, filters, lasting, watch
from weft.cli.traffic import coloured, namespace_options, output_option, screen

if TYPE_CHECKING:
    from weft.client import ApiClient
    from weft.telemetry.top import Line, Top

Wire = dict[str, Any]
_SNAPSHOT_S: Final = 5.0
_DRAW_S: Final = 1.0
_SORTS: Final = {"count": "count", "errors": "errors", "worst": "worst", "last": "last"}


@click.command()
@click.argument("target", metavar="[SERVICE|WORKLOAD]", required=False)
@filter_options
@click.option("--sort", type=click.Choice(list(_SORTS)), default="count", show_default=True)
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@click.option("--whole-paths", is_flag=True, help="As they are, not as /users/{*}.")
@click.option("--for", "limit", metavar="DURATION", help=f"End after this. In a pipe: {_SNAPSHOT_S:g}s.")
@namespace_options
@output_option
@server_option
def top(
    target: str | None, method: str, path: str, host: str, status: str, caller: str, errors: bool, slow: str,
    sort: str, rows: int, whole_paths: bool, limit: str | None, namespace: str, everywhere: bool,
    output: str, server: str | None,
) -> None:  # fmt: skip
    """Which paths are called most, live: by caller and method, with success and latencies.

    Proxies tell of all requests while it runs, as for weft tap. On a terminal it goes on until Ctrl-C; in a
    pipe it listens for some seconds and prints one table.

    \b
    weft top reviews --errors
    weft top -n shop --sort worst --for 30s
    """
    from weft.telemetry.top import Top

    wanted = filters(
        method=method, path=path, host=host, status=status, caller=caller, errors=errors, slow=slow
    )
    seen = Top(paths=not whole_paths)
    live = output == "table" and sys.stdout.isatty()
    seconds = lasting(limit)
    if not live and seconds is None:
        seconds = _SNAPSHOT_S
    clock = _Clock()

    async def run(client: ApiClient) -> None:
        with screen() if live else contextlib.nullcontext() as draw:
            drawn = 0.0
            async with contextlib.aclosing(
                watch(client, target, namespace, everywhere, wanted, seconds)
            ) as lines:
                async for line in lines:
                    if "started" in line:
                        clock.start()
                    if record := line.get("record"):
                        seen.add(record)
                    elif draw is not None and time.monotonic() - drawn >= _DRAW_S:
                        drawn = time.monotonic()
                        draw(text(seen.lines(_SORTS[sort])[:rows], clock.seconds, colour=coloured()))

    with contextlib.suppress(KeyboardInterrupt):
        connect(server, run)
    if not live:
        _print(seen, sort, rows, clock.seconds, output)


def _print(seen: Top, sort: str, rows: int, seconds: float, output: str) -> None:
    found = seen.lines(_SORTS[sort])[:rows]
    if output != "table":
        from weft.cli.server import show

        click.echo(
            show({"seconds": round(seconds, 3), "rows": [line.to_dict(seconds) for line in found]}, output)
        )
    elif found:
        click.echo(text(found, seconds))
    else:
        click.echo(f"no request came within {seconds:.0f} s; listen longer with --for", err=True)


class _Clock:
    """How long it has listened."""

    def __init__(self) -> None:
        self._began: float | None = None

    def start(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return 0.0 if self._began is None else max(0.001, time.monotonic() - self._began)


def text(lines: Sequence[Line], seconds: float, *, colour: bool = False) -> str:
    """The table."""
    from weft.cli.traffic_text import identity, judged, rate, share, table, terminal_columns, whole_ms

    head = ("CALLER", "WORKLOAD", "METHOD", "PATH", "COUNT", "RPS", "SUCCESS", "BEST", "WORST", "LAST")
    rows = [
        [
            identity(line.caller) if line.caller else "(no identity)",
            line.workload,
            line.method,
            line.path or "-",
            f"{line.count:.0f}",
            rate(line.count / seconds if seconds else None),
            share(line.success),
            whole_ms(line.best),
            whole_ms(line.worst),
            whole_ms(line.last),
        ]
        for line in lines
    ]
    colours: dict[str, str] = {}
    for line in lines:
        colours |= judged(line.success)
    if not rows:
        return f"no request came within {seconds:.0f} s"
    return table(
        head, rows, left=4, colours=colours if colour else {}, columns=terminal_columns(), shortest=9
    )
