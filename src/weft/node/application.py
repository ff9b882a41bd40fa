"""An application that the node itself runs (``weft up``): kept running, restarted, ended.

It may outlive an agent that is killed: the next agent takes it over, and cannot know how it then ends.
Otherwise the kernel ends it with its agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from weft.errors import WeftError
from weft.node.process import Launched, Plan, Process, launch
from weft.node.sidecar import backoff

log = logging.getLogger(__name__)

_STEADY_S: Final = 10.0


class Application:
    """One command, kept running. Its restarts back off from 0.1 s to half a minute."""

    def __init__(
        self,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        log_file: Path,
        cgroup: Path | None = None,
        netns: Path | None = None,
        changed: Callable[[], None] = lambda: None,
        started: Callable[[], None] = lambda: None,
        adopted: Process | None = None,
        outlives: bool = True,
    ) -> None:
        self._plan = Plan(
            argv=argv,
            env=env,
            cwd=cwd,
            log=log_file,
            cgroups=(cgroup / "cgroup.procs",) if cgroup else (),
            netns=netns,
            detach=False,
            private=False,
            death_signal=None if outlives else signal.SIGTERM,
        )
        self._changed = changed
        self._started = started
        self._launched: Launched | None = Launched(adopted, None) if adopted else None
        self._ended = asyncio.Event()
        self._stopping = False
        self.restarts = 0
        self.message = ""

    @property
    def pid(self) -> int | None:
        """Of the command, while it runs."""
        return self._launched.process.pid if self._launched else None

    @property
    def process(self) -> Process | None:
        """The command, while it runs."""
        return self._launched.process if self._launched else None

    async def keep(self) -> None:
        """Run the command until ``stop``. The first start that fails is an error, later ones are tried again.

        Raises:
            LaunchError: the command cannot be executed.
        """
        crashes = 0
        try:
            while not self._stopping:
                started = time.monotonic()
                try:
                    if self._launched is None:
                        self._launched = await launch(self._plan)
                        self._started()
                    self._say("")
                    code = await self._launched.wait()
                    self._launched = None
                    if self._ending():
                        return
                    self._say(f"ended with {describe(code)}")
                except WeftError as error:
                    if not self.restarts:
                        raise
                    self._say(error.message)
                self.restarts += 1
                crashes = 1 if time.monotonic() - started > _STEADY_S else crashes + 1
                await asyncio.sleep(backoff(crashes))
        finally:
            self._launched = None
            self._ended.set()

    async def restart(self, reason: str, grace_s: float) -> None:
        """End the command; ``keep`` starts it again."""
        self._say(reason)
        await self._end(grace_s)

    async def stop(self, grace_s: float) -> None:
        """TERM to the command's session, KILL after ``grace_s``; ``keep`` returns."""
        self._stopping = True
        await self._end(grace_s)

    async def _end(self, grace_s: float) -> None:
        launched = self._launched
        if launched is None:
            return
        self._signal(launched.process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(launched.process.wait(), grace_s)
        except TimeoutError:
            self._signal(launched.process.pid, signal.SIGKILL)
            await launched.process.wait()
        # What it left in its session has nobody to end it.
        self._signal(launched.process.pid, signal.SIGKILL)

    @staticmethod
    def _signal(group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)

    def _ending(self) -> bool:
        return self._stopping

    def _say(self, message: str) -> None:
        self.message = message
        self._changed()


def describe(code: int | None) -> str:
    """An exit status as people say it: ``status 3``, ``SIGKILL``; None is that of an adopted process."""
    if code is None:
        return "an unknown status"
    if code < 0:
        return signal.Signals(-code).name
    return f"status {code}"
