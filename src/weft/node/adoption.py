"""What an earlier agent left behind: kept for adoption, or removed by what it wrote down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from weft.errors import WeftError
from weft.node.capture import cgroup, netns, nft
from weft.node.capture.choose import Mode
from weft.node.capture.command import SEARCH_PATH, CommandError, run
from weft.node.layout import Layout, Record, read_json
from weft.node.process import Process

log = logging.getLogger(__name__)

Say = Callable[[str], None]


async def sweep(layout: Layout, *, keep: bool, say: Say = log.info) -> list[str]:
    """Remove what nobody uses any more; with ``keep`` only what no living workload stands on.

    The caller holds the runtime's lock, so no other agent lives. Returns what was removed, one line each;
    what resisted is logged and stays noted for the next sweep.
    """
    done: list[str] = []

    def removed(what: str) -> None:
        done.append(what)
        say(f"removed {what}")

    kept_netns: set[str] = set()
    kept_cgroups: set[str] = set()
    alive = False
    for key, record in list(layout.read_records("workload")):
        if keep and _worth_adopting(record):
            alive = True
            place = record["placement"]
            if place.get("netns"):
                kept_netns.add(Path(place["netns"]).name)
            kept_cgroups.update(str(place[name]) for name in ("appCgroup", "proxyCgroup") if place.get(name))
            continue
        await _attempt(_remove_workload(layout, key, record), f"workload {key}", removed)
    if not alive:
        process = Process.parse(layout.read_record("dns", "process"))
        if process is not None:
            if process.alive():
                await process.end(patience=2)
                removed("the DNS process")
            layout.drop_record("dns", "process")
    for name, _ in list(layout.read_records("netns")):
        if name not in kept_netns:
            await _attempt(netns.remove_namespace(layout, name), f"network namespace {name}", removed)
    for key, record in list(layout.read_records("cgroup")):
        path = Path(str(record.get("path", "")))
        if str(path) in kept_cgroups:
            continue
        if cgroup.remove(path, kill=True):
            layout.drop_record("cgroup", key)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
                path.parent.parent.rmdir()
            removed(f"cgroup {path}")
    if not alive:
        for name, _ in list(layout.read_records("rules")):
            await _attempt(_remove_rules(layout, name), "the nft tables and the route", removed)
        for name, _ in list(layout.read_records("network")):
            await _attempt(netns.remove_network(layout, name), f"bridge {name}", removed)
    return done


async def sweep_by_name(mesh: str, *, say: Say = log.info) -> list[str]:
    """Remove what bears a mesh's name, though no record speaks of it: the runtime directory was lost.

    For root only; the caller made sure that no node of the mesh lives.
    """
    done: list[str] = []

    def removed(what: str) -> None:
        done.append(what)
        say(f"removed {what}")

    hierarchy = cgroup.Hierarchy.find()
    if hierarchy is not None:
        group = hierarchy.mount / f"weft-{mesh}"
        # Before the namespaces: a process in it would keep one alive without a name.
        if group.is_dir() and await asyncio.to_thread(cgroup.remove, group, kill=True):
            removed(f"cgroup {group}")
    if shutil.which("nft", path=SEARCH_PATH):
        ours = {nft.table_name(mesh), f"{nft.table_name(mesh)}-guard"}
        if ours & set(await nft.tables()):
            await _attempt(nft.drop(mesh), "the nft tables", removed)
    # "a-b" begins with "a-" and is another mesh, which may live.
    others = tuple(f"weft-{other}-" for other in meshes_by_name() if other.startswith(f"{mesh}-"))
    for path in sorted(Path("/run/netns").glob(f"weft-{mesh}-*")):
        if path.name.startswith(others):
            continue
        await _attempt(run("ip", "netns", "delete", path.name), f"network namespace {path.name}", removed)
    return done


def meshes_by_name() -> set[str]:
    """Meshes that have a cgroup on this host, whether or not a record speaks of them."""
    hierarchy = cgroup.Hierarchy.find()
    return (
        {path.name.removeprefix("weft-") for path in hierarchy.mount.glob("weft-*")} if hierarchy else set()
    )


def _worth_adopting(record: Record) -> bool:
    """Its application lives; or it is a gateway, which has none.

    A supervisor of system calls that an agent started speaks to that agent only: it is not adopted.
    """
    wrapper = Process.parse(record.get("wrapper"))
    if wrapper is not None:
        return wrapper.alive()
    if record.get("ownRun"):
        application = Process.parse(record.get("application"))
        supervised = record["placement"].get("mode") == Mode.SECCOMP
        return application is not None and application.alive() and not supervised
    return bool(record.get("spec", {}).get("kind") == "router")


async def _remove_workload(layout: Layout, key: str, record: Record) -> None:
    directory = Path(str(record.get("directory", "")))
    application = Process.parse(record.get("application"))
    if application is not None and application.alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(application.pid, signal.SIGTERM)
        await application.end(patience=2)
    process = Process.parse(read_json(directory / "envoy.pid"))
    if process is not None:
        await process.end(patience=2)
    for name in ("appCgroup", "proxyCgroup"):
        # Applications that the node ran live in cgroups of the mesh; those of a wrapper end with it.
        if path := record.get("placement", {}).get(name):
            cgroup.remove(Path(path), kill=bool(record.get("ownRun")) or name == "proxyCgroup")
    if directory.is_relative_to(layout.workloads):
        shutil.rmtree(directory, ignore_errors=True)
    layout.drop_record("workload", key)


async def _remove_rules(layout: Layout, name: str) -> None:
    await nft.drop(layout.mesh)
    with contextlib.suppress(CommandError):
        await run(*netns.route_virtual_addresses("240.240.0.0/16", add=False))
    layout.drop_record("rules", name)


async def _attempt(work: object, what: str, removed: Say) -> None:
    try:
        await work  # type: ignore[misc]
    except (WeftError, OSError) as error:
        log.warning("cannot remove %s: %s", what, error)
    else:
        removed(what)
