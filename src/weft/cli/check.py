"""``weft check``."""

from __future__ import annotations

import asyncio
import json
import sys

import click

from weft.node.layout import DEFAULT_MESH

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command()
@click.option("--mesh", default=DEFAULT_MESH, show_default=True, help="Name of the mesh on this machine.")
@click.option("--host", "host_only", is_flag=True, help="Only this host, before anything is installed.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Machine-readable.")
def check(mesh: str, host_only: bool, output: str | None) -> None:
    """Is this host ready, is the mesh well? Each line with its remedy; exit code 1 when one fails."""
    from weft.node.doctor import check_host, check_node
    from weft.node.layout import Layout

    layout = Layout.of(mesh)
    findings = asyncio.run(check_host(layout))
    if not host_only:
        findings += asyncio.run(check_node(layout))
    if output:
        rows = [
            {
                "name": found.name,
                "status": found.status,
                "message": found.message,
                **({"remedy": found.remedy} if found.remedy else {}),
            }
            for found in findings
        ]
        click.echo(json.dumps(rows))
    else:
        for found in findings:
            mark, colour = _MARKS[found.status]
            click.echo(f"{click.style(mark, fg=colour)} {found.name}: {found.message}")
            if found.remedy:
                click.echo(f"    {found.remedy}")
    if any(found.status == "fail" for found in findings):
        sys.exit(1)
