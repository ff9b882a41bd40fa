"""What a workload and its sidecar use of the host: by cgroup where the kernel counts there, else by /proc.

The series have cAdvisor's names, for which dashboards ask.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weft.node.capture import cgroup

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Of proc(5)'s stat, counted from the state: utime, stime, cutime, cstime, rss.
_UTIME, _STIME, _CUTIME, _CSTIME, _RSS = 11, 12, 13, 14, 21
_PROCESSES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu_s``: seconds of CPU so far. Memory is bytes; ``working_set`` cannot be taken back easily."""

    cpu_s: float
    working_set: int
    rss: int
    processes: int


@dataclass(frozen=True, slots=True)
class _Counted:
    own_s: float
    children_s: float
    rss: int


def _count(pid: int) -> _Counted | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return _Counted(
        (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        (int(fields[_CUTIME]) + int(fields[_CSTIME])) / _TICKS,
        int(fields[_RSS]) * _PAGE,
    )


def _descendants(pid: int) -> Iterator[int]:
    """All below a process, parents first."""
    pending, found = [pid], 0
    while pending and found < _PROCESSES_MAX:
        parent = pending.pop()
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                children = (task / "children").read_bytes().split()
            except OSError:
                continue
            for child in map(int, children):
                found += 1
                pending.append(child)
                yield child


def of_itself(pid: int) -> Usage | None:
    """One process without what it has waited for; None when it is gone."""
    counted = _count(pid)
    return Usage(counted.own_s, counted.rss, counted.rss, 1) if counted else None


def of_process(pid: int) -> Usage | None:
    """One process with what it has waited for; None when it is gone."""
    counted = _count(pid)
    if counted is None:
        return None
    return Usage(counted.own_s + counted.children_s, counted.rss, counted.rss, 1)


def of_tree(pid: int, *, itself: bool = True) -> Usage | None:
    """A process and all below it; without ``itself`` only those below, ended ones included.

    Memory that processes share is counted in each.
    """
    # Parents first: a child that ends meanwhile is missed once, rather than counted twice.
    top = _count(pid)
    if top is None:
        return None
    pids = list(_descendants(pid))
    usage = _of(pids)
    cpu = usage.cpu_s + top.children_s + (top.own_s if itself else 0)
    rss = usage.rss + (top.rss if itself else 0)
    return Usage(cpu, rss, rss, usage.processes + itself)


def _of(pids: Iterable[int]) -> Usage:
    counted = [found for pid in pids if (found := _count(pid)) is not None]
    rss = sum(one.rss for one in counted)
    return Usage(sum(one.own_s + one.children_s for one in counted), rss, rss, len(counted))


def of_group(group: Path) -> Usage | None:
    """A cgroup with all below; what the kernel does not count there, by its processes. None without any."""
    pids = [pid for directory in _groups(group) for pid in cgroup.members(directory)][:_PROCESSES_MAX]
    if not pids:
        return None
    usage = _of(sorted(pids))
    cpu = _field(group / "cpu.stat", b"usage_usec")
    current = _number(group / "memory.current")
    idle = _field(group / "memory.stat", b"inactive_file")
    anonymous = _field(group / "memory.stat", b"anon")
    return Usage(
        usage.cpu_s if cpu is None else cpu / 1e6,
        usage.working_set if current is None else max(0, current - (idle or 0)),
        usage.rss if anonymous is None else anonymous,
        usage.processes,
    )


def _groups(group: Path) -> Iterator[Path]:
    yield group
    try:
        below = [path for path in group.iterdir() if path.is_dir()]
    except OSError:
        return
    for path in below:
        yield from _groups(path)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: bytes) -> int | None:
    try:
        for line in path.read_bytes().splitlines():
            key, _, value = line.partition(b" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


class Marks:
    """A counter never falls: what ended between two looks was counted in the first."""

    def __init__(self) -> None:
        self._high: dict[Hashable, float] = {}

    def highest(self, key: Hashable, value: float) -> float:
        """The value, or a higher one that was seen under this key."""
        high = self._high[key] = max(value, self._high.get(key, 0.0))
        return high

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forget all others."""
        kept = set(keys)
        self._high = {key: value for key, value in self._high.items() if key in kept}
