"""Requests and streams without a pause while something else happens; every one that fails is remembered."""

from __future__ import annotations

import ctypes
import http.client
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CLONE_NEWNET = 0x40000000
# Enough for a proxy to see that it is no TLS: with less than the head of a record it waits for more.
_PING = b"ping and back\n"


def enter_network(netns: Path) -> None:
    """Move the calling thread, and only it, into a network namespace.

    Raises:
        OSError: not allowed, or it is gone.
    """
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
    finally:
        os.close(descriptor)


@dataclass
class Load:
    """What became of the requests: ``answers`` counts statuses, ``servers`` who answered; ``errors`` are
    requests without an answer, ``failures`` those and the answers of 500 and above.
    """

    answers: Counter[int] = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        """Requests so far."""
        return self.answers.total() + self.errors

    def note(self, status: int, server: str) -> None:
        """Remember an answer."""
        with self._lock:
            self.answers[status] += 1
            self.servers[server] += 1
            if status >= 500:
                self.failures.append(
                    f"{time.strftime('%H:%M:%S')} status {status} from {server or 'a proxy'}"
                )

    def fail(self, error: Exception) -> None:
        """Remember a request without an answer."""
        with self._lock:
            self.errors += 1
            self.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}")

    def wait_for(self, more: int, seconds: float = 30) -> None:
        """Until so many more requests were made.

        Raises:
            AssertionError: they were not.
        """
        goal, end = self.count + more, time.monotonic() + seconds
        while self.count < goal:
            assert time.monotonic() < end, f"{self.count} of {goal} requests within {seconds:g} s"
            threading.Event().wait(0.02)


@contextmanager
def load(
    host: str,
    port: int,
    path: str = "/",
    *,
    headers: Mapping[str, str] | None = None,
    netns: Path | None = None,
    keep_alive: bool = True,
    threads: int = 2,
    pause_s: float = 0.0,
) -> Iterator[Load]:
    """Send GETs from ``threads`` threads while the context lasts, each over a connection of its own.

    ``keep_alive`` off: each request too. ``netns``: from inside this network namespace. A connection that
    the other side closed between two requests is opened again, as clients do; nothing else is tried twice.
    """
    found, stop = Load(), threading.Event()

    def send() -> None:
        if netns is not None:
            enter_network(netns)
        connection = http.client.HTTPConnection(host, port, timeout=15)
        fresh = True
        while not stop.is_set():
            try:
                connection.request("GET", path, headers=dict(headers or {}))
                answer = connection.getresponse()
                answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                connection.close()
                if fresh:
                    found.fail(error)
                fresh = True
                continue
            except (OSError, http.client.HTTPException) as error:
                found.fail(error)
                connection.close()
                fresh = True
                continue
            found.note(answer.status, answer.headers.get("x-served-by", ""))
            fresh = not keep_alive or answer.will_close
            if fresh:
                connection.close()
            if pause_s:
                stop.wait(pause_s)
        connection.close()

    senders = [threading.Thread(target=send, daemon=True) for _ in range(threads)]
    for sender in senders:
        sender.start()
    try:
        yield found
    finally:
        stop.set()
        for sender in senders:
            sender.join(20)


@contextmanager
def streams(
    host: str, port: int, *, netns: Path | None = None, life_s: float = 3.0, pause_s: float = 0.05
) -> Iterator[Load]:
    """Have bytes sent back over one TCP connection after another, each in use for ``life_s``.

    An exchange counts as a 200.
    """
    found, stop = Load(), threading.Event()

    def hold() -> None:
        if netns is not None:
            enter_network(netns)
        while not stop.is_set():
            until = time.monotonic() + life_s
            try:
                with socket.create_connection((host, port), 15) as connection:
                    while True:
                        connection.sendall(_PING)
                        if (got := connection.recv(len(_PING), socket.MSG_WAITALL)) != _PING:
                            raise ConnectionError(f"{got!r} came back")
                        found.note(200, "")
                        if stop.wait(pause_s) or time.monotonic() >= until:
                            break
            except OSError as error:
                found.fail(error)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        yield found
    finally:
        stop.set()
        holder.join(20)
