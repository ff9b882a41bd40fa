"""A part of ``weft up`` that is a process of its own: started, started again when it dies, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from weft.app import tree
from weft.errors import WeftError

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0


class Part:
    """``again`` are further arguments for every start but the first; ``env`` is for the first only.

    Traffic needs neither control plane nor node, so the death of one is no reason to end the mesh.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        say: Callable[[str], None],
        again: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        deadline: float = 30,
    ) -> None:
        self.name = name
        self._argv = argv
        self._again = again
        self._env = env
        self._log = log
        self._say = say
        self._deadline = deadline
        self._child: tree.Child | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            WeftError: it did not become ready; bears its last words.
        """
        self._child = await tree.start_and_wait(
            self.name, self._argv, log=self._log, env=self._env, deadline=self._deadline
        )

    async def keep(self, restarted: Callable[[], Awaitable[None]]) -> None:
        """Start it again whenever it has ended, and call back when it is ready; for ever."""
        assert self._child is not None
        loop = asyncio.get_running_loop()
        pause, began = _FIRST_PAUSE_S, loop.time()
        while True:
            code = await self._child.process.wait()
            self._say(
                f"{self.name} ended by itself ({_describe(code)}) and is started again; traffic goes on"
            )
            if loop.time() - began > _STEADY_S:
                pause = _FIRST_PAUSE_S
            while True:
                await asyncio.sleep(pause)
                pause, began = min(pause * 2, _LONGEST_PAUSE_S), loop.time()
                try:
                    self._child = await tree.start_and_wait(
                        self.name, [*self._argv, *self._again], log=self._log, deadline=self._deadline
                    )
                    break
                except WeftError as error:
                    self._say(f"{error.message}: {error.hint}")
            await restarted()
            self._say(f"{self.name} runs again")

    async def stop(self, deadline: float) -> None:
        """End it; after ``deadline`` seconds by force."""
        if self._child is not None:
            await self._child.stop(deadline)


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
