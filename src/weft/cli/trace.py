"""``weft trace``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from weft.cli.server import connect, server_option
from weft.cli.traffic import check, coloured, output_option, question
from weft.errors import UsageError, WeftError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weft.client import ApiClient
    from weft.telemetry.waterfall import Row

Wire = dict[str, Any]
_ID: Final = re.compile(r"[0-9a-f]{32}")
_REQUEST: Final = re.compile(r"[!-~]{1,64}")
# ``--slow`` without a duration.
_ANY: Final = "*"
# How long bars are on a terminal that has at least so many columns.
_BARS: Final = ((90, 30), (64, 14))
_COLUMNS: Final = 120
_PROXIES: Final = ("http.status_code", "response_flags", "upstream_cluster.name", "upstream_cluster")


@click.command()
@click.argument("trace_id", metavar="[ID]", required=False)
@click.option(
    "--slow", metavar="[DURATION]", is_flag=False, flag_value=_ANY,
    help="The slowest first; only those that took so long at least, as 100ms.",
)  # fmt: skip
@click.option("--errors", is_flag=True, help="Only those in which something failed.")
@click.option(
    "--service", metavar="NAME", default="", help="Only those that passed it: NAME or NAMESPACE/NAME."
)
@click.option("--since", default="1h", show_default=True, metavar="DURATION", help="How far back to look.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many at most.")
@output_option
@server_option
def trace(
    trace_id: str | None, slow: str | None, errors: bool, service: str, since: str, limit: int,
    output: str, server: str | None,
) -> None:  # fmt: skip
    """Traces that were kept, or one of them with all of its spans.

    ID is that of a trace, or of a request (x-request-id, as access logs and weft tap have it).

    \b
    weft trace --errors --service reviews
    weft trace --slow 250ms --since 15m
    weft trace 162935742d55d4f9f71686d9388fe14f
    """
    if trace_id is not None:
        _show_one(trace_id.lower(), output, server)
        return
    check(since, "", everywhere=False, option="--since")

    async def fetch(client: ApiClient) -> Wire:
        return await question(
            client, "traces", since=since, slow="" if slow in {None, _ANY} else slow,
            sort="slowest" if slow else "",
            errors="true" if errors else "", service=service, limit=str(limit),
        )  # fmt: skip

    answer = connect(server, fetch)
    if output != "table":
        from weft.cli.server import show

        click.echo(show(answer, output))
        return
    if not answer["traces"]:
        hint = "which requests are traced is up to tracing's sampling (1 % unless you say otherwise)"
        click.echo(f"no such trace was told of in the last {since}: {hint}", err=True)
        return
    click.echo(listing(answer["traces"], colour=coloured()))


def _show_one(text: str, output: str, server: str | None) -> None:
    from weft.cli.traffic_text import terminal_columns
    from weft.telemetry.waterfall import waterfall

    async def fetch(client: ApiClient) -> Wire:
        found = text if _ID.fullmatch(text) else await _of_request(client, text)
        return await question(client, "trace", id=found)

    answer = connect(server, fetch)
    rows = waterfall(answer["spans"])
    if not rows:
        raise WeftError(
            f"no span of {text} was told of",
            hint="spans come a few seconds late and are kept for six hours; weft trace lists what there is",
        )
    if output != "table":
        from weft.cli.server import show

        spans = [row.to_dict() for row in rows]
        click.echo(show({"trace": answer["trace"], "spans": spans}, output))
        return
    columns = terminal_columns() or _COLUMNS
    for line in tree(answer["trace"], rows, columns=columns, colour=coloured()):
        click.echo(line)


async def _of_request(client: ApiClient, request: str) -> str:
    """The trace in which a request was.

    Raises:
        WeftError: no record of it was kept, or it was in no trace.
    """
    if not _REQUEST.fullmatch(request):
        raise UsageError(f"{request[:40]!r} is no id", hint="a trace is 32 hex digits")
    records = (await question(client, "records", request=request, limit="10"))["records"]
    found = next((str(record["trace"]) for record in records if record.get("trace")), "")
    if not found:
        raise WeftError(
            f"no trace of the request {request} is known",
            hint="of those that go well only a share is recorded; weft explain reads access logs",
        )
    return found


def listing(found: Iterable[Wire], *, colour: bool = False) -> str:
    """Traces as a table."""
    from datetime import UTC, datetime

    from weft.cli.traffic_text import ms, table, terminal_columns

    rows = []
    for one in found:
        began = datetime.fromtimestamp(one["start"] / 1_000, UTC)
        root = one["root"]
        rows.append(
            [
                one["trace"],
                f"{began:%H:%M:%S}",
                f"{root['namespace']}/{root['service']}",
                root["title"],
                root["code"] or "-",
                ms(one["duration"]),
                str(one["spans"]),
                f"{one['errors']} failed" if one["errors"] else "-",
            ]
        )
    head = ("TRACE", "BEGAN", "AT", "REQUEST", "CODE", "TOOK", "SPANS", "ERRORS")
    colours = {row[-1]: "red" for row in rows if row[-1] != "-"} if colour else {}
    return table(head, rows, left=4, colours=colours, columns=terminal_columns(), whole=1)


def tree(
    trace_id: str, rows: tuple[Row, ...], *, columns: int = _COLUMNS, colour: bool = False
) -> Iterable[str]:
    """The waterfall: who, for how long, when, what, and how it went. No line is longer than ``columns``."""
    from weft.cli.traffic_text import fit, inert, ms, shorten, width

    whole = max(row.offset + row.duration for row in rows) or 1.0
    failed = sum(row.failed for row in rows)
    services = len({row.service for row in rows})
    yield (
        f"trace {inert(trace_id)}: {ms(whole)}, {len(rows)} spans of {services} services"
        + (f", {failed} failed" if failed else "")
    )
    bar = next((size for least, size in _BARS if columns >= least), 0)
    names = [_branch(row) + inert(row.service.rpartition("/")[2]) for row in rows]
    name_columns = min(max(map(width, names)), max(12, columns // 3))
    for row, name in zip(rows, names, strict=True):
        how = " ".join(filter(None, (row.code, inert(row.flags), _notes(row))))
        left = columns - name_columns - 3 - 8 - 2 - (bar + 2)
        what = shorten(f"{_arrow(row)} {inert(row.title)}  {how}".rstrip(), max(10, left))
        line = f"{fit(name, name_columns)}  {ms(row.duration):>8}  {_bar(row, whole, bar)}{what}".rstrip()
        if colour and row.failed:
            line = click.style(line, fg="red")
        elif colour and row.kind == "client":
            line = click.style(line, dim=True)
        yield line
    yield from _remedies(rows)


def _remedies(rows: tuple[Row, ...]) -> Iterator[str]:
    """What the response flags mean, each once."""
    from weft.analysis.response_flags import in_words
    from weft.cli.traffic_text import inert

    for flags in dict.fromkeys(row.flags for row in rows if row.flags):
        if words := in_words(flags):
            yield f"{inert(flags)}: {words}"


def _branch(row: Row) -> str:
    """The lines that lead from the row above to this one."""
    if not row.depth:
        return ""
    above = "".join("   " if last else "│  " for last in row.last[1:-1])
    return above + ("└─ " if row.last[-1] else "├─ ")


def _arrow(row: Row) -> str:
    """Into the service, or out of it."""
    return {"server": "<-", "client": "->"}.get(row.kind, "--")


def _notes(row: Row) -> str:
    notes = []
    if row.attempts > 1:
        notes.append(f"{row.attempts} tries")
    if row.orphan:
        notes.append("its caller's span is missing")
    return f"({', '.join(notes)})" if notes else ""


def _bar(row: Row, whole: float, columns: int) -> str:
    """When it was, within the whole."""
    if not columns:
        return ""
    begin = min(columns - 1, max(0, int(row.offset / whole * columns)))
    length = max(1, min(columns - begin, round(row.duration / whole * columns)))
    return f"{' ' * begin}{'█' * length}{' ' * (columns - begin - length)}  "
