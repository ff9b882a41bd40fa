"""``weft demo``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from weft.cli.up import capture_option, dashboard_option, mesh_option, parse_port_maps, port_map_option


@click.command()
@port_map_option
@capture_option
@mesh_option
@dashboard_option
@click.option("--rate", default=5.0, show_default=True, help="Requests a second; 0 for no load.")
@click.option("--gateway-api", is_flag=True, help="Its front door in the Gateway API's words.")
def demo(
    port_maps: tuple[str, ...], capture: str, mesh: str, dashboard: bool, rate: float, gateway_api: bool
) -> None:
    """Run the shop that comes with weft: eight services that know nothing of a mesh, in one.

    Open the address that it prints. Ctrl-C ends it and leaves nothing behind.
    """
    from weft.app import shop
    from weft.app.up import UpOptions
    from weft.cli.up import read, serve

    command = _command()
    shop.own_python_first()
    folder = shop.find()
    front = "gateway-api.yaml" if gateway_api else "gateway.yaml"
    objects: Sequence[Mapping[str, Any]] = read([str(folder / "mesh.yaml"), str(folder / front)], "default")
    objects, said = shop.fit(objects)
    for line in said:
        click.echo(line)
    options = UpOptions(
        mesh=mesh,
        port_map=parse_port_maps(port_maps),
        capture=capture,
        load=shop.load(folder, rate) if rate > 0 else None,
        dashboard=dashboard,
    )
    click.echo(f"the shop is in {_near(folder)}; change it from another terminal:")
    click.echo(f"  {command} apply {_near(folder / 'scenarios' / 'canary-90-10.yaml')}")
    serve(objects, options)


def _near(path: Path) -> Path:
    """As a person would type it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _command() -> str:
    """``weft``, or where it is when the shell would not find it."""
    return "weft" if shutil.which("weft") else str(_near(Path(sys.argv[0]).absolute()))
