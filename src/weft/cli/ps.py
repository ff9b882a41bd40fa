"""``weft ps``."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import click

from weft.node.layout import DEFAULT_MESH


@click.command()
@click.option("--mesh", default=DEFAULT_MESH, show_default=True, help="Name of the mesh on this machine.")
@click.option(
    "-o", "--output", type=click.Choice(["json", "wide"]), help="Machine-readable, or more columns."
)
def ps(mesh: str, output: str | None) -> None:
    """Workloads of this host: state, capture, address, certificate."""
    from weft.app.nodesocket import NodeSocket
    from weft.cli.nodes import find_socket

    answer = asyncio.run(NodeSocket(find_socket(mesh)).ask({"op": "list"}, "workloads"))
    rows: list[dict[str, Any]] = answer["workloads"]
    if output == "json":
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no workload runs on this node")
        return
    click.echo(table(rows, wide=output == "wide"))


def table(rows: list[dict[str, Any]], *, wide: bool = False, now: datetime | None = None) -> str:
    """The rows of ``list`` as aligned text."""
    now = now or datetime.now(UTC)
    head = ["NAMESPACE", "NAME", "STATE", "READY", "PID", "CAPTURE", "ADDRESS", "CERTIFICATE", "RESTARTS"]
    if wide:
        head += ["KIND", "PROXY-PID", "PORTS", "MESSAGE"]
    lines = [head]
    for row in rows:
        cells = [
            row["namespace"],
            row["name"],
            row["state"],
            "yes" if row["ready"] else "no",
            str(row["pid"] or "-"),
            row["capture"],
            row["address"],
            _left(row["certificate"]["notAfter"], now),
            f"{row['restarts']}+{row['proxyRestarts']}" if row["proxyRestarts"] else str(row["restarts"]),
        ]
        if wide:
            ports = ",".join(f"{name}:{port}" for name, port in row["ports"].items())
            cells += [row["kind"], str(row["proxyPid"] or "-"), ports or "-", row["message"] or "-"]
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)


def _left(not_after: str | None, now: datetime) -> str:
    if not not_after:
        return "-"
    seconds = (datetime.fromisoformat(not_after) - now).total_seconds()
    if seconds <= 0:
        return "expired"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
