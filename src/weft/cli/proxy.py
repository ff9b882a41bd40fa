"""``weft proxy``: what each proxy was sent and took, what its Envoy runs, how much it logs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from weft.client.locate import SERVER_VARIABLE
from weft.errors import UsageError, WeftError
from weft.names import ProxyName

_TYPES: Final = ("cds", "lds", "eds", "rds", "sds")
_LEVELS: Final = ("trace", "debug", "info", "warning", "error", "critical", "off")
_KINDS: Final = ("bootstrap", "cluster", "endpoint", "listener", "route", "secret", "all")
# istioctl's short words and plurals for them.
_SHORT: Final = {
    "a": "all", "b": "bootstrap", "c": "cluster", "clusters": "cluster", "ep": "endpoint",
    "endpoints": "endpoint", "l": "listener", "listeners": "listener", "r": "route", "routes": "route",
    "s": "secret", "secrets": "secret",
}  # fmt: skip
_LINE_BYTES: Final = 256 * 1024 * 1024
_DUMP: Final = click.Path(path_type=Path, exists=True, dir_okay=False)

_output = click.option(
    "-o",
    "--output",
    "output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    help="How to print.",
)
_server = click.option("--server", metavar="URL|SOCKET", help="The control plane; default: this machine's.")
_namespace = click.option("-n", "--namespace", default="default", help="For a NAME without a namespace.")


@click.group()
def proxy() -> None:
    """What each proxy runs: status, config, log."""


@proxy.command()
@click.argument("name", required=False)
@_namespace
@_server
@_output
def status(name: str | None, namespace: str, server: str | None, output: str) -> None:
    """Whether each proxy has what it was sent: SYNCED, STALE, NACK or NOT SENT, by type.

    NAME is NAME.NAMESPACE, NAMESPACE/NAME or NAME. Exits 1 when a proxy refuses something.
    """
    if name is None:
        rows = asyncio.run(ask_control_plane("GET", "/weft/v1/proxies", server))["proxies"]
    else:
        rows = [
            asyncio.run(ask_control_plane("GET", f"/weft/v1/proxies/{proxy_id(name, namespace)}", server))
        ]
    if output == "table":
        _print_table(
            ("NAME", "NAMESPACE", *(short.upper() for short in _TYPES), "AGE", "VERSION"), map(_row, rows)
        )
        for row in rows:
            for refused in row["rejected"]:
                made_of = f" (from {', '.join(refused['sources'])})" if refused["sources"] else ""
                click.echo(
                    f"{row['name']}.{row['namespace']} refuses {refused['type']} {refused['name']}{made_of}: "
                    f"{refused['error']}"
                )
    else:
        _print_data(rows if name is None else rows[0], output)
    if any(row["rejected"] for row in rows):
        raise click.exceptions.Exit(1)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    types = row["types"]
    ages = [types[short]["ageSeconds"] for short in _TYPES if types[short]["ageSeconds"] is not None]
    shown = (
        f"{state['status']} ({_age(state['ageSeconds'])})" if state["status"] == "STALE" else state["status"]
        for state in (types[short] for short in _TYPES)
    )
    return row["name"], row["namespace"], *shown, _age(min(ages, default=None)), row["version"]


def _age(seconds: float | None) -> str:
    """``3s``, ``12m``, ``5h``, ``2d``."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


