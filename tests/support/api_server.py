"""Store and API in a process of its own, as the control plane serves them, without the rest of a mesh.

``python -m tests.support.api_server DIRECTORY`` serves until SIGTERM. In DIRECTORY it leaves ``api.sock``,
``kubeconfig`` and the store; ``READY`` is printed once it answers.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from starlette.requests import HTTPConnection

from weft.control.api.app import any_of, create_app, same_user
from weft.control.api.builtin import VIEWERS
from weft.control.api.kubeconfig import kubeconfig, write_kubeconfig
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.api.subject import AUTHENTICATED, MASTERS, Subject, client_certificate
from weft.control.sources import follow
from weft.store.sqlite import SqliteStore

READY = "READY"


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: bytes
    key: bytes


class TestAuthority:
    """A root that signs for tests only."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.root = self._certificate.public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def issue(self, name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(certificate, plain)


async def by_certificate(connection: HTTPConnection) -> Subject | None:
    der = client_certificate(connection)
    if der is None:
        return None
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value)
    return Subject(name=name, groups=(VIEWERS if name == "reader" else MASTERS, AUTHENTICATED))


async def serve(directory: Path, config: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    authority = TestAuthority()
    mine = authority.issue("localhost")
    (directory / "ca.pem").write_bytes(authority.root)
    for name in ("server", "admin", "reader"):
        pair = mine if name == "server" else authority.issue(name)
        (directory / f"{name}.pem").write_bytes(pair.certificate)
        (directory / f"{name}.key").write_bytes(pair.key)

    def tls() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        context.load_verify_locations(directory / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(directory / "store"))
        objects = Objects(store)
        await objects.start()
        who = any_of(same_user(os.getuid()), by_certificate)
        app = create_app(objects, authenticate=who, stop=stop)
        door = serve_api(
            app,
            host="127.0.0.1",
            port=0,
            ssl_context_factory=tls,
            socket_path=directory / "api.sock",
            stop=stop,
        )
        serving = await stack.enter_async_context(door)
        for name in ("admin", "reader"):
            text = kubeconfig(
                server=f"https://127.0.0.1:{serving.port}",
                ca=authority.root,
                certificate=(directory / f"{name}.pem").read_bytes(),
                key=(directory / f"{name}.key").read_bytes(),
            )
            write_kubeconfig(directory / ("kubeconfig" if name == "admin" else f"kubeconfig.{name}"), text)
        (directory / "url").write_text(f"https://127.0.0.1:{serving.port}")
        print(READY, flush=True)
        if config is None:
            await stop.wait()
        else:
            await follow(objects, config, stop=stop)


@contextmanager
def api_server(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The server as a process; ended on the way out."""
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(root)])}
    with (directory / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.api_server", str(directory), *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ,
            cwd=root,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip() == READY, (directory / "server.log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
