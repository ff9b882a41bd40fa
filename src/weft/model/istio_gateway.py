"""Gateway of networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.istio import IstioStatus
from weft.model.resource import Resource
from weft.model.scalars import Text, UInt
from weft.model.server_tls import ServerTLSSettings


class GatewayPort(Shape):
    """The port that a gateway listens on."""

    name: Text
    number: UInt
    protocol: Text
    target_port: UInt | None = None


class Server(Shape):
    """A port, the hosts that it serves, and its TLS."""

    bind: Text | None = None
    default_endpoint: Text | None = None
    hosts: tuple[Text, ...]
    """Hosts that are served, as 'shop.example.com', '*' or 'namespace/host'."""
    name: Text | None = None
    port: GatewayPort
    """The port that is opened."""
    tls: ServerTLSSettings | None = None
    """How TLS is ended, or that it is passed through."""

    def flaws(self) -> Iterator[Flaw]:
        """TLS where the protocol needs it, and there only (Istio's validation of Gateway)."""
        secure = self.port.protocol.upper() in {"HTTPS", "TLS"}
        if secure and self.tls is None:
            yield Flaw(("tls",), f"protocol {self.port.protocol} needs tls", "add tls with its mode")
        if not secure and self.tls is not None and self.tls.mode is not None:
            yield Flaw(
                ("tls", "mode"), f"protocol {self.port.protocol} has no TLS", "write 'protocol: HTTPS' or TLS"
            )


class GatewaySpec(Shape):
    """Ports of the gateways that bear these labels."""

    selector: dict[str, Text] | None = None
    """Labels of the proxies that open these ports."""
    servers: tuple[Server, ...] | None = None
    """Ports and what is served there."""

    def flaws(self) -> Iterator[Flaw]:
        """There is a server."""
        if not self.servers:
            yield Flaw(("servers",), "a Gateway needs a server", "add a port and its hosts under servers")


class Gateway(Resource):
    """Ports at the edge of the mesh."""

    spec: GatewaySpec = Field(default_factory=lambda: GatewaySpec())
    status: IstioStatus | None = None
