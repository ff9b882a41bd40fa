"""Sidecar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, each, given, inside, twice, wire_name
from weft.model.connection_pool import ConnectionPoolSettings
from weft.model.hosts import fqdn, is_address, is_label, namespaced, socket
from weft.model.istio import Destination, IstioResource, IstioStatus, WorkloadSelector
from weft.model.protocols import HINT, is_http, is_known, is_tls
from weft.model.scalars import Text, UInt
from weft.model.server_tls import ServerTLSSettings


class SidecarPort(Shape):
    """A port that a sidecar listens on."""

    name: Text | None = None
    number: UInt | None = None
    protocol: Text | None = None
    target_port: UInt | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Name and protocol as they can be."""
        if self.name and not is_label(self.name):
            yield Flaw(("name",), f"{self.name!r} cannot be a port's name", "letters, digits and '-'")
        if not is_known(self.protocol):
            yield Flaw(("protocol",), f"{self.protocol!r} is not a protocol", HINT)
        if self.target_port:
            yield Flaw(("targetPort",), "a Sidecar's port has no target port", "remove it")
        if (self.number or 0) > 65535:
            yield Flaw(("number",), f"{self.number} is not a port: write 1 to 65535")


def _bound(bind: str | None) -> Iterator[Flaw]:
    if bind and not is_address(bind):
        yield Flaw(("bind",), f"{bind!r} is not an IP address")


class IstioEgressListener(Shape):
    """What the workload may call."""

    bind: Text | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    hosts: tuple[Text, ...]
    port: SidecarPort | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Hosts by namespace; a port, or a Unix socket in its place."""
        if not self.hosts:
            yield Flaw(("hosts",), "hosts are missing", "write '*/*' for all")
        for number, host in enumerate(self.hosts):
            yield from each(("hosts", number), namespaced(host, gateway=False))
        if self.port is None:
            return
        if self.port.number:
            yield from _bound(self.bind)
            return
        bind = self.bind or ""
        if not bind.startswith("unix://"):
            yield Flaw(("port", "number"), "the number is missing", "add it, or 'bind: unix:///path'")
        else:
            yield from each(("bind",), [socket(bind.removeprefix("unix://"))])
        if self.capture_mode == "IPTABLES":
            yield Flaw(("captureMode",), "connections to a Unix socket cannot be redirected", "write NONE")

    def repeated(self, namespace: str) -> Iterator[Flaw]:
        """Hosts that another entry means too."""
        seen: dict[str, set[str]] = {}
        for number, text in enumerate(self.hosts):
            place, slash, host = text.partition("/")
            if not slash or place.startswith("~"):
                continue
            known = seen.setdefault(namespace if place == "." else place, set())
            if host in known or "*" in known or (host == "*" and known):
                yield Flaw(
                    ("hosts", number), f"{text!r} is meant by another entry too", "remove it", warns=True
                )
            known.add(host)
        if "*" in seen.get("*", ()) and len(seen) > 1:
            yield Flaw(("hosts",), "'*/*' means everything", "remove the others", warns=True)


class IstioIngressListener(Shape):
    """How the workload is called."""

    bind: Text | None = None
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] | None = None
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: Text | None = None
    port: SidecarPort
    tls: ServerTLSSettings | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A port of the workload, where it leads, and TLS that a sidecar can end."""
        if not self.port.number:
            yield Flaw(("port", "number"), "the number is missing", "add it")
        yield from _bound(self.bind)
        yield from each(("defaultEndpoint",), [_endpoint(self.default_endpoint or "")])
        pool = self.connection_pool
        if pool is not None and pool.http is not None and not is_http(self.port.protocol):
            message = f"protocol {self.port.protocol} has no HTTP: only the limits for TCP hold"
            yield Flaw(("connectionPool", "http"), message, "remove them", warns=True)
        if self.tls is None:
            return
        for name in (
            "subject_alt_names",
            "https_redirect",
            "credential_name",
            "credential_names",
            "tls_certificates",
        ):
            if getattr(self.tls, name):
                yield Flaw(("tls", wire_name(self.tls, name)), "a sidecar does not know this", "remove it")
        if self.tls.mode in {"ISTIO_MUTUAL", "AUTO_PASSTHROUGH"}:
            yield Flaw(("tls", "mode"), f"{self.tls.mode} is for gateways", "write SIMPLE or MUTUAL")
        if not is_tls(self.port.protocol):
            yield Flaw(
                ("tls",), f"protocol {self.port.protocol} has no TLS", "write 'protocol: HTTPS' or TLS"
            )


def _endpoint(text: str) -> str:
    """The complaint about where a listener leads: ``127.0.0.1:80``, ``[::1]:80``, ``:80``, ``unix:///path``."""
    if not text:
        return ""
    if text.startswith("unix://"):
        return socket(text.removeprefix("unix://"))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or host not in {"", "127.0.0.1", "0.0.0.0", "::1", "::"}:
        return f"{text!r} is not of the form '127.0.0.1:8080', '0.0.0.0:8080' or 'unix:///path'"
    return (
        "" if re.fullmatch(r"\+?[0-9]{1,9}", port) and 1 <= int(port) <= 65535 else f"{port!r} is not a port"
    )


class OutboundTrafficPolicy(Shape):
    """What becomes of calls to services that the mesh does not know."""

    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """A proxy for the unknown, where the unknown may be called."""
        if self.egress_proxy is None:
            return
        if self.mode != "ALLOW_ANY":
            yield Flaw(("egressProxy",), "it is for mode ALLOW_ANY", "write 'mode: ALLOW_ANY'")
            return
        yield from each(("egressProxy", "host"), [fqdn(self.egress_proxy.host)])
        if self.egress_proxy.port is None:
            yield Flaw(("egressProxy", "port"), "the port is missing", "add port.number")


class SidecarSpec(Shape):
    """What the sidecars of some workloads receive and see."""

    egress: tuple[IstioEgressListener, ...] | None = None
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: tuple[IstioIngressListener, ...] | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Something is said; listeners differ, and the one for all ports is the last."""
        if given(self.outbound_traffic_policy, self.inbound_connection_pool) == 0 and not (
            self.egress or self.ingress
        ):
            yield Flaw((), "the Sidecar says nothing", "add egress, ingress or outboundTrafficPolicy")
        egress, ingress = self.egress or (), self.ingress or ()
        for number in twice(item.port.number or 0 for item in ingress):
            yield Flaw(("ingress", number, "port"), "another listener has this port", "give each its own")
        seen: set[object] = set()
        for number, item in enumerate(egress):
            path = ("egress", number)
            if item.port is None:
                if number < len(egress) - 1:
                    yield Flaw(path, "it means all ports, but others come after it", "make it the last")
                continue
            where = item.port.number or (item.bind or "")
            if where in seen:
                yield Flaw((*path, "port"), "another listener has this port", "give each its own")
            seen.add(where)


class Sidecar(IstioResource):
    """What the sidecars of some workloads receive and see."""

    spec: SidecarSpec = Field(default_factory=lambda: SidecarSpec())
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Entries that are there twice."""
        yield from super().flaws()
        for number, listener in enumerate(self.spec.egress or ()):
            yield from inside(("spec", "egress", number), listener.repeated(self.metadata.namespace))
