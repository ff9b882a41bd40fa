"""``weft delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weft.cli.apply import send
from weft.cli.server import (
    connect,
    files_option,
    find_resource,
    namespace_option,
    read_objects,
    server_option,
    targets,
    warn,
)
from weft.errors import UsageError

if TYPE_CHECKING:
    from weft.client import ApiClient


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]")
@files_option
@namespace_option
@server_option
@click.option("--force", is_flag=True, help="Also what belongs to a directory.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def delete(
    words: tuple[str, ...], files: tuple[str, ...], namespace: str, server: str | None, force: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Delete objects, by file or by name. What is not there is no error."""
    if bool(words) == bool(files):
        raise UsageError("say what to delete", hint="as: weft delete vs reviews, or weft delete -f mesh.yaml")
    suffix = " (server dry run)" if dry_run else ""
    if files:
        parts, problems = read_objects(files, namespace)
        warn(problems)
        if not parts:
            return
        answer = connect(
            server, lambda client: send(client, parts, namespace, dry_run=dry_run, force=force, delete=True)
        )
        for result in answer["results"]:
            group = f".{result['group']}" if result["group"] else ""
            click.echo(f"{result['singular']}{group}/{result['name']} deleted{suffix}")
        return
    named = [(kind, name) for kind, name in targets(words) if name]
    if not named:
        raise UsageError("which one?", hint=f"write its name: weft delete {words[0]} NAME")

    async def remove(client: ApiClient) -> None:
        resources = await client.resources()
        found = [(find_resource(resources, kind), name) for kind, name in named]
        for resource, name in found:
            where = namespace if resource.namespaced else None
            gone = await client.delete(resource, where, name, force=force, dry_run=dry_run)
            outcome = "not there" if gone is None else f"deleted{suffix}"
            click.echo(f"{resource.singular_name}/{name} {outcome}")

    connect(server, remove)
