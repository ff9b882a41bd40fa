"""Which workload of this node a process belongs to: by what the kernel says, never by what it says itself.

A process with a network namespace or a cgroup of its workload is known by these, which only root can change.
Without root there is neither: it is known by its ancestors, and the user's other processes could trace or
imitate it. The same uid is no boundary; what is checked here keeps workloads from being mixed up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from weft.node.capture.cgroup import Hierarchy
from weft.node.claims import Held
from weft.node.process import Process
from weft.node.spec import Placement

_ANCESTORS_MAX: Final = 64


class Member(Protocol):
    """What of a workload tells its processes."""

    @property
    def placement(self) -> Placement:
        """Its namespace and cgroup, where it has them."""

    def processes(self) -> tuple[Process, ...]:
        """The first ones of its application."""


Found = TypeVar("Found", bound=Member)


def find_caller(held: Held, members: Iterable[Found]) -> Found | None:
    """The workload that the process at the other end of a connection belongs to, or None."""
    found = find(held.pid, members)
    return found if held.alive() else None


def find(pid: int, members: Iterable[Found]) -> Found | None:
    """The workload of a process."""
    if pid <= 0:
        return None  # it lives in a process namespace that this one does not see
    group, network, line = _group(pid), _network(f"/proc/{pid}/ns/net"), None
    for member in members:
        where = member.placement
        if where.netns is not None:
            belongs = network is not None and network == _network(str(where.netns))
        elif where.app_cgroup is not None:
            belongs = group is not None and group.is_relative_to(where.app_cgroup)
        else:
            line = ancestry(pid) if line is None else line
            belongs = not line.isdisjoint(member.processes())
        if belongs:
            return member
    return None


def ancestry(pid: int) -> frozenset[Process]:
    """A process and those that it descends from."""
    found: set[Process] = set()
    while pid > 1 and len(found) < _ANCESTORS_MAX:
        process = Process.of(pid)
        if process is None:
            break
        found.add(process)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return frozenset(found)


def _group(pid: int) -> Path | None:
    hierarchy = Hierarchy.find()
    return hierarchy.of_process(pid) if hierarchy is not None else None


def _network(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a name of the kernel's, not a file
    except OSError:
        return None
    return found.st_dev, found.st_ino
