"""What the control plane wants pushed, as it says it over standard input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

INTERVAL_S: Final = 15.0
"""How often collectors are told, as Prometheus scrapes."""
MESH: Final = "mesh"
"""Stands for this process' own certificate, or for the authorities of the mesh."""
SYSTEM: Final = "system"


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """``roots``: PEM, ``mesh`` or ``system``; empty: the other side is not verified. ``certificate``: PEM
    with ``key``, or ``mesh``; empty: none. ``names``: what the other side must be called, one of them, each
    ``exact`` or a ``prefix``; none: as ``sni``. ``minimum``, ``maximum``: as ``1.2``.
    """

    sni: str = ""
    names: tuple[tuple[str, str], ...] = ()
    alpn: tuple[str, ...] = ()
    roots: str = SYSTEM
    certificate: str = ""
    key: str = ""
    minimum: str = "1.2"
    maximum: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """``address``: of IP, a name, or ``unix:PATH``. ``secured``: TLS is spoken to it, if there is any."""

    address: str
    port: int
    secured: bool = True


class Collector(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: of the provider. ``path``: of HTTP; None: gRPC. ``problem``: why it cannot be reached."""

    name: str
    host: str = ""
    path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    connect_s: float = 10.0
    endpoints: tuple[Endpoint, ...] = ()
    tls: Tls | None = None
    problem: str = ""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A collector that a proxy's series go to. ``sides``: by which ``reporter``, without which metrics.

    ``service``: what the proxy is called there; empty: as it calls itself.
    """

    collector: str
    sides: Mapping[str, tuple[str, ...]]
    service: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``others``: by ``namespace/name`` of proxies that ``choices`` do not hold for."""

    collectors: tuple[Collector, ...] = ()
    choices: tuple[Choice, ...] = ()
    others: Mapping[str, tuple[Choice, ...]] = {}
    interval_s: float = INTERVAL_S

    def of(self, namespace: str, name: str) -> tuple[Choice, ...]:
        """Where a proxy's series go."""
        return self.others.get(f"{namespace}/{name}", self.choices)


class Page(msgspec.Struct, frozen=True):
    """Series of the control plane or of a node, in Prometheus' text, with what they are of."""

    resource: tuple[tuple[str, str], ...]
    text: str


NOTHING: Final = Plan()
