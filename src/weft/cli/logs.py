"""``weft logs``."""

from __future__ import annotations

import asyncio
import sys

import click

from weft.errors import UsageError
from weft.node.layout import DEFAULT_MESH


@click.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--proxy", is_flag=True, help="What the sidecar says, its access log with it.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many of the last lines.")
@click.option(
    "--explain-flags/--no-explain-flags",
    default=None,
    help="With --proxy, below a request that went wrong: what its response flags mean, and what helps. "
    "Default: on a terminal. Without NAME: all flags.",
)
@click.option("--mesh", default=DEFAULT_MESH, show_default=True, help="Name of the mesh on this machine.")
def logs(
    name: str | None, follow: bool, proxy: bool, lines: int, explain_flags: bool | None, mesh: str
) -> None:
    """Output of workload NAME (or NAME.NAMESPACE) that this host's node runs, or of its sidecar."""
    from weft.cli.nodes import find_socket

    if name is None:
        if explain_flags and not (proxy or follow):
            click.echo(_all_flags())
            return
        raise UsageError("logs of what?", hint="weft logs NAME; weft ps lists names")
    if explain_flags and not proxy:
        raise UsageError("only proxies write response flags", hint="weft logs NAME --proxy --explain-flags")
    if explain_flags is None:
        explain_flags = sys.stdout.isatty()
    request: dict[str, object] = {
        "op": "logs",
        "id": name,
        "source": "proxy" if proxy else "app",
        "follow": follow,
        "lines": lines,
    }
    asyncio.run(_print(str(find_socket(mesh)), request, explained=proxy and explain_flags))


def _all_flags() -> str:
    from weft.analysis.response_flags import FLAGS

    return "\n".join(f"{flag.short:<6} {flag.meaning}: {flag.remedy}" for flag in FLAGS.values())


async def _print(path: str, request: dict[str, object], *, explained: bool) -> None:
    from contextlib import aclosing
    from pathlib import Path

    from weft.analysis.response_flags import flags_of_line
    from weft.app.nodesocket import NodeSocket

    async with aclosing(NodeSocket(Path(path)).events(request)) as events:
        async for event in events:
            if event["event"] == "end":
                return
            if event["event"] == "log":
                click.echo(event["line"])
                for flag in flags_of_line(event["line"]) if explained else ():
                    click.secho(f"    {flag.short}: {flag.meaning}: {flag.remedy}", fg="yellow")
