"""Control groups as names for processes: nft tells applications and sidecars apart by them.

No controller is used and none is needed, so a hybrid mount (cgroup2 without controllers) does as well.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

# nft looks paths up below this directory, wherever cgroup2 is mounted (src/socket.c of nftables).
_NFT_ROOT: Final = Path("/sys/fs/cgroup")
_EMPTY_POLL_S: Final = 0.005
_EMPTY_WAIT_S: Final = 2.0
_DELEGATE_MARKS: Final = ("user.delegate", "trusted.delegate")


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """A cgroup as nft writes it: ``path`` from /sys/fs/cgroup, ``level`` counted from the cgroup2 root."""

    path: str
    level: int


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where cgroup2 is mounted: ``/sys/fs/cgroup``, or ``/sys/fs/cgroup/unified`` on a hybrid host."""

    mount: Path

    @classmethod
    def find(cls, mountinfo: str | None = None) -> Self | None:
        """The cgroup2 mount that nft can see, or None."""
        text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            mount = Path(before.split()[4])
            if after.split()[:1] == ["cgroup2"] and mount.is_relative_to(_NFT_ROOT):
                return cls(mount)
        return None

    def group(self, directory: Path) -> Group:
        """How nft names a directory of this hierarchy."""
        return Group(str(directory.relative_to(_NFT_ROOT)), len(directory.relative_to(self.mount).parts))

    def of_process(self, pid: int) -> Path | None:
        """The cgroup that a process is in, or None when it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                if line.startswith("0::"):
                    return self.mount / line[3:].removesuffix(" (deleted)").lstrip("/")
        return None

    def delegated_to(self, pid: int) -> Path | None:
        """The cgroup of a process if systemd delegated it (``Delegate=yes``): we may make our own below it.

        Elsewhere systemd owns the tree: its processes are moved into weft's own root instead.
        """
        found = self.of_process(pid)
        if found is None or found == self.mount:
            return None
        for mark in _DELEGATE_MARKS:
            with contextlib.suppress(OSError):
                if os.getxattr(found, mark) == b"1":
                    return found
        return None


def make(directory: Path) -> Path:
    """Make a cgroup and its parents. One that exists is kept: rules match by its id, not by its name.

    Raises:
        OSError: without the right to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def enter(directory: Path, pid: int) -> None:
    """Move a process into a cgroup. Sockets it has already keep the cgroup they were made in.

    Raises:
        OSError: without the right to, or when the process is gone.
    """
    (directory / "cgroup.procs").write_text(str(pid))


def members(directory: Path) -> tuple[int, ...]:
    """The pids in a cgroup; empty when there is no such cgroup."""
    try:
        return tuple(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
    except OSError:
        return ()


def remove(directory: Path, *, kill: bool = False) -> bool:
    """Remove a cgroup and those below; ``kill`` ends their processes. False when some are left in it."""
    if not directory.is_dir():
        return True
    if kill:
        with contextlib.suppress(OSError):
            (directory / "cgroup.kill").write_text("1")
    for child in sorted(path for path in directory.iterdir() if path.is_dir()):
        remove(child, kill=kill)
    deadline = time.monotonic() + (_EMPTY_WAIT_S if kill else 0)
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_EMPTY_POLL_S)  # killed processes leave in their own time
        else:
            return True
