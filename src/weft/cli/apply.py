"""``weft apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weft.cli.documents import refuse_errors
from weft.cli.server import (
    UNCHANGED,
    connect,
    files_option,
    namespace_option,
    place,
    read_objects,
    server_option,
    show,
    warn,
)
from weft.errors import WeftError
from weft.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weft.client import ApiClient
    from weft.model.parse import Part


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@files_option
@namespace_option
@server_option
@click.option("--wait", is_flag=True, help="Until every proxy concerned runs it.")
@click.option("--timeout", default="30s", show_default=True, help="How long --wait waits.")
@click.option(
    "--dry-run",
    type=click.Choice(["server", "client"]),
    is_flag=False,
    flag_value="server",
    help="Only say what would happen: checked by the control plane, or here.",
)
@click.option("--force", is_flag=True, help="Also what belongs to a directory: detach it from there.")
@click.option("--strict", is_flag=True, help="Warnings make the exit code 1.")
@click.option(
    "-o",
    "--output",
    "output",
    type=click.Choice(["json", "yaml", "name"]),
    help="Print the objects, or names.",
)
def apply(
    paths: tuple[str, ...], files: tuple[str, ...], namespace: str, server: str | None, wait: bool,
    timeout: str, dry_run: str | None, force: bool, strict: bool, output: str | None,
) -> None:  # fmt: skip
    """Create or change what the files say, all of it or nothing.

    What an earlier apply said and this one does not any more is removed from the objects, as kubectl does.
    """
    try:
        seconds = parse_duration(timeout).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    parts, problems = read_objects([*paths, *files], namespace)
    warnings = warn(problems)
    if dry_run == "client":
        for part in parts:
            click.echo(f"{_named(part)} valid (client dry run)")
    elif parts:
        answer = connect(server, lambda client: send(client, parts, namespace, dry_run=bool(dry_run),
                                                     force=force, wait=wait, seconds=seconds))  # fmt: skip
        told = {str(problem) for problem in problems}
        answered = (place(problem, index, parts) for index, problem in answer["found"])
        warnings += warn(problem for problem in answered if str(problem) not in told)
        _print(answer, output, dry_run=bool(dry_run))
        if wait:
            _report(answer.get("convergence") or {}, timeout)
    if strict and warnings:
        raise click.exceptions.Exit(1)


async def send(
    client: ApiClient, parts: Sequence[Part], namespace: str, *, dry_run: bool = False, force: bool = False,
    wait: bool = False, seconds: float = 30, delete: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One transaction; the API's answer, with its warnings as ``found``: (index, problem).

    Raises:
        WeftError: with every problem at its file and line, when the API refuses.
    """
    from weft.client.api import RefusedError, problem_of, problems_of
    from weft.model.local import localize

    try:
        answer = await client.apply(
            [localize(part) for part in parts], namespace=namespace, dry_run=dry_run, force=force, wait=wait,
            seconds=seconds, delete=delete, whole=True,
        )  # fmt: skip
    except RefusedError as refused:
        refuse_errors((place(problem, index, parts) for index, problem in problems_of(refused)), UNCHANGED)
        raise
    answer["found"] = [(entry["index"], problem_of(entry)) for entry in answer["warnings"]]
    return answer


def _named(part: Part) -> str:
    from weft.model.catalog import by_kind

    row = by_kind(str(part.data.get("apiVersion")), str(part.data.get("kind")))
    name = (part.data.get("metadata") or {}).get("name", "")
    kind = row.singular + (f".{row.group}" if row.group else "") if row else str(part.data.get("kind"))
    return f"{kind}/{name}"


def _print(answer: dict[str, Any], output: str | None, *, dry_run: bool) -> None:
    results = answer["results"]
    if output in {"json", "yaml"}:
        after = [result["after"] for result in results if result["after"]]
        whole = after[0] if len(after) == 1 else {"apiVersion": "v1", "kind": "List", "items": after}
        click.echo(show(whole, output))
        return
    for result in results:
        group = f".{result['group']}" if result["group"] else ""
        name = f"{result['singular']}{group}/{result['name']}"
        if output == "name":
            click.echo(name)
        else:
            click.echo(f"{name} {result['action']}{' (server dry run)' if dry_run else ''}")


def made_of(sources: Sequence[str] | None) -> str:
    """The resources that a refused piece of configuration comes from, in parentheses."""
    return f" (from {', '.join(sources)})" if sources else ""


def _report(report: dict[str, Any], timeout: str) -> None:
    total = int(report.get("total", 0))
    if report.get("converged"):
        click.echo(f"live on {total} prox{'y' if total == 1 else 'ies'}", err=True)
        return
    if rejected := report.get("rejected"):
        lines = [
            f"{one['proxy']} refuses {one['name']}{made_of(one.get('sources'))}: {one['error']}"
            for one in rejected
        ]
        raise WeftError(
            "refused by a proxy:\n  " + "\n  ".join(lines),
            hint="the rest of the change is live; correct what it came from, see weft proxy status",
        )
    missing = [str(name) for name in report.get("missing", ())]
    raise WeftError(
        f"not live everywhere after {timeout}: {len(missing)} of {total} missing"
        + (f": {', '.join(missing)}" if missing else ""),
        hint="the change is accepted and goes on; see weft proxy status",
    )
