"""``weft diff``."""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from weft.cli.apply import send
from weft.cli.server import connect, files_option, namespace_option, read_objects, server_option, show, warn

_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}
_SERVER_SET: Final = frozenset({"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"})
_SALT: Final = os.urandom(16)
_NOTE: Final = "kubectl.kubernetes.io/last-applied-configuration"


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@files_option
@namespace_option
@server_option
@click.option("--force", is_flag=True, help="As if applied with --force.")
def diff(
    paths: tuple[str, ...], files: tuple[str, ...], namespace: str, server: str | None, force: bool
) -> None:
    """What apply would change. Exit code 1 when it would change anything."""
    parts, problems = read_objects([*paths, *files], namespace)
    warn(problems)
    if not parts:
        return
    answer = connect(server, lambda client: send(client, parts, namespace, dry_run=True, force=force))
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    changed = False
    for result in answer["results"]:
        for line in differences(result):
            changed = True
            colour = _COLOURS.get(line[:1]) if coloured else None
            click.echo(click.style(line, fg=colour) if colour else line)
    if changed:
        raise click.exceptions.Exit(1)


def differences(result: Mapping[str, Any]) -> Iterator[str]:
    """The unified diff of one object, without what the API sets itself."""
    name = f"{result['resource']}/{result['namespace'] + '/' if result['namespace'] else ''}{result['name']}"
    before, after = _lines(result["before"]), _lines(result["after"])
    labels = (f"live/{name}" if before else "/dev/null", f"files/{name}" if after else "/dev/null")
    yield from difflib.unified_diff(before, after, *labels, lineterm="")


def _lines(wire: Mapping[str, Any] | None) -> list[str]:
    if not wire:
        return []
    metadata = {name: value for name, value in wire["metadata"].items() if name not in _SERVER_SET}
    notes = {name: text for name, text in (metadata.pop("annotations", None) or {}).items() if name != _NOTE}
    if notes:
        metadata["annotations"] = notes
    shown = {**wire, "metadata": dict(sorted(metadata.items()))}
    if wire.get("kind") == "Secret":
        for field in ("data", "stringData"):
            if isinstance(values := shown.get(field), dict):
                shown[field] = {name: _masked(str(value)) for name, value in values.items()}
    return show(_ordered(shown), "yaml").splitlines()


def _masked(value: str) -> str:
    """Enough of a fingerprint to see that a secret changes, nothing to learn it from."""
    return f"*** ({hashlib.blake2b(value.encode(), key=_SALT, digest_size=4).hexdigest()})"


def _ordered(wire: Mapping[str, Any]) -> dict[str, Any]:
    first = ("apiVersion", "kind", "metadata")
    rest = {name: value for name, value in wire.items() if name not in first}
    return {**{name: wire[name] for name in first if name in wire}, **dict(sorted(rest.items()))}
