"""Which key exchange real handshakes end up with, and who is turned away when it must be post-quantum."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from tests.envoy import xds
from tests.envoy.mesh import (
    Client,
    Running,
    blackhole,
    client_listeners,
    endpoints,
    inbound,
    mesh_cluster,
    run_proxy,
    server_listener,
    spiffe,
    table,
)
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection
from tests.support.edge_backends import pem_file
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from weft import ir
from weft.compile.inbound import peer_tls
from weft.compile.settings import Settings

HYBRID = "X25519MLKEM768"
CLASSICAL = ir.TlsLimits(groups=("X25519", "P-256"))
DEMANDED = Settings(post_quantum=True)
TO = mesh_cluster("reviews")


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@contextmanager
def server(authority: TestAuthority, tls: ir.DownstreamTls) -> Iterator[Running]:
    """A workload's sidecar with this TLS."""
    with ExitStack() as stack:
        application, port = free_port(), free_port()
        stack.enter_context(serving(HttpBackend("127.0.0.1", application, "reviews")))
        made = server_listener(port, application, strict=True)
        listener = replace(made, chains=tuple(replace(chain, tls=tls) for chain in made.chains))
        clusters = (inbound(application, "reviews", ir.UpstreamProtocol.HTTP1),)
        envoy = stack.enter_context(run_proxy("reviews", (listener,), clusters=clusters, authority=authority))
        yield Running(envoy, ("127.0.0.1", port))


@contextmanager
def client(authority: TestAuthority, to: Running, limits: ir.TlsLimits) -> Iterator[Client]:
    """An application behind a sidecar that calls it."""
    assert TO.tls is not None
    route = ir.Route(
        name="all",
        match=ir.RequestMatch(),
        action=ir.Forward(destinations=(ir.Destination(cluster=TO.name),)),
    )
    port = free_port()
    with run_proxy(
        "client",
        client_listeners(port, "9080"),
        (table(route),),
        (replace(TO, tls=replace(TO.tls, limits=limits)), blackhole()),
        (endpoints(TO, to.address),),
        authority=authority,
    ) as envoy:
        yield Client(Running(envoy, ("127.0.0.1", port)))


def status(caller: Client) -> int:
    connection = caller.open()
    try:
        return connection.ask().status
    finally:
        connection.close()


def classical(authority: TestAuthority, to: Running) -> int:
    """What a caller gets that knows no post-quantum key exchange."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.pem)
    context.set_ecdh_curve("prime256v1")
    with pem_file(authority.issue(spiffe("client"))) as path:
        context.load_cert_chain(path)
    connection = Connection(to.address, tls=context, sni="reviews")
    try:
        return connection.ask().status
    finally:
        connection.close()


def group(envoy: Envoy, side: str) -> str:
    return str(envoy.requests()[-1][f"{side}_tls_group"])


def test_sidecars_prefer_it_and_take_others(authority: TestAuthority) -> None:
    with (
        server(authority, peer_tls(Settings(), http=True)) as own,
        client(authority, own, ir.TlsLimits()) as caller,
    ):
        assert status(caller) == 200
        assert (group(caller.envoy, "upstream"), group(own.envoy, "downstream")) == (HYBRID, HYBRID)
        assert classical(authority, own) == 200
        assert own.envoy.requests(2)[-1]["downstream_tls_group"] == "P-256"


def test_who_cannot_is_refused_where_it_is_demanded(authority: TestAuthority) -> None:
    limits = DEMANDED.enforced(ir.TlsLimits())
    with server(authority, peer_tls(DEMANDED, http=True)) as own:
        with client(authority, own, limits) as caller:
            assert status(caller) == 200
            assert (group(caller.envoy, "upstream"), group(own.envoy, "downstream")) == (HYBRID, HYBRID)
        with client(authority, own, CLASSICAL) as caller:
            assert status(caller) == 503
            assert "TLS_error" in caller.envoy.requests()[-1]["upstream_transport_failure_reason"]
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            classical(authority, own)
        assert len(own.envoy.requests()) == 1


async def test_configuration_and_secrets_come_by_it(tmp_path: Path) -> None:
    """Keys of gateways travel on this connection: what is recorded today must not be read later."""
    control = xds.Control(xds.Authority())
    async with control.running(), xds.envoy(control, tmp_path) as proxy:

        async def agreed() -> bool:
            try:
                _, found = await proxy.get("/stats?filter=xds-grpc.ssl")
            except (OSError, aiohttp.ClientError):
                return False  # it has not begun
            return b"curves.X25519MLKEM768: 1" in found and b"versions.TLSv1.3: 1" in found

        await xds.until(agreed)


def test_who_demands_it_calls_nobody_without(authority: TestAuthority) -> None:
    old = replace(peer_tls(Settings(), http=True), limits=CLASSICAL)
    with (
        server(authority, old) as own,
        client(authority, own, DEMANDED.enforced(ir.TlsLimits())) as caller,
    ):
        assert status(caller) == 503
        assert "TLS_error" in caller.envoy.requests()[-1]["upstream_transport_failure_reason"]
        assert classical(authority, own) == 200
