"""How a long-running part says that it is ready, and stops: signals, guards, a drain with a deadline."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def stop_on_signals(*, on_again: Callable[[], None] | None = None) -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets. ``on_again`` is called at each further one."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def received() -> None:
        if stop.is_set():
            if on_again is not None:
                on_again()
        else:
            stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


class Readiness:
    """Ready once every part that took a guard has said so; not ready any more as soon as one fails.

    Guards are taken before anything is started, so that a part cannot be forgotten by being slow.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._ready = asyncio.Event()
        self._ready.set()

    def guard(self, name: str) -> Callable[[], None]:
        """A part that must be waited for; call the result when it is ready. Calling it twice is harmless."""
        self._waiting[name] = self._waiting.get(name, 0) + 1
        self._ready.clear()
        open_ = True

        def ready() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self._waiting[name] -= 1
                if not self._waiting[name]:
                    del self._waiting[name]
                if not self._waiting:
                    self._ready.set()

        return ready

    @contextmanager
    def unready(self, name: str) -> Iterator[None]:
        """Not ready while the block runs, as during a drain."""
        ready = self.guard(name)
        try:
            yield
        finally:
            ready()

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Names of the parts that are not ready; none when all are."""
        return tuple(sorted(self._waiting))

    async def wait(self) -> None:
        """Until everything is ready."""
        while self._waiting:
            await self._ready.wait()


async def drain(work: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Run ``work`` for at most ``seconds``; whether it ended by itself. It is cancelled otherwise."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True


def notify_ready() -> None:
    """Tell whoever started this process that it is ready (sd_notify(3)); nobody may have asked."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notices:
        notices.sendto(b"READY=1", address)


def log_to_stderr(verbose: int = 0) -> None:
    """Warnings to standard error; ``verbose`` 1 shows what happens, 2 everything."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
