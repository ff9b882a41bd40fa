"""The listeners of the test backend."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from weft.app.echo.answer import Echo
from weft.app.echo.web import Conversation
from weft.errors import WeftError

_READ: Final = 1 << 16
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What to listen on; 0 takes a free port. ``http`` also speaks HTTP/2, gRPC and WebSocket, as ``tls``."""

    host: str | None = None
    http: tuple[int, ...] = ()
    tls: tuple[int, ...] = ()
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()


class _Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own one is no DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(data, addr)


async def _mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()


def tls_context(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """TLS with a certificate of files, or one of its own for ``localhost`` made now.

    With ``client_ca`` a client certificate is checked if there is one; none is needed.

    Raises:
        WeftError: a file cannot be read, or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = _note_name
    try:
        if certificate is None:
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / "pair.pem"
                file.touch(mode=0o600)
                file.write_bytes(_self_signed())
                context.load_cert_chain(file)
        else:
            context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except OSError as error:
        raise WeftError(
            f"the TLS files cannot be used: {error}", hint="give a certificate and its key in PEM"
        ) from error
    return context


def _note_name(connection: Any, name: str | None, _context: ssl.SSLContext) -> None:
    connection.weft_server_name = name


def _self_signed() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weft echo")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(pem)


def _attended(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    open_now: set[asyncio.Task[Any]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            await talk(reader, writer)
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer has gone, or we go
        finally:
            open_now.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    return attend


@contextlib.asynccontextmanager
async def serving(
    echo: Echo, ports: Ports, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[dict[str, list[int]]]:
    """Listen while the context lasts; yields the ports by kind (``http``, ``tls``, ``tcp``, ``udp``).

    Raises:
        WeftError: a port is in use or not permitted.
    """

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Conversation(echo, reader, writer).hold()

    open_now: set[asyncio.Task[Any]] = set()
    bound: dict[str, list[int]] = {"http": [], "tls": [], "tcp": [], "udp": []}
    rows = [("http", port, web, None) for port in ports.http]
    rows += [("tls", port, web, tls) for port in ports.tls]  # type: ignore[misc]
    rows += [("tcp", port, _mirror, None) for port in ports.tcp]
    async with contextlib.AsyncExitStack() as stack:
        try:
            for kind, port, talk, context in rows:
                server = await asyncio.start_server(
                    _attended(talk, open_now), ports.host, port, ssl=context, backlog=_BACKLOG
                )
                stack.callback(server.close)
                bound[kind].append(server.sockets[0].getsockname()[1])
            loop = asyncio.get_running_loop()
            for port in ports.udp:
                at = (ports.host or "0.0.0.0", port)
                transport, _ = await loop.create_datagram_endpoint(_Datagrams, local_addr=at)
                stack.callback(transport.close)
                bound["udp"].append(transport.get_extra_info("sockname")[1])
        except OSError as error:
            raise WeftError(
                f"cannot listen: {error.strerror or error}", hint="choose another port; see ss -ltnup"
            ) from error
        try:
            yield bound
        finally:
            for task in open_now:
                task.cancel()