class _Kind(click.Choice[str]):
    """A kind of configuration, by istioctl's other words for it, too."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(_SHORT.get(value, value), param, ctx)


@proxy.command()
@click.argument("kind", metavar="TYPE", type=_Kind(_KINDS))
@click.argument("name", required=False)
@click.option("-f", "--file", type=_DUMP, help="A saved config dump, instead of NAME.")
@click.option("--fqdn", default="", help="cluster: a part of the service's host.")
@click.option("--port", type=int, help="cluster, listener, endpoint: the port.")
@click.option("--direction", default="", help="cluster: inbound or outbound.")
@click.option("--subset", default="", help="cluster: the subset.")
@click.option("--name", "resource", default="", help="route, listener, secret: the resource's name.")
@click.option("--address", default="", help="listener, endpoint: the address.")
@click.option("--cluster", default="", help="endpoint: the cluster.")
@click.option("--status", "health", default="", help="endpoint: healthy, unhealthy, draining.")
@_namespace
@_server
@_output
def config(
    kind: str, name: str | None, file: Path | None, fqdn: str, port: int | None, direction: str, subset: str,
    resource: str, address: str, cluster: str, health: str, namespace: str, server: str | None, output: str,
) -> None:  # fmt: skip
    """What an Envoy runs, out of its own configuration dump.

    TYPE is bootstrap, cluster, endpoint, listener, route, secret or all; NAME is NAME.NAMESPACE,
    NAMESPACE/NAME or NAME. With -f a saved dump is read instead.
    """
    from weft.analysis import dump_tables

    if (name is None) == (file is None):
        raise UsageError("say which proxy, or give a dump with -f", hint="weft proxy config cluster web.shop")
    live: dict[str, Any] | None = None
    if file is not None:
        dump = read_dump(file.read_text(), str(file))
    else:
        workload = proxy_id(name or "", namespace)
        dump = read_dump(ask_admin(workload, "GET", "/config_dump?include_eds", server), workload)
        if kind in {"endpoint", "all"}:
            live = read_dump(ask_admin(workload, "GET", "/clusters?format=json", server), workload)
    by = dump_tables.Filter(
        fqdn=fqdn, port=port, direction=direction, subset=subset, name=resource, address=address,
        cluster=cluster, status=health,
    )  # fmt: skip
    tables = {one: make(dump, by) for one, make in dump_tables.TABLES.items() if kind in {one, "all"}}
    if live is not None:
        tables["endpoint"] = dump_tables.endpoints(dump, by, live)
    if output != "table" or kind == "bootstrap":
        data: Any = dump if kind == "all" else list(tables[kind].raw)
        _print_data(data, "json" if output == "table" else output)
        return
    for number, (one, table) in enumerate(tables.items()):
        if kind == "all":
            if one == "bootstrap":
                continue
            click.echo(("\n" if number > 1 else "") + one.upper())
        _print_table(table.columns, table.rows)


@proxy.command()
@click.argument("name")
@click.argument("level", required=False)
@_namespace
@_server
def log(name: str, level: str | None, namespace: str, server: str | None) -> None:
    """Show how much an Envoy logs, or change it.

    LEVEL is trace, debug, info, warning, error, critical or off, for everything; or LOGGER:LEVEL, several
    with commas, as http:debug,upstream:trace.
    """
    query = ""
    if level is not None:
        parts = [part.rpartition(":") for part in level.split(",")]
        for logger, _, word in parts:
            if word not in _LEVELS or (not logger and len(parts) > 1):
                raise UsageError(f"{level!r} is no log level", hint=f"write one of {', '.join(_LEVELS)}")
        query = f"?level={level}" if not parts[0][0] else f"?paths={level}"
    click.echo(ask_admin(proxy_id(name, namespace), "POST", f"/logging{query}", server), nl=False)


def proxy_id(name: str, namespace: str) -> str:
    """``NAME.NAMESPACE``, ``NAMESPACE/NAME``, ``NAME`` or a node id as ``namespace/name``."""
    if "~" in name:
        try:
            parsed = ProxyName.parse(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return f"{parsed.namespace}/{parsed.name}"
    if "/" in name:
        return name
    head, dot, tail = name.rpartition(".")
    return f"{tail}/{head}" if dot else f"{namespace}/{name}"


def ask_admin(workload: str, method: str, path: str, server: str | None) -> str:
    """What a workload's Envoy answers at its admin interface: by its node here, else by the control plane.

    Raises:
        WeftError: when neither knows the workload, or Envoy refuses.
    """
    named = server or os.environ.get(SERVER_VARIABLE)  # several meshes of a host may know the name
    reply = None if named else asyncio.run(_ask_node(workload, method, path))
    if reply is None:
        body = {"method": method, "path": path}
        reply = asyncio.run(ask_control_plane("POST", f"/weft/v1/proxies/{workload}/admin", server, body))
    if reply["status"] != 200:
        raise WeftError(f"the Envoy of {workload} answered {reply['status']}: {reply['body'].strip()}")
    return str(reply["body"])


async def _ask_node(workload: str, method: str, path: str) -> dict[str, Any] | None:
    """The answer by way of a node on this machine; None when none of them runs the workload."""
    from weft.client.locate import runtime_directories

    request = json.dumps({"op": "admin", "id": workload, "method": method, "path": path}) + "\n"
    for directory in runtime_directories(os.environ, os.getuid()):
        for socket in (directory / "node.sock", *sorted(directory.glob("*/node.sock"))):
            try:
                reader, writer = await asyncio.open_unix_connection(str(socket), limit=_LINE_BYTES)
            except OSError:
                continue
            try:
                writer.write(request.encode())
                answer = json.loads(await reader.readline() or b"{}")
            finally:
                writer.close()
            if answer.get("event") == "reply":
                return dict(answer)
    return None


async def ask_control_plane(method: str, path: str, server: str | None, body: Any = None) -> Any:
    """What the control plane answers, as JSON.

    Raises:
        WeftError: when there is none, or it refuses.
    """
    from weft.client import ApiClient, locate

    async with ApiClient(locate(server)) as client:
        return await client.raw(method, path, body)


def read_dump(text: str, what: str) -> dict[str, Any]:
    """A configuration dump as JSON.

    Raises:
        WeftError: when the text is none; ``what`` names it.
    """
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise WeftError(
            f"{what} is no configuration dump", hint="save one with: weft proxy config all NAME -o json"
        )
    return data


def _print_data(data: Any, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False), nl=False)


def _print_table(columns: Sequence[str], rows: Any) -> None:
    """Aligned columns, three spaces apart; the same on a terminal and in a pipe."""
    lines = [tuple(columns), *(tuple(str(cell) or "-" for cell in row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("   ".join(cells).rstrip())
