"""``weft up``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from weft.app.up import UpOptions

_WATCH_SECONDS: Final = 0.5

capture_option = click.option(
    "--capture",
    type=click.Choice(["auto", "nft", "seccomp", "env", "none"]),
    default="auto",
    show_default=True,
    help="How traffic is led through the sidecars.",
)
port_map_option = click.option(
    "--port-map", "port_maps", multiple=True, metavar="A=B", help="Open gateway port A on host port B."
)
mesh_option = click.option(
    "--mesh", default="default", show_default=True, help="Name of the mesh on this machine."
)
dashboard_option = click.option(
    "--dashboard/--no-dashboard", default=True, show_default=True, help="Serve the dashboard, too."
)


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-n", "--namespace", default="default", show_default=True, help="For objects that name none.")
@port_map_option
@capture_option
@click.option("--watch", is_flag=True, help="Apply the files again whenever they change.")
@click.option("--logs", is_flag=True, help="Show what the applications say, too.")
@mesh_option
@dashboard_option
@click.option("--certificate-lifetime", default="24h", show_default=True, help="Of workload certificates.")
def up(
    paths: tuple[str, ...],
    namespace: str,
    port_maps: tuple[str, ...],
    capture: str,
    watch: bool,
    logs: bool,
    mesh: str,
    dashboard: bool,
    certificate_lifetime: str,
) -> None:
    """Run a whole mesh from files: control plane, node, gateways and the Workloads in them.

    As root each replica has a network namespace; otherwise its traffic is led by seccomp. Ctrl-C drains
    everything and leaves nothing behind.
    """
    from weft.app.up import UpOptions
    from weft.units import parse_duration

    try:
        parse_duration(certificate_lifetime)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--certificate-lifetime") from error
    objects = read(paths, namespace)
    options = UpOptions(
        mesh=mesh,
        namespace=namespace,
        port_map=parse_port_maps(port_maps),
        capture=capture,
        certificate_lifetime=certificate_lifetime,
        again=follow(paths, namespace) if watch else None,
        logs=logs,
        dashboard=dashboard,
    )
    serve(objects, options)


def read(paths: Sequence[str], namespace: str) -> list[Mapping[str, Any]]:
    """The objects of the files, with paths that hold anywhere.

    Raises:
        WeftError: with every error of every file.
    """
    from weft.cli.server import read_objects, warn
    from weft.model.local import localize

    if not paths:
        return []
    parts, problems = read_objects(paths, namespace)
    warn(problems)
    return [localize(part) for part in parts]


def follow(paths: Sequence[str], namespace: str) -> Callable[[], AsyncIterator[Sequence[Mapping[str, Any]]]]:
    """Yields the objects whenever a file changed; files that are wrong are said to be and waited for."""
    from weft.cli import report
    from weft.errors import WeftError

    async def again() -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        seen = await asyncio.to_thread(_stamps, paths)
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = await asyncio.to_thread(_stamps, paths)
            if now == seen:
                continue
            seen = now
            try:
                yield await asyncio.to_thread(read, paths, namespace)
            except WeftError as error:
                report(error)

    return again


def _stamps(paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    from pathlib import Path

    found: dict[str, tuple[int, int]] = {}
    for path in map(Path, paths):
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                state = file.stat()
                found[str(file)] = (state.st_mtime_ns, state.st_size)
    return found


def parse_port_maps(texts: Sequence[str]) -> dict[int, int]:
    """``80=10080`` as a dictionary.

    Raises:
        click.BadParameter: for another form.
    """
    found: dict[int, int] = {}
    for text in texts:
        left, _, right = text.partition("=")
        if not (left.isdigit() and right.isdigit() and 0 < int(left) < 65536 and 0 < int(right) < 65536):
            raise click.BadParameter(f"{text!r} is not A=B, as 80=10080", param_hint="--port-map")
        found[int(left)] = int(right)
    return found


def serve(objects: Sequence[Mapping[str, Any]], options: UpOptions) -> None:
    """Run the mesh until Ctrl-C. A second Ctrl-C does not hurry: nothing may be left behind.

    Raises:
        WeftError: a part did not start, or ended by itself.
    """
    from weft.app.up import Up
    from weft.app.view import view
    from weft.errors import WeftError
    from weft.runtime import log_to_stderr, stop_on_signals

    log_to_stderr()
    shown = view(terminal=sys.stdout.isatty())

    async def run() -> None:
        async with stop_on_signals(on_again=lambda: shown.say("still draining; it ends by itself")) as stop:
            await Up(objects, options, shown).run(stop)

    try:
        asyncio.run(run())
    except* WeftError as failures:
        raise _first(failures) from None
    finally:
        shown.close()


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first failure in a group: the others followed from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
