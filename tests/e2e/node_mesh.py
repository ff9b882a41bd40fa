"""A control plane in miniature for tests of the node: real certificates, real xDS, nothing compiled.

Every sidecar gets the same two listeners: inbound demands mTLS and delivers to where the connection wanted to
go; outbound takes connections to a service's virtual address to its instances over mTLS, all others through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.certificates import TestAuthority

from weft import ir
from weft.emit.bundle import emit
from weft.identity.trust import Trust
from weft.names import (
    CLUSTER_DOMAIN,
    INBOUND_SOURCE,
    WORKLOAD_CERTIFICATE,
    WORKLOAD_TRUST_BUNDLE,
    ProxyName,
    service_host,
)
from weft.node.inquiry import Ask
from weft.node.keys import Credential, Signed, write_secrets
from weft.node.link import Endpoint, Instance
from weft.start import ProxyStart
from weft.xds.connection import Connection, Node
from weft.xds.messages import Acknowledged, Refused
from weft.xds.server import Certificates, serve
from weft.xds.shared import Response
from weft.xds.store import ConfigStore

OWN = ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_CERTIFICATE)
TRUST = ir.SecretRef(source=ir.SecretFrom.FILE, name=WORKLOAD_TRUST_BUNDLE)


class _Silent:
    def connected(self, connection: Connection) -> None: ...
    def sent(self, connection: Connection, response: Response) -> None: ...
    def acknowledged(self, connection: Connection, event: Acknowledged) -> None: ...
    def refused(self, connection: Connection, event: Refused) -> None:
        raise AssertionError(f"a proxy refused: {event}")

    def progressed(self, connection: Connection) -> None: ...
    def disconnected(self, connection: Connection) -> None: ...


class MiniMesh:
    """Both the link of a node and what stands at its other end."""

    def __init__(self, host: str) -> None:
        self.authority = TestAuthority()
        self.store = ConfigStore()
        self.host = host
        self.port = 0
        self.instances: dict[str, Instance] = {}
        self.ready: dict[str, bool] = {}
        self.events: list[tuple[str, str]] = []
        self.vips: dict[str, str] = {}
        self._expiry: dict[Path, datetime] = {}
        self._calls: list[Callable[[Mapping[str, tuple[str, ...]]], None]] = []
        self._revision = 0

    connected = True
    domain = CLUSTER_DOMAIN

    @property
    def xds(self) -> Endpoint:
        return Endpoint(host=self.host, port=self.port, names=("weft.test",))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MiniMesh]:
        pair = self.authority.issue("weft.test")
        server = Certificates(pair.certificate.encode(), pair.key.encode(), self.authority.pem.encode())
        async with serve(
            f"0.0.0.0:{self.port}", lambda: server, self.store, _Silent(), self._authorize, grace=0.2
        ) as self.port:
            yield self

    @staticmethod
    def _authorize(node: Node, spiffe: str | None) -> ir.ProxyIdentity:
        identity = ir.ProxyIdentity(
            name=ProxyName.parse(node.id), service_account=str(node.metadata["SERVICE_ACCOUNT"])
        )
        assert str(identity.spiffe) == spiffe
        return identity

    def on_names(self, call: Callable[[Mapping[str, tuple[str, ...]]], None]) -> None:
        self._calls.append(call)

    def on_admin(self, ask: Ask) -> None:
        pass

    async def certify(
        self, namespace: str, service_account: str, directory: Path, owner: int | None, workload: str = ""
    ) -> datetime:
        self.events.append(("certify", directory.name))
        pair = self.authority.issue(f"spiffe://{CLUSTER_DOMAIN}/ns/{namespace}/sa/{service_account}")
        credential = Credential.of(pair.key, Signed(pair.certificate, Trust(pem=self.authority.pem)))
        write_secrets(directory, credential, owner=owner)
        self._expiry[directory] = credential.not_after
        return credential.not_after

    async def forget(self, directory: Path) -> None:
        self._expiry.pop(directory, None)

    def expiry(self, directory: Path) -> datetime | None:
        return self._expiry.get(directory)

    async def register(self, instance: Instance) -> ProxyStart:
        self.events.append(("register", instance["id"]))
        self.instances[instance["id"]] = instance
        self.publish()
        return ProxyStart()

    async def update(self, instance_id: str, *, ready: bool, message: str = "") -> None:
        self.events.append(("ready" if ready else "unready", instance_id))
        self.ready[instance_id] = ready
        self.publish()

    async def deregister(self, instance_id: str, *, patience_s: float) -> bool:
        if self.instances.pop(instance_id, None) is not None:
            self.events.append(("deregister", instance_id))
            self.ready.pop(instance_id, None)
            self.publish()
        return True

    def publish(self) -> None:
        """Give every proxy what follows from who is there now."""
        self._revision += 1
        for instance in self.instances.values():
            if (service := instance["service"]) is not None:
                host = service_host(service, instance["namespace"])
                self.vips.setdefault(host, f"240.240.7.{len(self.vips) + 1}")
        for instance in self.instances.values():
            proxy = self._proxy(instance)
            self.store.publish(str(proxy.identity.name), emit(proxy), self._revision)
        for call in self._calls:
            call({host: (address,) for host, address in self.vips.items()})

    def _proxy(self, instance: Instance) -> ir.Proxy:
        where: dict[str, Any] = instance["attachment"]
        name = ProxyName("sidecar", instance["address"], instance["name"], instance["namespace"])
        clusters = [
            ir.Cluster(
                name="PassthroughCluster",
                discovery=ir.Discovery.ORIGINAL_DST,
                protocol=ir.UpstreamProtocol.TCP,
                balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
            ),
            ir.Cluster(
                name="InboundPassthroughCluster",
                discovery=ir.Discovery.ORIGINAL_DST,
                protocol=ir.UpstreamProtocol.TCP,
                balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
                source_address=INBOUND_SOURCE,
            ),
        ]
        chains = []
        for host, vip in self.vips.items():
            clusters.append(
                ir.Cluster(
                    name=host,
                    discovery=ir.Discovery.STATIC,
                    protocol=ir.UpstreamProtocol.TCP,
                    endpoints=self._endpoints(host),
                    tls=ir.UpstreamTls(certificate=OWN, trust=TRUST, sni=host),
                    mutual=ir.MutualTls.ALWAYS,
                )
            )
            chains.append(
                ir.FilterChain(
                    name=host,
                    match=ir.ChainMatch(addresses=(f"{vip}/32",)),
                    handler=_to(f"outbound_{host}", host),
                )
            )
        outbound = ir.Listener(
            name="virtualOutbound",
            direction=ir.Direction.OUTBOUND,
            address=where["outboundAddress"],
            port=where["outboundPort"],
            receive=ir.Receive.REDIRECTED,
            chains=tuple(chains),
            default_chain=ir.FilterChain(
                name="through", match=ir.ChainMatch(), handler=_to("outbound_through", "PassthroughCluster")
            ),
        )
        inbound = ir.Listener(
            name="virtualInbound",
            direction=ir.Direction.INBOUND,
            address=where["inboundAddress"],
            port=where["inboundPort"],
            receive=ir.Receive.REDIRECTED,
            chains=(),
            default_chain=ir.FilterChain(
                name="in",
                match=ir.ChainMatch(),
                handler=_to("inbound", "InboundPassthroughCluster"),
                tls=ir.DownstreamTls(certificates=(OWN,), trust=TRUST, require_client_certificate=True),
            ),
        )
        identity = ir.ProxyIdentity(name=name, service_account=instance["serviceAccount"])
        return ir.Proxy(identity=identity, listeners=(outbound, inbound), routes=(), clusters=tuple(clusters))

    def _endpoints(self, host: str) -> tuple[ir.Endpoint, ...]:
        return tuple(
            ir.Endpoint(address=other["address"], port=min(other["ports"].values()), mesh_tls=True)
            for other in self.instances.values()
            if other["service"] is not None
            and service_host(other["service"], other["namespace"]) == host
            and self.ready.get(other["id"])
        )


def _to(prefix: str, cluster: str) -> ir.TcpHandler:
    return ir.TcpHandler(stat_prefix=prefix, destinations=(ir.Destination(cluster=cluster),))


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait for what happens in this process or beside it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it may happen in another process
            await asyncio.sleep(0.01)


__all__ = ["MiniMesh", "until"]
