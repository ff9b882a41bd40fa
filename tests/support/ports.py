"""Ports that nobody uses.

They lie below the range that the kernel takes ports for outgoing connections from: what is free there stays
free until somebody asks for it by number. Test processes that run at once begin at different places.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from typing import Final

_FIRST: Final = 20_100
_COUNT: Final = 11_900


def _candidates() -> Iterator[int]:
    start = os.getpid() * 7919
    return itertools.cycle(_FIRST + (start + step * 37) % _COUNT for step in range(_COUNT))


_next = _candidates()


def free_port(address: str = "127.0.0.1") -> int:
    """A port of ``address`` that was free a moment ago, for TCP and for UDP; each time another.

    Raises:
        OSError: none is.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in itertools.islice(_next, _COUNT):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as probe:
                    probe.bind((address, port))
        except OSError:
            continue
        return port
    raise OSError(f"no port of {address} is free")


def free_ports(count: int, address: str = "127.0.0.1") -> tuple[int, ...]:
    """So many different ones."""
    return tuple(free_port(address) for _ in range(count))
