"""Several hosts on one machine: a network namespace each, joined by a bridge in one more namespace.

The machine's own network is not touched. Addresses are 10.77.0.1, 10.77.0.2, … in the order of the names.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Host:
    """One network namespace that plays a machine. ``link`` is its cable's end at the switch."""

    name: str
    namespace: str
    address: str
    link: str
    switch: str

    def command(self, *argv: str) -> list[str]:
        """``argv`` as run on this host; nsenter and not ``ip netns exec``, which remounts /sys."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *argv]

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process on this host."""
        return subprocess.Popen(self.command(*argv), text=True, **options)

    def run(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        stderr: int | IO[str] | None = None,
    ) -> str:
        """Run a command on this host and give its output.

        Raises:
            subprocess.CalledProcessError: when it fails.
        """
        done = subprocess.run(
            self.command(*argv), check=True, text=True, stdout=subprocess.PIPE, stderr=stderr,
            env={**os.environ, **(env or {})}, timeout=timeout,
        )  # fmt: skip
        return done.stdout

    def partition(self) -> None:
        """Pull the cable."""
        _ip("-n", self.switch, "link", "set", self.link, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("-n", self.switch, "link", "set", self.link, "up")


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[tuple[Host, ...]]:
    """As many hosts as names, all reaching each other; gone at the end, whatever happened."""
    run = secrets.token_hex(3)
    switch = f"weft-t{run}-switch"
    made = [
        Host(name, f"weft-t{run}-{name}", f"10.77.0.{n}", f"p{n}", switch)
        for n, name in enumerate(names, start=1)
    ]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in made:
            _ip("netns", "add", host.namespace)
            _ip(
                "-n",
                switch,
                "link",
                "add",
                host.link,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.namespace,
            )
            _ip("-n", switch, "link", "set", host.link, "master", "bridge", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.namespace, "link", "set", device, "up")
            _ip("-n", host.namespace, "route", "add", "default", "via", "10.77.0.254")
        yield tuple(made)
    finally:
        for namespace in [*(host.namespace for host in made), switch]:
            _end_processes(namespace)
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _end_processes(namespace: str) -> None:
    """Kill what still runs in a namespace of ours; it would keep the namespace alive."""
    if not Path("/run/netns", namespace).exists():
        return
    pids = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
    for pid in pids.stdout.split():
        subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
