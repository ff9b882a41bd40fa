"""``weft user``: who else may use the API, and with what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from weft.cli.server import connect, server_option, show
from weft.errors import UsageError, WeftError
from weft.units import parse_duration

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print."
)
_VIEWERS: Final = "weft:viewers"


@click.group()
def user() -> None:
    """Tokens and client certificates of people and machines that use the API.

    A credential proves a name and groups; roles that are bound to them say what they may (kubectl create
    rolebinding, or --read-only).
    """


@user.command()
@click.argument("name")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group; may be repeated.")
@click.option("--read-only", is_flag=True, help=f"May see everything but secrets: the group {_VIEWERS}.")
@click.option(
    "--ttl", default="720h", show_default=True, metavar="DURATION", help="How long it lives; a year at most."
)
@click.option("--token", "kind", flag_value="token", default=True, help="A bearer token. The default.")
@click.option(
    "--certificate", "kind", flag_value="certificate", help="A client certificate; its key is made here."
)
@click.option(
    "--for", "audiences", multiple=True, type=click.Choice(["api", "monitoring"]),
    help="Which ports it opens; both by default.",
)  # fmt: skip
@click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE", help="Write it for kubectl.")
@click.option("--address", metavar="URL", help="Where the API is reached, for the kubeconfig.")
@output_option
@server_option
def create(
    name: str, groups: tuple[str, ...], read_only: bool, ttl: str, kind: str, audiences: tuple[str, ...],
    kubeconfig: Path | None, address: str | None, output: str, server: str | None,
) -> None:  # fmt: skip
    """Make a credential for NAME. A token is shown this once.

    NAME is a person's or a machine's; system:serviceaccount:NAMESPACE:NAME stands for a service account.
    """
    try:
        parse_duration(ttl)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from error
    if kind == "certificate" and kubeconfig is None and output == "table":
        raise UsageError("a certificate needs a file", hint="add --kubeconfig FILE, or -o json")
    groups = (*groups, *([_VIEWERS] if read_only else []))
    asked: dict[str, Any] = {
        "name": name,
        "groups": list(groups),
        "lifetime": ttl,
        "audiences": list(audiences),
    }
    key = b""
    if kind == "certificate":
        key, asked["csr"] = _request()
    made = _ask(server, "POST", "/weft/v1/users", asked)
    if kubeconfig is not None:
        _write(kubeconfig, made, key, address)
        click.echo(f"{kubeconfig} lets {name} in until {made['expires']}", err=True)
        return
    if output != "table":
        click.echo(show({**made, **({"key": key.decode()} if key else {})}, output))
        return
    click.echo(made["token"])
    if sys.stdout.isatty():
        click.echo(f"for {name} until {made['expires']}; send it as 'Authorization: Bearer …'", err=True)


@user.command("list")
@output_option
@server_option
def list_users(output: str, server: str | None) -> None:
    """Credentials that are known; the secrets of tokens are not kept."""
    found = _ask(server, "GET", "/weft/v1/users")["users"]
    if output != "table":
        click.echo(show(found, output))
        return
    rows = [("NAME", "KIND", "ID", "STATE", "EXPIRES", "LAST USED", "GROUPS")]
    rows += [
        (
            entry["name"],
            entry["kind"],
            entry["id"][:16],
            entry["state"],
            entry["expires"],
            entry["used"] or "never",
            ",".join(entry["groups"]),
        )
        for entry in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


@user.command()
@click.argument("name", metavar="NAME|ID")
@server_option
def revoke(name: str, server: str | None) -> None:
    """Make a credential (by its id), or all those of NAME, unusable at once."""
    from urllib.parse import quote

    # A whole token is accepted too; only its id is sent.
    parts = name.split(".")
    short = parts[1] if len(parts) == 3 and parts[0] == "weftuser" else name
    revoked = _ask(server, "DELETE", f"/weft/v1/users/{quote(short, safe='')}")["users"]
    for entry in revoked:
        click.echo(f"{entry['kind']} {entry['id'][:16]} of {entry['name']} revoked")


def _request() -> tuple[bytes, str]:
    """A key (PEM) and a certificate request for it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import CertificateSigningRequestBuilder, Name

    key = ec.generate_private_key(ec.SECP256R1())
    request = CertificateSigningRequestBuilder(Name([])).sign(key, SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, request.public_bytes(serialization.Encoding.PEM).decode()


def _write(path: Path, made: Any, key: bytes, address: str | None) -> None:
    from weft.control.api.kubeconfig import kubeconfig, write_kubeconfig

    address = address or made["server"]
    if not address.startswith("https://"):
        raise UsageError("where the API is reached is not known", hint="add --address https://HOST:15017")
    text = kubeconfig(
        server=address, ca=made["bundle"].encode(), user=made["name"], token=made.get("token", ""),
        certificate=made.get("certificate", "").encode(), key=key,
    )  # fmt: skip
    write_kubeconfig(path, text)


def _ask(server: str | None, method: str, path: str, body: Any = None) -> Any:
    from weft.client import ApiClient, RefusedError

    async def work(client: ApiClient) -> Any:
        try:
            return await client.raw(method, path, body)
        except RefusedError as refusal:
            hint = str(refusal.status.get("hint") or refusal.hint)
            raise WeftError(refusal.message, hint=hint) from refusal

    return connect(server, work)
