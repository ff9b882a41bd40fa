"""Where on this host the ports of gateways are opened: decided once for each, kept while it is wanted."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from weft.app.gateways import EdgeProxy
from weft.node.capture.loopback import GATEWAYS

_USUAL: Final = (80, 443)


@dataclass(frozen=True, slots=True)
class Door:
    """``ports``: of the Gateway -> of the host. ``address`` None: every address of this host.

    ``new`` are the ports that were not there the last time, each with the reason why it is not where the
    Gateway says, or an empty text. ``moved`` are those that are elsewhere on the host, with ports that may
    still come: a proxy is told of them when it starts, and must be started again to be told of more.
    """

    ports: Mapping[int, int]
    address: str | None
    new: Mapping[int, str]
    moved: Mapping[int, int]


class Doors:
    """Places for gateways.

    A port that another gateway has already is open at another address, of that gateway alone; so is every
    port of one that asks for an address of this host.

    Args:
        wanted: gateway port -> host port, by ``--port-map``.
        lowest: the first port that this user may open.
        free: whether a port (0: any) of an address can be opened.
    """

    def __init__(
        self, mesh: str, wanted: Mapping[int, int], *, lowest: int, free: Callable[[int, str], bool]
    ) -> None:
        self._mesh = mesh
        self._wanted = wanted
        self._lowest = lowest
        self._free = free
        self._ports: dict[str, dict[int, int]] = {}
        self._drawn: dict[str, str] = {}
        self._everywhere: set[str] = set()
        self._ours: set[int] = set()
        self._ahead: dict[str, dict[int, int]] = {}

    def keep(self, edges: Collection[str]) -> None:
        """Forget what others than these had."""
        for gone in self._ports.keys() - set(edges):
            del self._ports[gone]
            self._drawn.pop(gone, None)
            self._ahead.pop(gone, None)
            self._everywhere.discard(gone)

    def give(self, edge: EdgeProxy) -> Door:
        """The place of a gateway: as it was, and new ports beside."""
        held = {port for name in self._everywhere - {edge.id} for port in self._ports.get(name, {}).values()}
        ports = self._ports.setdefault(edge.id, {})
        new = [port for port in edge.ports if port not in ports]
        # What one of ours has, or has not quite given back, is in nobody's way: ours share ports.
        free = {port: port in self._ours or self._free(port, "0.0.0.0") for port in new}
        if edge.id not in self._ahead:
            self._ahead[edge.id] = self._expected()
        ahead = self._ahead[edge.id]
        placed = place_ports(new, self._wanted, lowest=self._lowest, free=free)
        ports.update({port: ahead.get(port, to) for port, to in placed.items()})
        self._ours.update(ports.values())
        asked = next((address for address in edge.addresses if self._free(0, address)), None)
        if asked is None and edge.id not in self._drawn and not held.isdisjoint(ports.values()):
            self._drawn[edge.id] = _draw(f"{self._mesh}/{edge.id}", self._drawn.values())
        address = asked or self._drawn.get(edge.id)
        if address is None:
            self._everywhere.add(edge.id)
        else:
            self._everywhere.discard(edge.id)
        said = {port: self._reason(port, ports[port], free=free[port]) for port in new}
        here = {port: ports[port] for port in edge.ports}
        moved = {**ahead, **{port: to for port, to in here.items() if to != port}}
        return Door(here, address, said, moved)

    def _expected(self) -> dict[int, int]:
        """Ports that a Gateway is likely to ask for one day, and that would not be where it says."""
        likely = [*_USUAL, *self._wanted]
        free = {port: port in self._ours or self._free(port, "0.0.0.0") for port in likely}
        placed = place_ports(likely, self._wanted, lowest=self._lowest, free=free)
        return {
            port: to for port, to in placed.items()
            if to != port and (to in self._ours or self._free(to, "0.0.0.0"))
        }  # fmt: skip

    def _reason(self, port: int, placed: int, *, free: bool) -> str:
        if placed == port:
            return ""
        if port in self._wanted:
            return "--port-map"
        return "not allowed without root" if free else "taken"


def place_ports(
    ports: Iterable[int], wanted: Mapping[int, int], *, lowest: int, free: Mapping[int, bool]
) -> dict[int, int]:
    """Gateway port -> host port. What is not ``wanted`` stays, unless it is below ``lowest`` (the first port
    that this user may bind) or not ``free``: then it moves up by 10,000 (``80`` -> ``10080``).
    """
    placed: dict[int, int] = {}
    for port in ports:
        if port in wanted:
            placed[port] = wanted[port]
        elif port < lowest or not free.get(port, True):
            placed[port] = port + 10_000 if port + 10_000 < 65536 else port
        else:
            placed[port] = port
    return placed


def _draw(seed: str, taken: Collection[str]) -> str:
    """A loopback address: always the same one, if it is not ``taken``."""
    for attempt in itertools.count():
        drawn = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        # No .0 and no .255: some programs take them for a network and for everybody in it.
        address = f"127.{GATEWAYS[drawn[0] % len(GATEWAYS)]}.{drawn[1]}.{drawn[2] % 254 + 1}"
        if address not in taken:
            break
    return address
