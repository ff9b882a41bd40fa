"""``weft describe``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from weft.errors import UsageError

if TYPE_CHECKING:
    from weft.client import ApiClient

Wire = dict[str, Any]


@click.command()
@click.argument("target", metavar="SERVICE|WORKLOAD")
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="Of the target, and of documents."
)
@click.option("--live", is_flag=True, help="The running mesh too, as if the files were applied.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True
)
@click.option("--server", envvar="WEFT_SERVER", metavar="URL|SOCKET", help="The control plane, for --live.")
def describe(
    target: str, paths: tuple[str, ...], namespace: str, live: bool, output: str, server: str | None
) -> None:
    """What applies to a service or a workload, and which line of which file says so.

    Ports and how their protocols are decided, endpoints, subsets, routes, gateways and URLs, who may connect
    and by which policy, and what is wrong. The target is service/NAME, workload/NAME, pod/NAME and so on, or
    a name alone; NAME.NAMESPACE and hosts are understood. PATHS are files, directories or -; without any, the
    running mesh is asked.
    """
    from weft.analysis.analyze import Input, survey
    from weft.analysis.describe.picture import WORDS, Asked, Picture
    from weft.analysis.describe.service import service
    from weft.analysis.describe.workload import workload
    from weft.analysis.objects import Object
    from weft.cli.analyze import read

    if target.lower() in WORDS:  # as istioctl has it: describe pod NAME
        if not paths or os.path.exists(paths[0]):  # noqa: PTH110  (a target may be no name of a file)
            raise UsageError(f"say which {target}", hint=f"as: weft describe {target}/NAME")
        target, paths = f"{target}/{paths[0]}", paths[1:]
    running = live or not paths
    parts, problems = read(paths)
    objects, proxies, vips = _fetch(server, namespace) if running else ([], [], {})
    given = Input(parts=parts, problems=problems, live=objects, namespace=namespace, running=running)
    picture = Picture(survey(given), proxies, vips)
    found = picture.find(Asked.of(target, namespace))
    report = service(picture, found) if isinstance(found, Object) else workload(picture, found)
    if output == "text":
        from weft.cli.describe_text import text

        click.echo(text(report))
    else:
        from weft.cli.server import show

        click.echo(show(report, output))


def _fetch(server: str | None, namespace: str) -> tuple[list[Wire], list[Wire], dict[tuple[str, str], str]]:
    """Objects, proxies and virtual addresses of the running mesh."""
    from weft.cli.analyze import every_object
    from weft.cli.server import connect, find_resource
    from weft.client import RefusedError

    async def fetch(client: ApiClient) -> tuple[list[Wire], list[Wire], dict[tuple[str, str], str]]:
        objects = await every_object(client, namespace)
        proxies = await _proxies(client)
        services = find_resource(await client.resources(), "services")
        try:
            addresses = await client.list(services, table=True)
        except RefusedError as refusal:
            if refusal.code != 403:
                raise
            addresses = await client.list(services, namespace, table=True)
        return objects, proxies, _vips(addresses)

    return connect(server, fetch)


async def _proxies(client: ApiClient) -> list[Wire]:
    """What each proxy has; nothing for those who may not see it."""
    from weft.client.api import RefusedError

    try:
        found: list[Wire] = (await client.raw("GET", "/weft/v1/proxies"))["proxies"]
    except RefusedError as refusal:
        if refusal.code not in {403, 404}:
            raise
        return []
    return found


def _vips(table: Wire) -> dict[tuple[str, str], str]:
    """Virtual addresses, which only the table of Services shows."""
    names = [column["name"] for column in table["columnDefinitions"]]
    place = names.index("Cluster-IP")
    found: dict[tuple[str, str], str] = {}
    for row in table["rows"]:
        address: object = row["cells"][place]
        metadata = row["object"]["metadata"]
        if isinstance(address, str) and _is_address(address):
            found[metadata.get("namespace", ""), metadata["name"]] = address
    return found


def _is_address(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True
