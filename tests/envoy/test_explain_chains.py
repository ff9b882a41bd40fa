"""Explain knows the filter chain of a connection: generated ones, held against a real Envoy.

Addresses of the loopback network stand for destinations and sources; each chain answers with its name.
``WEFT_SEED`` generates others.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.envoy.mesh import CERTIFICATE, TRUST, run_proxy
from tests.support.certificates import TestAuthority
from tests.support.ports import free_port
from weft import ir
from weft.analysis.explain.answer import Answer
from weft.analysis.explain.configuration import Configuration, Decoded
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.request import read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.emit.bundle import emit
from weft.names import ProxyName

SEED: Final = int(os.environ.get("WEFT_SEED", "42"))
LISTENERS: Final = 3
CHAINS: Final = 40
CONNECTIONS: Final = 60
CLOSED: Final = "closed"

# Not 0.0.0.0/0: beside chains without addresses it is chance which of them Envoy looks at.
_BLOCKS: Final = ("127.0.0.0/8", "127.1.0.0/16", "127.1.1.0/24", "127.1.1.1/32", "127.2.0.0/16")
_ADDRESSES: Final = ("127.0.0.1", "127.1.0.1", "127.1.1.1", "127.1.1.2", "127.2.0.1")
_NAMES: Final = ("a.example.com", "*.example.com", "*.a.example.com", "b.org", "*.org")
_ASKED: Final = (
    "a.example.com",
    "b.example.com",
    "x.a.example.com",
    "example.com",
    "b.org",
    "c.b.org",
    "B.ORG",
    "",
)
_PROTOCOLS: Final = ("h2", "http/1.1", "istio", "http/1.0")


@dataclass(frozen=True, slots=True)
class _Client:
    address: str
    source: str
    tls: bool
    name: str
    protocols: tuple[str, ...]
    certificate: bool


class _Maker:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def _some(self, values: tuple[str, ...], shares: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.chance.sample(values, self.chance.choice(shares)))

    def listener(self, number: int) -> ir.Listener:
        # Envoy refuses two chains that might take the same connection: here no two share a value of a list.
        chains: list[ir.FilterChain] = []
        taken: set[tuple[str, ...]] = set()
        while len(chains) < CHAINS:
            transport = self.chance.choice(("", "tls", "raw_buffer"))
            match = ir.ChainMatch(
                addresses=self._some(_BLOCKS, (0, 1)),
                server_names=self._some(_NAMES, (0, 1)),
                transport=transport,
                application_protocols=self._some(_PROTOCOLS, (0, 0, 0, 1)),
                source_addresses=self._some(_BLOCKS, (0, 0, 0, 0, 1)),
            )
            key = (
                *(match.addresses or ("",)), *(match.server_names or ("",)), transport,
                *(match.application_protocols or ("",)), *(match.source_addresses or ("",)),
            )  # fmt: skip
            if key in taken:
                continue
            taken.add(key)
            chains.append(self._chain(f"c{number}.{len(chains)}", match))
        default = self._chain(f"c{number}.default", ir.ChainMatch()) if number % 2 else None
        return ir.Listener(
            name=f"listener{number}",
            direction=ir.Direction.GATEWAY,
            address="0.0.0.0",
            port=free_port(),
            receive=ir.Receive.BOUND,
            chains=tuple(chains),
            default_chain=default,
            inspect_tls=True,
            inspect_http=number > 0,
        )

    def _chain(self, name: str, match: ir.ChainMatch) -> ir.FilterChain:
        answer = ir.Respond(status=200, body=name.encode())
        route = ir.Route(name=name, match=ir.RequestMatch(), action=answer)
        host = ir.VirtualHost(name=name, domains=("*",), routes=(route,))
        tls = None
        # TLS never reaches a chain without it: Envoy would wait for the rest of a line that never comes.
        if match.transport != "raw_buffer":
            mutual = self.chance.random() < 0.3
            tls = ir.DownstreamTls(
                certificates=(CERTIFICATE,),
                trust=TRUST if mutual else None,
                require_client_certificate=mutual,
                alpn=("http/1.1",),
            )
        handler = ir.HttpHandler(stat_prefix=name, routes=ir.RouteTable(name=name, virtual_hosts=(host,)))
        return ir.FilterChain(name=name, match=match, handler=handler, tls=tls)

    def client(self) -> _Client:
        tls = self.chance.random() < 0.7
        # The last is what the client really speaks.
        protocols = (*self._some(("istio", "h9"), (0, 0, 1)), "http/1.1")
        return _Client(
            address=self.chance.choice(_ADDRESSES),
            source=self.chance.choice(_ADDRESSES),
            tls=tls,
            name=self.chance.choice(_ASKED) if tls else "",
            protocols=protocols if tls and self.chance.random() < 0.7 else (),
            certificate=tls and self.chance.random() < 0.6,
        )


def _explained(running: Configuration, port: int, client: _Client) -> str:
    answer = Answer()
    question = read_request(
        {
            "from": {"gateway": "default/edge"},
            "address": client.address,
            "port": port,
            "tls": "none" if not client.tls else "mtls" if client.certificate else "tls",
            "sni": client.name,
            "alpn": list(client.protocols),
            "http": {"host": "127.0.0.1"},
        }
    )
    dialled = Dialled(addresses=(client.address,), port=port, source_ip=client.source)
    walk(question, dialled, Upstreams(running, lambda host: False, lambda cluster: False), Origins(), answer)
    return answer.route_name if answer.status == 200 and answer.route_name else CLOSED


def _asked(port: int, client: _Client, contexts: dict[bool, ssl.SSLContext]) -> str:
    """The chain's name, as Envoy answers; a connection that it closes is ``CLOSED``."""
    try:
        with socket.create_connection((client.address, port), 20, (client.source, 0)) as plain:
            connection: socket.socket = plain
            if client.tls:
                context = contexts[client.certificate]
                context.set_alpn_protocols(list(client.protocols))
                connection = context.wrap_socket(plain, server_hostname=client.name or None)
            connection.sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.read().decode() if answer.status == 200 else CLOSED
    except (OSError, http.client.HTTPException):
        return CLOSED


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture(scope="module")
def edge(authority: TestAuthority) -> Iterator[tuple[Configuration, tuple[int, ...]]]:
    maker = _Maker(SEED)
    listeners = tuple(maker.listener(number) for number in range(LISTENERS))
    identity = ir.ProxyIdentity(name=ProxyName("router", "127.0.0.1", "edge", "default"))
    proxy = ir.Proxy(identity=identity, listeners=listeners, routes=(), clusters=())
    running = Configuration.of_bundle(emit(proxy), lambda name: None, Decoded())
    with run_proxy("edge", listeners, authority=authority):
        yield running, tuple(listener.port for listener in listeners)


def test_explain_knows_the_chain(
    edge: tuple[Configuration, tuple[int, ...]], authority: TestAuthority, tmp_path: Path
) -> None:
    running, ports = edge
    contexts = {}
    for certificate in (True, False):
        contexts[certificate] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            pair = authority.issue("client.example.com")
            (tmp_path / "pair.pem").write_text(pair.certificate + pair.key)
            context.load_cert_chain(tmp_path / "pair.pem")
    maker = _Maker(SEED + 1)
    differences = []
    taken = set()
    for port in ports:
        for _ in range(CONNECTIONS):
            client = maker.client()
            said, done = _explained(running, port, client), _asked(port, client, contexts)
            taken.add(done)
            if said != done:
                differences.append(f"{port} {client}\n  explain: {said}\n  envoy:   {done}")
    assert not differences, f"{len(differences)} differ, as\n" + "\n".join(differences[:5])
    assert len(taken) > 10  # many chains were met
