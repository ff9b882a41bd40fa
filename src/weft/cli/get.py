"""``weft get``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, find_resource, server_option, show, targets
from weft.errors import UsageError

if TYPE_CHECKING:
    from weft.client import ApiClient, Resource

Wanted = tuple["Resource", str | None]


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME...] | KIND/NAME... | all")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True)
@click.option("-l", "--selector", default="", help="By labels: app=reviews,version!=v1.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "wide", "name"]))
@click.option("-w", "--watch", is_flag=True, help="Go on and print changes.")
@server_option
def get(
    words: tuple[str, ...], namespace: str, everywhere: bool, selector: str, output: str | None, watch: bool,
    server: str | None,
) -> None:  # fmt: skip
    """List objects, or one of them."""

    async def run(client: ApiClient) -> int:
        resources = await client.resources()
        wanted: list[Wanted]
        if words == ("all",):
            wanted = [(resource, None) for resource in resources]
        else:
            wanted = [(find_resource(resources, kind), name) for kind, name in targets(words)]
        where, skip = None if everywhere else namespace, words == ("all",)
        if watch:
            if len(wanted) != 1:
                raise UsageError("only one kind can be watched", hint="as: weft get vs -w")
            await _follow(client, wanted[0], where, selector, output)
            return 0
        if output in {"json", "yaml"}:
            return await _print_objects(client, wanted, where, selector, output, skip=skip)
        return await _print_tables(client, wanted, where, selector, output, skip=skip)

    status = connect(server, run)
    if status:
        raise click.exceptions.Exit(status)


def _space(resource: Resource, where: str | None) -> str | None:
    return where if resource.namespaced else None


async def _listed(
    client: ApiClient, resource: Resource, where: str | None, selector: str, *, table: bool = False,
    skip: bool = False,
) -> Any:  # fmt: skip
    """A list; with ``skip`` an empty one of what the caller may not list."""
    from weft.client import RefusedError

    try:
        return await client.list(resource, _space(resource, where), selector=selector, table=table)
    except RefusedError as refusal:
        if refusal.code != 403 or not skip:
            raise
        return {"items": [], "rows": []}


async def _print_objects(
    client: ApiClient, wanted: Sequence[Wanted], where: str | None, selector: str, output: str, *, skip: bool
) -> int:
    items: list[Any] = []
    for resource, name in wanted:
        space = _space(resource, where)
        if name is not None:
            items.append(await client.get(resource, space or "default", name))
        else:
            items += (await _listed(client, resource, where, selector, skip=skip))["items"]
    single = len(wanted) == 1 and wanted[0][1] is not None
    click.echo(show(items[0] if single else {"apiVersion": "v1", "kind": "List", "items": items}, output))
    return 0


async def _print_tables(
    client: ApiClient, wanted: Sequence[Wanted], where: str | None, selector: str, output: str | None, *,
    skip: bool,
) -> int:  # fmt: skip
    blocks: list[str] = []
    for resource, name in wanted:
        space = _space(resource, where)
        if name is not None:
            table = await client.get(resource, space or "default", name, table=True)
        else:
            table = await _listed(client, resource, where, selector, table=True, skip=skip)
        if not table["rows"]:
            continue
        spaces = where is None and resource.namespaced
        prefix = f"{resource.singular_name}/" if len(wanted) > 1 or output == "name" else ""
        blocks.append(format_table(table, spaces=spaces, wide=output == "wide", prefix=prefix,
                                   names_only=output == "name"))  # fmt: skip
    if blocks:
        click.echo(("\n" if output == "name" else "\n\n").join(blocks))
    else:
        place = "in any namespace" if where is None else f"in namespace {where}"
        click.echo(f"nothing found {place}", err=True)
    return 0


def format_table(
    table: Mapping[str, Any], *, spaces: bool = False, wide: bool = False, prefix: str = "",
    names_only: bool = False, widths: Sequence[int] = (), header: bool = True,
) -> str:  # fmt: skip
    """A Table as aligned text."""
    rows = [[_cell(cell) for cell in row["cells"]] for row in table["rows"]]
    if names_only:
        return "\n".join(f"{prefix}{row[0]}" for row in rows)
    shown = [n for n, column in enumerate(table["columnDefinitions"]) if wide or not column["priority"]]
    titles = [table["columnDefinitions"][n]["name"].upper() for n in shown]
    lines = [[row[n] for n in shown] for row in rows]
    for line in lines:
        line[0] = prefix + line[0]
    if spaces:
        titles.insert(0, "NAMESPACE")
        for line, row in zip(lines, table["rows"], strict=True):
            line.insert(0, row["object"]["metadata"].get("namespace", ""))
    every = [titles, *lines] if header else lines
    least = list(widths) or [0] * len(titles)
    sizes = [max(least[n], *(len(line[n]) for line in [titles, *lines])) for n in range(len(titles))]
    padded = ["   ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)) for line in every]
    return "\n".join(line.rstrip() for line in padded)


def _cell(value: object) -> str:
    return "<none>" if value is None or value == "" else str(value)


async def _follow(
    client: ApiClient, wanted: Wanted, where: str | None, selector: str, output: str | None
) -> None:
    resource, name = wanted
    table_form = output not in {"json", "yaml"}
    columns: list[Any] = []
    stream = client.watch(resource, _space(resource, where), selector=selector, table=table_form)
    async for event in stream:
        if event.kind == "BOOKMARK":
            continue
        if not table_form:
            if name in (None, event.object["metadata"]["name"]):
                click.echo(show(event.object, output or "yaml") + ("\n---" if output == "yaml" else ""))
            continue
        first = not columns
        columns = event.object["columnDefinitions"] or columns
        table = {"columnDefinitions": columns, "rows": event.object["rows"]}
        if name not in (None, table["rows"][0]["cells"][0]):
            columns = [] if first else columns
            continue
        if event.kind == "DELETED":
            table["rows"][0]["cells"][-1] = "deleted"
        spaces = where is None and resource.namespaced
        widths = [
            max(12, len(column["name"])) for column in columns if output == "wide" or not column["priority"]
        ]
        text = format_table(
            table, spaces=spaces, wide=output == "wide", names_only=output == "name",
            prefix=f"{resource.singular_name}/" if output == "name" else "",
            widths=[12, *widths] if spaces else widths, header=first,
        )  # fmt: skip
        click.echo(text)
