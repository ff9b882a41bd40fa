"""``weft graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, server_option
from weft.cli.traffic import check, namespace_options, nothing, question, window_option

if TYPE_CHECKING:
    from weft.client import ApiClient


@click.command()
@click.option(
    "-o", "--output", type=click.Choice(["text", "dot", "mermaid", "json", "yaml"]), default="text",
    show_default=True,
)  # fmt: skip
@window_option
@namespace_options
@server_option
def graph(output: str, window: str, namespace: str, everywhere: bool, server: str | None) -> None:
    """Which services depend on which, as a graph of the calls that were seen.

    dot is for Graphviz (weft graph -o dot | dot -Tsvg), mermaid for Markdown. Dashed lines are not secured by
    mutual TLS; colours tell how well the calls went.

    \b
    weft graph -n shop -t 1h
    weft graph -o dot | dot -Tsvg > graph.svg
    """
    from weft.telemetry import graph as forms

    check(window, namespace, everywhere)

    async def fetch(client: ApiClient) -> dict[str, Any]:
        return await question(client, "edges", window=window, namespace=namespace)

    answer = connect(server, fetch)
    arcs = forms.read(answer["edges"])
    if output in {"json", "yaml"}:
        from weft.cli.server import show

        times = {name: answer[name] for name in ("from", "to", "window")}
        click.echo(show({**times, **forms.to_dict(arcs)}, output))
        return
    if not arcs:
        click.echo(nothing(window), err=True)
    make = {"text": forms.text, "dot": forms.dot, "mermaid": forms.mermaid}[output]
    for line in make(arcs):
        click.echo(line)
