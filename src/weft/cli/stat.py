"""``weft stat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import server_option
from weft.cli.traffic import (
    check,
    coloured,
    find_target,
    namespace_options,
    nothing,
    output_option,
    print_again,
    question,
    watch_option,
    window_option,
)
from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.client import ApiClient
    from weft.telemetry.targets import Target

Wire = dict[str, Any]
_BY = ("workload", "service", "version", "caller", "route", "path", "code", "protocol", "instance")
_NOBODY = {"workload": "(no workload)", "service": "(no service)", "route": "(no route)"}
_HEADS = {"caller": "CALLER", "route": "ROUTE", "path": "PATH", "code": "CODE", "protocol": "PROTOCOL"}


@click.command()
@click.argument("target", metavar="[SERVICE|WORKLOAD]", required=False)
@click.option("--by", type=click.Choice(_BY), help="What the rows differ in.")
@click.option("--outbound", is_flag=True, help="What it calls, instead of what it answers.")
@window_option
@namespace_options
@watch_option
@output_option
@server_option
def stat(
    target: str | None, by: str | None, outbound: bool, window: str, namespace: str, everywhere: bool,
    watch: bool, output: str, server: str | None,
) -> None:  # fmt: skip
    """How services and workloads do: success, rate, latency, mutual TLS, bytes.

    Without a name: all of them. Names are NAME, NAMESPACE/NAME, svc/NAME, deploy/NAME or a host. Counts are
    exact, but by route and path, where they are estimated from a sample of the requests.

    \b
    weft stat -n shop                     how all of a namespace do
    weft stat reviews --by caller         for whom is it red?
    weft stat svc/reviews --window 15m -w
    """
    check(window, namespace, everywhere)

    async def fetch(client: ApiClient) -> Wire:
        asked = {"window": window, "namespace": namespace, "direction": "outbound" if outbound else ""}
        if target is None:
            return await question(client, "stat", by=by or "workload", **asked)
        found = await find_target(client, target, namespace)
        if outbound and found.kind == "service":
            found = await _caller(client, found)
        wanted = by or ("version" if found.kind == "service" else "workload")
        return await question(client, "stat", by=wanted, of=found.of, **asked)

    def show(answer: Wire) -> str:
        if output != "table":
            from weft.cli.server import show as dump

            return dump(answer, output)
        return text(answer, colour=coloured()) if answer["rows"] else nothing(window, target or "")

    print_again(server, fetch, show, watch)


async def _caller(client: ApiClient, service: Target) -> Target:
    """The workload behind a service: services answer, and workloads call.

    Raises:
        WeftError: there is none, or several.
    """
    from weft.telemetry.targets import behind

    names = behind(await question(client, "workloads", window="1h"), service)
    if len(names) == 1:
        return names[0]
    several = ", ".join(map(str, names)) or "no workload that was heard of"
    raise WeftError(f"behind {service} is {several}", hint="name a workload: weft stat --outbound WORKLOAD")


def text(answer: Wire, *, colour: bool = False) -> str:
    """The answer as a table, with a line of all when there are several rows."""
    from weft.cli.traffic_text import (
        HTTP_HEAD,
        TCP_HEAD,
        has_connections,
        identity,
        judged,
        signals,
        table,
        terminal_columns,
    )

    by, rows = str(answer["by"]), answer["rows"]
    tcp = has_connections(rows)
    head = [_HEADS.get(by, by.upper()), *HTTP_HEAD, *(TCP_HEAD if tcp else ())]
    colours: dict[str, str] = {}
    shown = []
    for row in rows:
        key = str(row["key"])
        if by == "caller":
            source = row.get("source") or {}
            who = f"{source.get('namespace')}/{source.get('workload')}" if source.get("workload") else ""
            key = who or (identity(key) if key else "(no identity)")
        shown.append([key or _NOBODY.get(by, "-"), *signals(row, tcp=tcp)])
        colours |= judged(row["success"])
    if len(rows) > 1:
        shown.append(["all", *signals(answer["total"], tcp=tcp)])
        colours |= judged(answer["total"]["success"])
    made = table(head, shown, colours=colours if colour else {}, columns=terminal_columns())
    if answer.get("sampled"):
        made += "\n\nestimated from a sample of the requests (MeshConfig flowSampling; errors are all in it)"
    return made
