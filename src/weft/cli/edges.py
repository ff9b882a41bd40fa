"""``weft edges``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

if TYPE_CHECKING:
    from weft.client import ApiClient
    from weft.telemetry.targets import Target

Wire = dict[str, Any]


@click.command()
@click.argument("target", metavar="[SERVICE|WORKLOAD]", required=False)
@window_option
@namespace_options
@watch_option
@output_option
@server_option
def edges(
    target: str | None, window: str, namespace: str, everywhere: bool, watch: bool, output: str,
    server: str | None,
) -> None:  # fmt: skip
    """Who calls whom: with which identity, over which TLS, how often, how well.

    TOLD BY says whose word it is: both, source or destination. An identity is out of the certificate that was
    shown; without one there is none.

    \b
    weft edges                 of the whole mesh
    weft edges reviews -t 1h   to and from reviews
    """
    check(window, namespace, everywhere)

    async def fetch(client: ApiClient) -> Wire:
        if target is None:
            return await question(client, "edges", window=window, namespace=namespace)
        found = await find_target(client, target, namespace)
        answer = await question(client, "edges", window=window)
        return {**answer, "edges": touching(answer["edges"], found)}

    def show(answer: Wire) -> str:
        if output != "table":
            from weft.cli.server import show as dump

            return dump(answer, output)
        return text(answer["edges"], colour=coloured()) if answer["edges"] else nothing(window, target or "")

    print_again(server, fetch, show, watch)


def touching(found: Iterable[Wire], target: Target) -> list[Wire]:
    """Edges that begin or end there."""

    def is_it(edge: Wire) -> bool:
        if target.kind == "service":
            service = edge["service"]
            return (service["namespace"], service["name"]) == (target.namespace, target.name)
        ends = (edge["source"], edge["destination"])
        return any((end["namespace"], end["workload"]) == (target.namespace, target.name) for end in ends)

    return [edge for edge in found if is_it(edge)]


def text(found: Iterable[Wire], *, colour: bool = False) -> str:
    """The edges as a table."""
    from weft.cli.traffic_text import identity, judged, ms, rate, share, size, table, terminal_columns

    head = ("FROM", "TO", "SERVICE", "IDENTITY", "TLS", "TOLD BY", "SUCCESS", "RPS", "P95", "BYTES/S")
    colours = {"none": "yellow", "some": "yellow", "mtls": "green"}
    rows = []
    for edge in found:
        told = edge["toldBy"]
        moved = (edge["sentPerSecond"] or 0) + (edge["receivedPerSecond"] or 0)
        rows.append(
            [
                end(edge["source"]),
                end(edge["destination"], "-" if edge["service"]["host"] else "nobody"),
                edge["service"]["name"] or edge["service"]["host"] or "-",
                identity(edge["source"]["principal"]),
                security(edge),
                "both" if len(told) > 1 else "".join(told),
                share(edge["success"]),
                rate(edge["rps"]) if edge["protocol"] != "tcp" else "-",
                ms(edge["p95"]),
                size(moved) if moved else "-",
            ]
        )
        colours |= judged(edge["success"])
    return table(head, rows, left=6, colours=colours if colour else {}, columns=terminal_columns())


def end(who: Mapping[str, Any], unknown: str = "outside") -> str:
    """An end of a call by its name; ``unknown``: what to say of one that tells nothing of itself."""
    if who["workload"]:
        return f"{who['namespace']}/{who['workload']}"
    return unknown if who["kind"] in {"", "outside"} else str(who["kind"])


def security(edge: Wire) -> str:
    """``mtls`` where all of it was, ``some`` where a share was, else ``none``."""
    if edge["secured"]:
        return "mtls"
    return "some" if edge["mtls"] else "none"
