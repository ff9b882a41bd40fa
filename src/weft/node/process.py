"""Processes that may outlive the agent: who they are, whether they live, how they are started and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from weft.errors import WeftError

_LAUNCHER: Final = str(Path(__file__).with_name("launch.py"))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None when the process is gone or only a zombie (proc(5))."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if after_name[0] in {b"Z", b"X"} else int(after_name[19])


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: a pid is given again, a pid with its start time and boot is not."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that bears this pid now, or None."""
        started = _start_ticks(pid)
        return None if started is None else cls(pid, started, _boot_id())

    @classmethod
    def parse(cls, record: object) -> Self | None:
        """Read the form that ``to_record`` wrote."""
        match record:
            case {"pid": int(pid), "started": int(started), "boot": str(boot)}:
                return cls(pid, started, boot)
        return None

    def to_record(self) -> dict[str, int | str]:
        """As JSON can hold it."""
        return {"pid": self.pid, "started": self.started, "boot": self.boot}

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _start_ticks(self.pid) == self.started and _boot_id() == self.boot

    def _open(self) -> int | None:
        """A pidfd of this very process, or None when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return None
        if not self.alive():
            os.close(descriptor)
            return None
        return descriptor

    def send(self, number: signal.Signals) -> bool:
        """Signal it; False when it is gone. Never hits another process that got its pid."""
        descriptor = self._open()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    async def wait(self) -> None:
        """Return when it has ended."""
        descriptor = self._open()
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def end(self, patience: float) -> None:
        """TERM, and KILL after ``patience`` seconds; returns when it has ended."""
        if not self.send(signal.SIGTERM):
            return
        try:
            await asyncio.wait_for(self.wait(), patience)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a process is to be started; ``cgroups`` are ``cgroup.procs`` files.

    ``binary`` is executed by descriptor, else ``argv[0]`` is searched on the PATH of ``env``. ``detach``: it
    shall outlive us. ``bind_service``: keep the right to open ports below 1024 after the change of user.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    binary: Path | None = None
    cwd: str | None = None
    uid: int | None = None
    gid: int | None = None
    cgroups: Sequence[Path] = ()
    netns: Path | None = None
    log: Path | None = None
    detach: bool = True
    private: bool = True
    bind_service: bool = False
    death_signal: int | None = None

    def to_json(self) -> bytes:
        """What ``launch.py`` reads."""
        plan = {
            "argv": list(self.argv),
            "env": dict(self.env),
            "binary": str(self.binary) if self.binary else None,
            "cwd": self.cwd,
            "uid": self.uid,
            "gid": self.gid if self.gid is not None else self.uid,
            "cgroups": [str(path) for path in self.cgroups],
            "netns": str(self.netns) if self.netns else None,
            "log": str(self.log) if self.log else None,
            "detach": self.detach,
            "private": self.private,
            "bindService": self.bind_service,
            "deathSignal": self.death_signal,
        }
        return json.dumps(plan).encode()


class LaunchError(WeftError):
    """A program could not be executed."""


class Launched:
    """A process just started. ``child`` is ours to wait for only when it was not detached."""

    def __init__(self, process: Process, child: asyncio.subprocess.Process | None) -> None:
        self.process = process
        self._child = child

    async def wait(self) -> int | None:
        """Wait for its end; the exit status as asyncio gives it, None for a detached process."""
        if self._child is not None:
            return await self._child.wait()
        await self.process.wait()
        return None


async def launch(plan: Plan) -> Launched:
    """Start a process by its plan and wait until it is executed.

    Raises:
        LaunchError: when the program cannot be executed, its user or namespace not be entered.
    """
    launcher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        _LAUNCHER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(plan.to_json())
    launcher.stdin.close()
    said = await launcher.stdout.read()
    process: Process | None = None
    for line in said.splitlines():
        report = json.loads(line)
        if "error" in report:
            with contextlib.suppress(ProcessLookupError):
                await launcher.wait()
            raise LaunchError(
                f"cannot execute {plan.argv[0]}: {report['error']}",
                hint="check the command, its PATH and its permissions",
            )
        process = Process.of(report["pid"])
    if plan.detach:
        await launcher.wait()
    if process is None:
        # It was executed and has ended already: wait() returns at once for it.
        pid = json.loads(said.splitlines()[0])["pid"] if said else launcher.pid
        process = Process(pid, -1, "")
    return Launched(process, None if plan.detach else launcher)
