"""The way to a collector: a Unix socket that leads to one of its endpoints, with TLS where that is wanted.

So that gRPC and HTTP go the same way, and by the rules of the mesh: who the other side must be is said by
names that gRPC's own TLS knows nothing of (SPIFFE), and of several endpoints another one is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from weft.grpc_tls import Certificates
from weft.telemetry.push.plan import MESH, SYSTEM, Collector, Endpoint, Tls

_CHUNK: Final = 64 * 1024
_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3,
}  # fmt: skip


class Bridge:
    """``error``: why the last connection could not be made; empty when it could."""

    def __init__(self, collector: Collector, certificates: Callable[[], Certificates]) -> None:
        self.error = ""
        self._collector = collector
        self._certificates = certificates
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first endpoint that takes one, from where the last one was left.

        Raises:
            OSError: none does.
        """
        endpoints = self._collector.endpoints
        failures: list[str] = []
        for step in range(len(endpoints)):
            endpoint = endpoints[(self._turn + step) % len(endpoints)]
            try:
                async with asyncio.timeout(self._collector.connect_s):
                    made = await self._connect(endpoint)
            except TimeoutError:
                failures.append(f"{_shown(endpoint)} does not answer")
            except (
                OSError,
                ValueError,
            ) as error:
                failures.append(f"{_shown(endpoint)}: {_said(error)}")
            else:
                self._turn = (self._turn + step) % len(endpoints)
                return made
        self._turn += 1
        raise OSError("; ".join(failures[:3]) or "it has no endpoints")

    async def _connect(self, endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = self._collector.tls if endpoint.secured else None
        more: dict[str, Any] = {}
        if tls is not None:
            own = self._certificates() if MESH in {tls.roots, tls.certificate} else None
            more = {"ssl": context_of(tls, own), "server_hostname": tls.sni or self._collector.host}
        if endpoint.address.startswith("unix:"):
            return await asyncio.open_unix_connection(endpoint.address.removeprefix("unix://"), **more)
        reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port, **more)
        if tls is not None and tls.roots and tls.names:
            certificate = writer.get_extra_info("ssl_object").getpeercert() or {}
            names = [str(name) for _, name in certificate.get("subjectAltName", ())]
            if not is_named(names, tls.names):
                writer.close()
                raise OSError(f"its certificate is for {', '.join(names) or 'nobody'}")
        return reader, writer

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either end is done."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            back, far = await self._open()
            self.error = ""
            ways = (asyncio.create_task(_pump(reader, far)), asyncio.create_task(_pump(back, writer)))
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError as error:
            self.error = str(error)
        except asyncio.CancelledError:
            pass  # the bridge is taken down
        finally:
            self._tasks.discard(task)
            for end in (writer, far):
                if end is not None:
                    end.close()

    def end(self) -> None:
        """End what stands."""
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def bridged(
    path: Path, collector: Collector, certificates: Callable[[], Certificates]
) -> AsyncIterator[Bridge]:
    """A socket at ``path`` (0600: whoever reaches it, speaks with our certificate) while the block runs."""
    bridge = Bridge(collector, certificates)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(bridge.carry, str(path), limit=_CHUNK)
    finally:
        os.umask(before)
    try:
        yield bridge
    finally:
        server.close()
        bridge.end()
        path.unlink(missing_ok=True)


def context_of(tls: Tls, own: Certificates | None) -> ssl.SSLContext:
    """The TLS of a client. ``own``: this process' certificate and the mesh's authorities, if they are meant.

    Raises:
        ssl.SSLError, ValueError: what is said cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = bool(tls.roots) and not tls.names
    context.verify_mode = ssl.CERT_REQUIRED if tls.roots else ssl.CERT_NONE
    context.minimum_version = _VERSIONS[tls.minimum]
    if tls.maximum:
        context.maximum_version = _VERSIONS[tls.maximum]
    if tls.roots == SYSTEM:
        context.load_default_certs()
    elif tls.roots:
        mesh = own.roots.decode() if own is not None else ""
        context.load_verify_locations(cadata=mesh if tls.roots == MESH else tls.roots)
    if tls.certificate == MESH:
        assert own is not None
        _show(context, own.chain, own.key)
    elif tls.certificate:
        _show(context, tls.certificate.encode(), tls.key.encode())
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


def _show(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    # OpenSSL's Python binding reads keys from files only; this one is in memory.
    descriptor = os.memfd_create("weft-client-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key + b"\n" + chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def is_named(names: Iterable[str], wanted: Iterable[tuple[str, str]]) -> bool:
    """Whether a certificate's names have one that is wanted; ``*.`` in them stands for one label."""
    held = list(names)
    return any(
        name.startswith(text)
        if test == "prefix"
        else name == text or (name.startswith("*.") and "." in text and text.split(".", 1)[1] == name[2:])
        for test, text in wanted
        for name in held
    )


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


def _shown(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}" if endpoint.port else endpoint.address


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
