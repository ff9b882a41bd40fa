"""``weft clean``."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import click

from weft.errors import WeftError
from weft.node.layout import DEFAULT_MESH, Layout


@click.command()
@click.option("--mesh", help="Only this mesh; default: every mesh of this user.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also identities and slots, and what bears a mesh's name without a record.",
)
def clean(mesh: str | None, everything: bool) -> None:
    """Remove what a crash or an uninstall left: rules, cgroups, namespaces, routes, processes, files.

    What a living node or control plane holds is left alone.
    """
    names = [mesh] if mesh else _meshes(everything)
    done = 0
    for name in names:
        done += asyncio.run(_clean(Layout.of(name), everything))
    if not done:
        click.echo("nothing to clean")


def _meshes(everything: bool) -> list[str]:
    """Every mesh that has a directory here; for root and ``--all`` also a cgroup."""
    from weft.node.adoption import meshes_by_name

    example = Layout.of(DEFAULT_MESH)
    found = {
        path.name
        for parent in (example.runtime.parent, example.state.parent)
        if parent.is_dir()
        for path in parent.iterdir()
        if path.is_dir()
    }
    if everything and os.geteuid() == 0:
        found |= meshes_by_name()
    return sorted(found)


async def _clean(layout: Layout, everything: bool) -> int:
    from weft.node.adoption import sweep, sweep_by_name

    if not layout.runtime.is_dir() and not everything:
        return 0
    with _held(layout):
        done = await sweep(layout, keep=False, say=lambda what: click.echo(f"{layout.mesh}: {what}"))
        if everything and os.geteuid() == 0:
            done += await sweep_by_name(layout.mesh, say=lambda what: click.echo(f"{layout.mesh}: {what}"))
        if layout.runtime.is_dir():
            layout.remove_runtime()
        if layout.runtime.is_dir() and not _answers(layout.runtime / "api.sock"):
            # Logs, and the control plane of a `weft up` that was killed.
            shutil.rmtree(layout.runtime)
            with contextlib.suppress(OSError):
                layout.runtime.parent.rmdir()
            click.echo(f"{layout.mesh}: removed {layout.runtime}")
            done.append(str(layout.runtime))
        if everything and layout.state.is_dir():
            shutil.rmtree(layout.state)
            click.echo(f"{layout.mesh}: removed {layout.state}")
            done.append(str(layout.state))
    return len(done)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def _held(layout: Layout) -> Iterator[None]:
    """The lock of the runtime directory, so that no node starts meanwhile.

    Raises:
        WeftError: a node lives there.
    """
    if not layout.runtime.is_dir():
        yield
        return
    descriptor = os.open(Path(layout.lock), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise WeftError(
            f"a node of mesh {layout.mesh!r} is running", hint="stop it first; it cleans up by itself"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)
