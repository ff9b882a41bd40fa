"""``weft ca``: the authority that signs every certificate of the mesh."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from weft.cli.server import connect, server_option, show
from weft.errors import UsageError, WeftError
from weft.units import parse_duration

if TYPE_CHECKING:
    from weft.client import ApiClient

_ROOT: Final = "/weft/v1/ca"
_POLL_S: Final = 0.5
_STEPS: Final = {
    "trust-new": "1/3 everybody learns to trust the new root",
    "sign-with-new": "2/3 every certificate is issued anew",
    "drop-old": "3/3 the old root is forgotten",
}
_PEM: Final = click.Path(path_type=Path, exists=True, dir_okay=False)

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print."
)


@click.group()
def ca() -> None:
    """The certificate authority: its state, its replacement, what it issued and revoked."""


@ca.command()
@output_option
@server_option
def status(output: str, server: str | None) -> None:
    """Who signs until when, which roots are trusted, and what each node has loaded."""
    found = _ask(server, "GET", _ROOT)
    if output != "table":
        click.echo(show(found, output))
        return
    issuer = found["issuer"]
    click.echo(f"trust domain  {', '.join(found['trustDomains'])}")
    click.echo(f"signs         {issuer['subject']}, until {issuer['notAfter']}")
    for root in found["roots"]:
        click.echo(f"root          {root['subject']}, until {root['notAfter']}")
    click.echo(f"revoked       {found['revoked']}")
    click.echo(_progress(found["rotation"]) if found["rotation"] else "rotation      none")
    rows = [("NODE", "PART", "TRUSTS", "CERTIFIED", "EXPIRES")]
    rows += [
        (
            node["name"] if node["connected"] else f"{node['name']} (away)",
            part["name"],
            _mark(part["trusts"]),
            _mark(part["certified"]),
            part["notAfter"] or "",
        )
        for node in found["nodes"]
        for part in node["parts"]
    ]
    if len(rows) > 1:
        click.echo()
        _table(rows)
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}", err=True)


@ca.command()
@click.option("--key", type=_PEM, help="An authority of your own: its private key, P-256.")
@click.option("--chain", type=_PEM, help="Its certificate, then its issuers.")
@click.option("--roots", type=_PEM, help="The roots to trust, its own first. Default: --chain.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Instead of these: a directory as cert-manager or Istio's cacerts fill it.",
)
@click.option("--skip", multiple=True, metavar="NODE", help="Do not wait for this node; may be repeated.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="How long a step waits for nodes that are away. Default: for ever.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is done, showing progress.")
@output_option
@server_option
def rotate(
    key: Path | None,
    chain: Path | None,
    roots: Path | None,
    directory: Path | None,
    skip: tuple[str, ...],
    timeout: str | None,
    wait: bool,
    output: str,
    server: str | None,
) -> None:
    """Replace the root (or the intermediate) without failing a connection.

    Without files a new root is made. Given again while it goes on, it follows, and takes --skip and --timeout
    over. Ctrl-C ends the showing, not the work.
    """
    asked: dict[str, Any] = {"skip": list(skip)}
    if timeout is not None:
        try:
            parse_duration(timeout)
        except ValueError as error:
            raise UsageError(f"--timeout: {error}") from error
        asked["timeout"] = timeout
    if directory is not None:
        from weft.identity.handover import find_files

        key, chain, roots = find_files(directory)
    if (key is None) != (chain is None):
        raise UsageError("an authority of your own needs --key and --chain")
    if key is not None and chain is not None:
        files = {"key": key, "chain": chain, "roots": roots or chain}
        asked |= {name: _read(path) for name, path in files.items()}
    before = _ask(server, "GET", _ROOT)
    found = _ask(server, "POST", f"{_ROOT}/rotation", asked)
    if wait:
        found = _follow(server, found, quiet=output != "table")
    if output != "table":
        click.echo(show(found, output))
    elif found["rotation"] is None:
        click.echo(f"{found['issuer']['subject']} signs now, {before['issuer']['subject']} does not any more")
    else:
        click.echo("follow it with 'weft ca status', or by giving this command again")


@ca.command("list")
@click.option("--identity", metavar="URI", help="Only for this SPIFFE id.")
@click.option("--node", metavar="NAME", help="Only of this node.")
@output_option
@server_option
def list_certificates(identity: str | None, node: str | None, output: str, server: str | None) -> None:
    """The certificates that were issued and have not expired, the newest first."""
    found = [
        entry
        for entry in _ask(server, "GET", f"{_ROOT}/certificates")["certificates"]
        if identity in (None, entry["identity"]) and node in (None, entry["node"])
    ]
    if output != "table":
        click.echo(show(found, output))
        return
    rows = [("SERIAL", "IDENTITY", "NODE", "EXPIRES", "STATE")]
    rows += [
        (
            entry["serial"],
            entry["identity"],
            entry["node"],
            entry["notAfter"],
            "revoked" if entry["revoked"] else "valid",
        )
        for entry in found
    ]
    _table(rows)


@ca.command()
@click.option("--serial", metavar="HEX", help="One certificate, as 'weft ca list' shows it.")
@click.option("--identity", metavar="URI", help="All of a SPIFFE id; honest nodes get new ones at once.")
@click.option("--node", metavar="NAME", help="All of a node, which is turned out and must join again.")
@click.option("--token", metavar="ID", help="The nodes that joined with this token, as with --node.")
@click.option("--reason", default="", help="For the record.")
@output_option
@server_option
def revoke(
    serial: str | None,
    identity: str | None,
    node: str | None,
    token: str | None,
    reason: str,
    output: str,
    server: str | None,
) -> None:
    """Make certificates worthless, everywhere, at the next handshake; open connections are ended soon."""
    said = {"serial": serial, "identity": identity, "node": node, "token": token}
    chosen = {name: value for name, value in said.items() if value}
    if len(chosen) != 1:
        raise UsageError("name one of --serial, --identity, --node and --token")
    found = _ask(server, "POST", f"{_ROOT}/revocations", {**chosen, "reason": reason})
    if output != "table":
        click.echo(show(found, output))
        return
    for entry in found["revoked"]:
        click.echo(f"revoked {entry['serial']} {entry['identity']}".rstrip())
    for name in found["nodes"]:
        click.echo(f"turned out node {name}")


@ca.command()
@click.option("--spiffe", is_flag=True, help="As a SPIFFE bundle (JWK set), for other trust domains.")
@server_option
def export(spiffe: bool, server: str | None) -> None:
    """Print the roots that this mesh trusts, PEM."""
    found = _ask(server, "GET", "/weft/v1/bundle")
    if spiffe:
        kept = {name: found[name] for name in ("keys", "spiffe_sequence", "spiffe_refresh_hint")}
        click.echo(show(kept, "json"))
    else:
        click.echo(found["bundle"], nl=False)


@ca.command()
@server_option
def request(server: str | None) -> None:
    """Make a key, which stays in the control plane, and print a request for an intermediate (CSR, PEM).

    Have it signed as an authority (Vault: pki/root/sign-intermediate), then: weft ca install CHAIN.
    """
    click.echo(_ask(server, "POST", f"{_ROOT}/request", {})["request"], nl=False)


@ca.command()
@click.argument("chain", type=_PEM)
@click.option("--roots", type=_PEM, help="Another root to trust; default: one that is trusted already.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is done.")
@server_option
def install(chain: Path, roots: Path | None, wait: bool, server: str | None) -> None:
    """Let the intermediate that was signed for the last request take over. CHAIN begins with it."""
    asked = {"chain": _read(chain), **({"roots": _read(roots)} if roots else {})}
    found = _ask(server, "POST", f"{_ROOT}/intermediate", asked)
    if wait:
        found = _follow(server, found, quiet=False)
    click.echo(
        f"{found['issuer']['subject']} signs now"
        if found["rotation"] is None
        else _progress(found["rotation"])
    )


def _follow(server: str | None, found: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Show each step until the last is done."""
    shown = ""
    while found["rotation"] is not None:
        text = _progress(found["rotation"])
        if not quiet and text != shown:
            click.echo(text, err=True)
            shown = text
        time.sleep(_POLL_S)
        try:
            found = _ask(server, "GET", _ROOT)
        except WeftError as error:
            # The control plane may be starting again; it goes on with the step it was in.
            if not quiet and str(error) != shown:
                click.echo(f"waiting: {error}", err=True)
                shown = str(error)
    return found


def _progress(rotation: dict[str, Any]) -> str:
    lines = [f"rotation      {_STEPS[rotation['phase']]} (since {rotation['since']})"]
    missing = rotation["missing"]
    lines += [
        f"  waiting for {' '.join(filter(None, (one['node'], one['proxy'])))}: {one['why']}"
        for one in missing[:10]
    ]
    if len(missing) > 10:
        lines.append(f"  and {len(missing) - 10} more")
    if any(one["why"] == "is away" for one in missing):
        lines.append("  to go on without a node: weft ca rotate --skip NODE; it has to join again later")
    return "\n".join(lines)


def _mark(value: bool) -> str:
    return "yes" if value else "no"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


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
