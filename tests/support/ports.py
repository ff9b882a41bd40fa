"""Ports that nobody uses."""

from __future__ import annotations

import contextlib
import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of ``address`` that was free a moment ago."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int, address: str = "127.0.0.1") -> tuple[int, ...]:
    """So many different ones: asked for one by one, the kernel may give the same port twice."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((address, 0))
        return tuple(probe.getsockname()[1] for probe in probes)
