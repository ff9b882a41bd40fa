"""``weft nodes``: the hosts of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, server_option, show
from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.client import ApiClient

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print."
)


@click.group()
def nodes() -> None:
    """Hosts that have joined the mesh, and what each may run. They join by `weft node`."""


@nodes.command("list")
@output_option
@server_option
def list_nodes(output: str, server: str | None) -> None:
    """Which hosts have joined, whether they are connected, and which identities they may host."""
    found = _ask(server, "GET", "/weft/v1/nodes")["nodes"]
    if output != "table":
        click.echo(show(found, output))
        return
    rows = [("NAME", "CONNECTED", "WORKLOADS", "ALLOWS", "ADDRESSES", "JOINED")]
    rows += [
        (
            node["name"],
            "yes" if node["connected"] else "no",
            str(len(node["instances"])),
            ",".join(node["allow"]),
            ",".join(node["addresses"]),
            node["joined"],
        )
        for node in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


@nodes.command()
@click.argument("name")
@server_option
def remove(name: str, server: str | None) -> None:
    """Put a host out of the mesh: its certificate opens nothing from now on.

    Its workloads leave all endpoints at once. What they hold stays good until it expires; of a host that was
    broken into, revoke it: `weft ca revoke --node NAME`. To let the host in again: `weft token create --node
    NAME`, then `weft node` with that token.
    """
    _ask(server, "DELETE", f"/weft/v1/nodes/{name}")
    click.echo(f"node {name} removed")


def _ask(server: str | None, method: str, path: str) -> Any:
    from weft.client import RefusedError

    async def work(client: ApiClient) -> Any:
        try:
            return await client.raw(method, path)
        except RefusedError as refusal:
            hint = str(refusal.status.get("hint") or refusal.hint)
            raise WeftError(refusal.message, hint=hint) from refusal

    return connect(server, work)
