"""One listening port of a gateway, whichever API declared it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from weft import ir
from weft.compile.settings import Settings
from weft.model.resource import Key


class Speaks(StrEnum):
    """``HTTP``; ``HTTPS``: HTTP inside TLS that ends here; ``TCP``; ``TLS``: TCP inside TLS that ends here.

    ``PASSTHROUGH``: TLS that ends elsewhere; only its SNI is read.
    """

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    TLS = "tls"
    PASSTHROUGH = "passthrough"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """``gateway`` is ``namespace/name``; ``hosts`` are (namespace of their routes or ``*``, host).

    ``redirect`` answers every plain request with https. ``secured``: it says something of TLS, if only that.
    ``automatic``: what passes through goes to the service that its SNI names, whatever rules there are.
    ``place`` is its number in its Gateway. ``at``: where it listens, if a Service says another port.
    """

    gateway: str
    port: int
    name: str
    speaks: Speaks
    hosts: tuple[tuple[str, str], ...]
    bind: str = ""
    tls: ir.DownstreamTls | None = None
    redirect: bool = False
    secured: bool = False
    automatic: bool = False
    place: int = 0
    at: int = 0
    source: Key

    @property
    def listens(self) -> int:
        """The port of its listener; ``port`` is what its Gateway calls it."""
        return self.at or self.port

    @property
    def namespace(self) -> str:
        """The namespace of its Gateway."""
        return self.gateway.partition("/")[0]

    @property
    def route_name(self) -> str:
        """Istio's name of the route table: plain HTTP shares one a port, HTTPS has one a server."""
        if self.speaks is Speaks.HTTP:
            return f"http.{self.listens}.{self.bind}" if self.bind else f"http.{self.listens}"
        namespace, _, name = self.gateway.partition("/")
        bind = f".{self.bind}" if self.bind else ""
        return f"https.{self.port}.{self.name}.{name}.{namespace}{bind}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """SNI that its chain takes; empty takes all."""
        names = tuple(dict.fromkeys(host.lower() for _, host in self.hosts))
        return () if "*" in names else names


def edge_receive(settings: Settings) -> ir.Receive:
    """How connections come to a gateway: perhaps through a balancer that says whose they are."""
    return ir.Receive.PROXY_PROTOCOL if settings.edge_proxy_protocol else ir.Receive.BOUND


# Istio's gateways pass on the certificate itself, too.
_SHOWN: Final = ir.OwnHeaders(certificate=ir.CertificateParts(certificate=True))


def edge_handler(
    listener: str,
    table: str,
    settings: Settings,
    *,
    tls: ir.DownstreamTls | None = None,
    looks_up: bool = False,
) -> ir.HttpHandler:
    """HTTP from outside: what clients claim of themselves is not believed, unless they are of the mesh."""
    return ir.HttpHandler(
        stat_prefix=f"outbound_{listener}",
        routes=table,
        client_certificate=settings.edge_certificate,
        trusted_hops=settings.trusted_hops,
        edge=True,
        strangers=tls is None or not tls.peer_trust_domains,
        headers=_SHOWN,
        looks_up=looks_up,
        grpc=True,
        path_normalization=settings.path_normalization,
    )
