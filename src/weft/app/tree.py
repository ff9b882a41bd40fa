"""Child processes that never outlive their parent and never see its terminal's Ctrl-C.

A child has a session of its own, so that the parent decides the order in which things stop, and the
kernel ends it (SIGTERM) when the parent dies in any way (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from weft.errors import WeftError

_PR_SET_PDEATHSIG: Final = 1
_TAIL_BYTES: Final = 4096


def _die_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the kernel knew of the wish
            os._exit(1)

    return prepare


@dataclass(slots=True)
class Child:
    """One running child. ``log`` holds its output."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stopping: bool = field(default=False)

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self.process.returncode is None

    def tail(self) -> str:
        """The last lines that it wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    async def stop(self, deadline: float) -> None:
        """Ask it to end (SIGTERM); after ``deadline`` seconds make it (SIGKILL)."""
        self.stopping = True
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), deadline)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


async def start(
    name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> Child:
    """Start a child whose output is appended to ``log``.

    Raises:
        WeftError: when the program cannot be started.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd,
                env={**os.environ, **(env or {})}, start_new_session=True, preexec_fn=_die_with(os.getpid()),
            )  # fmt: skip
        except OSError as error:
            raise WeftError(f"{name} cannot be started: {error.strerror}: {argv[0]}") from error
    return Child(name, process, log)


async def start_and_wait(
    name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, deadline: float = 30
) -> Child:
    """Start a child that tells its readiness by sd_notify(3), and wait for it.

    Raises:
        WeftError: when it ends or stays silent for ``deadline`` seconds; bears its last words.
    """
    loop = asyncio.get_running_loop()
    path = log.with_suffix(".notify")
    path.unlink(missing_ok=True)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(path))
        notices.setblocking(False)
        child = await start(name, argv, log=log, env={**(env or {}), "NOTIFY_SOCKET": str(path)})
        try:
            ready = asyncio.create_task(_ready(loop, notices))
            ended = asyncio.create_task(child.process.wait())
            done, pending = await asyncio.wait(
                {ready, ended}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED
            )
            for task in pending:
                task.cancel()
        except asyncio.CancelledError:
            await asyncio.shield(child.stop(5))
            raise
        finally:
            path.unlink(missing_ok=True)
    if ready in done:
        return child
    words = child.tail()
    if ended in done:
        raise WeftError(f"{name} ended at once (exit code {child.process.returncode})", hint=words)
    await child.stop(5)
    raise WeftError(f"{name} was not ready within {deadline:g} s", hint=words)


async def _ready(loop: asyncio.AbstractEventLoop, notices: socket.socket) -> None:
    while b"READY=1" not in (await loop.sock_recv(notices, 4096)).split(b"\n"):
        pass
