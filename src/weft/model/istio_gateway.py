"""Gateway of networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from weft.model.base import Flaw, Shape, each, twice
from weft.model.hosts import is_address, is_label, namespaced, socket
from weft.model.istio import IstioResource, IstioStatus
from weft.model.protocols import HINT, is_http, is_known, is_tls
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
        if not self.hosts:
            yield Flaw(("hosts",), "the server has no hosts", "add them, or '*' for all")
        for number, host in enumerate(self.hosts):
            yield from each(("hosts", number), namespaced(host, gateway=True))
        yield from self._port()
        protocol = self.port.protocol
        if is_tls(protocol) and self.tls is None:
            yield Flaw(("tls",), f"protocol {protocol} needs tls", "add tls with its mode")
        if self.tls is not None and self.tls.https_redirect and not is_http(protocol):
            path = ("tls", "httpsRedirect")
            yield Flaw(path, "only HTTP can be redirected", "write 'protocol: HTTP'", warns=True)
        if is_tls(protocol) or self.tls is None:
            return
        given = self.tls.ca_certificates or self.tls.private_key or self.tls.server_certificate
        if not is_http(protocol):
            yield Flaw(("tls",), f"protocol {protocol} has no TLS", "write 'protocol: HTTPS' or TLS")
        elif given or self.tls.mode not in {None, "PASSTHROUGH", "AUTO_PASSTHROUGH"}:
            hint = "write 'protocol: HTTPS', or leave httpsRedirect alone"
            yield Flaw(("tls",), f"protocol {protocol} has no TLS", hint)

    def _port(self) -> Iterator[Flaw]:
        path = ("port", "number")
        bind = self.bind or ""
        if bind.startswith("unix://"):
            yield from each(("bind",), [socket(bind.removeprefix("unix://"))])
            if self.port.number:
                yield Flaw(path, "a Unix socket has no port", "write 'number: 0'")
        elif not 1 <= self.port.number <= 65535:
            yield Flaw(path, f"{self.port.number} is not a port: write 1 to 65535")
        if bind and not bind.startswith("unix://") and not is_address(bind):
            yield Flaw(("bind",), f"{bind!r} is not an IP address", "write one, or 'unix:///path'")
        if not self.port.protocol or not is_known(self.port.protocol):
            yield Flaw(("port", "protocol"), f"{self.port.protocol!r} is not a protocol", HINT)
        if self.port.target_port:
            yield Flaw(("port", "targetPort"), "a gateway has no target port", "remove it")
        if not self.port.name:
            yield Flaw(("port", "name"), "the port needs a name", "as 'http'")


class GatewaySpec(Shape):
    """Ports of the gateways that bear these labels."""

    selector: dict[str, Text] | None = None
    """Labels of the proxies that open these ports."""
    servers: tuple[Server, ...] | None = None
    """Ports and what is served there."""

    def flaws(self) -> Iterator[Flaw]:
        """There is a server; ports differ in name."""
        servers = self.servers or ()
        if not servers:
            yield Flaw(("servers",), "a Gateway needs a server", "add a port and its hosts under servers")
        for number in twice(server.port.name for server in servers):
            path = ("servers", number, "port", "name")
            yield Flaw(path, f"the name {servers[number].port.name!r} is there twice", "give each its own")


class Gateway(IstioResource):
    """Ports at the edge of the mesh."""

    spec: GatewaySpec = Field(default_factory=lambda: GatewaySpec())
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A name without dots."""
        yield from super().flaws()
        if self.metadata.name and not is_label(self.metadata.name):
            yield Flaw(
                ("metadata", "name"), f"{self.metadata.name!r} has dots", "VirtualServices could not name it"
            )
