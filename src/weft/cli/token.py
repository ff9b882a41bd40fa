"""``weft token``: what a host needs to join the mesh."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, server_option, show
from weft.errors import UsageError, WeftError
from weft.units import parse_duration

if TYPE_CHECKING:
    from weft.client import ApiClient

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print."
)


@click.group()
def token() -> None:
    """Join tokens: short-lived secrets that make a host a node of the mesh."""


@token.command()
@click.option(
    "--allow",
    multiple=True,
    metavar="NS[/ACCOUNT]",
    help="Which service accounts the node may host; may be repeated. Default: all.",
)
@click.option("--node", default="", metavar="NAME", help="Only for this node, which may be a known one.")
@click.option(
    "--for", "lifetime", default="1h", show_default=True, metavar="DURATION", help="How long it lives."
)
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1), help="How many hosts may join.")
@output_option
@server_option
def create(
    allow: tuple[str, ...], node: str, lifetime: str, uses: int, output: str, server: str | None
) -> None:
    """Make a token. It is shown this once; give it to 'weft node --token'."""
    try:
        parse_duration(lifetime)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from error
    asked = {"allow": list(allow) or None, "node": node, "lifetime": lifetime, "uses": uses}
    made = _ask(server, "POST", "/weft/v1/tokens", asked)
    if output != "table":
        click.echo(show(made, output))
        return
    click.echo(made["token"])
    if sys.stdout.isatty():
        times = "once" if uses == 1 else f"{uses} times"
        click.echo(
            f"usable {times} until {made['expires']}, to host {', '.join(made['allow'])}\n"
            "on the new host: weft node --control-plane https://THIS-HOST:15017 --token TOKEN",
            err=True,
        )


@token.command("list")
@output_option
@server_option
def list_tokens(output: str, server: str | None) -> None:
    """Tokens of the last days; their secrets are not kept."""
    found = _ask(server, "GET", "/weft/v1/tokens")["tokens"]
    if output != "table":
        click.echo(show(found, output))
        return
    rows = [("ID", "STATE", "USED", "EXPIRES", "ALLOWS", "NODE")]
    rows += [
        (
            entry["id"],
            entry["state"],
            f"{entry['used']}/{entry['uses']}",
            entry["expires"],
            ",".join(entry["allow"]),
            entry["node"] or "",
        )
        for entry in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


@token.command()
@click.argument("token_id", metavar="ID")
@server_option
def revoke(token_id: str, server: str | None) -> None:
    """Make a token unusable. Nodes that have joined with it stay."""
    # A whole token is accepted too; only its id is sent.
    short = token_id.split(".")[1] if token_id.startswith("weft1.") and "." in token_id else token_id
    _ask(server, "DELETE", f"/weft/v1/tokens/{short}")
    click.echo(f"token {short} revoked")


def _ask(server: str | None, method: str, path: str, body: Any = None) -> Any:
    from weft.client import RefusedError

    async def work(client: ApiClient) -> Any:
        try:
            return await client.raw(method, path, body)
        except RefusedError as refusal:
            raise WeftError(
                refusal.message, hint=str(refusal.status.get("hint") or refusal.hint)
            ) from refusal

    return connect(server, work)
