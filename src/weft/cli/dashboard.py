"""``weft dashboard``."""

from __future__ import annotations

import asyncio
import os
import shutil

import click

from weft.cli.server import server_option


@click.command()
@click.option(
    "--open/--no-open", "opens", default=None, help="Open it in a browser; default: if there is a screen."
)
@click.option("--port", type=click.IntRange(1, 65535), help="On 127.0.0.1. Default: 15080, or a free one.")
@server_option
def dashboard(opens: bool | None, port: int | None, server: str | None) -> None:
    """Look at a mesh in the browser: traffic, services, configuration, security.

    It listens on 127.0.0.1 only, reads the API as you (your socket, kubeconfig or token), and changes
    nothing. The address that it prints works once, for one browser. Ctrl-C ends it.
    """
    from weft.runtime import log_to_stderr

    log_to_stderr()
    asyncio.run(_serve(_has_screen() if opens is None else opens, port, server))


async def _serve(opens: bool, port: int | None, server: str | None) -> None:
    from weft.app.dashboard import serve_dashboard
    from weft.client import ApiClient, locate
    from weft.runtime import stop_on_signals

    async with stop_on_signals() as stop, ApiClient(locate(server)) as client:
        await client.raw("GET", "/version")  # who is not there is named now, not in the browser
        async with serve_dashboard(client, port) as url:
            click.echo(f"dashboard: {url}")
            click.echo("the address works once; Ctrl-C ends it", err=True)
            if opens:
                await asyncio.to_thread(click.launch, url)
            await stop.wait()


def _has_screen() -> bool:
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return shown and shutil.which("xdg-open") is not None
