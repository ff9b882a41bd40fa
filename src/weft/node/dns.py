"""The DNS process of a node: ``python -m weft.node.dns DIRECTORY``. It outlives the agent, as the Envoys do.

It needs no rights: the agent opens the listening sockets, also those inside network namespaces, and hands
them over on ``dns.sock``. Names come from ``dns.json``: the agent replaces it whole, then says ``reload``.
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - else imported at the first forward, when it can no longer be read
import json
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, cast

from weft.names import CLUSTER_DOMAIN
from weft.node.resolve import Alias, Names, refuse

log = logging.getLogger(__name__)

SOCKET_NAME: Final = "dns.sock"
TABLE_NAME: Final = "dns.json"
_MESSAGE_MAX: Final = 64 * 1024
_UPSTREAM_PATIENCE_S: Final = 2.0
_TCP_IDLE_S: Final = 10.0
_FORWARDS_MAX: Final = 512
# Of one workload: others must be answered however much it asks.
_OWN_FORWARDS_MAX: Final = 128
_OWN_CONNECTIONS_MAX: Final = 64
_DNS_PORT: Final = 53


class Listener:
    """Two sockets, UDP and TCP, for the workloads of one namespace. Without ``mesh`` it only forwards."""

    def __init__(self, server: Server, name: str, namespace: str, mesh: bool) -> None:
        self.server = server
        self.name = name
        self.namespace = namespace
        self.mesh = mesh
        self._udp: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._forwards = 0
        self._connections = 0

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve on sockets that are bound already."""
        udp.setblocking(False)
        self._udp = udp
        asyncio.get_running_loop().add_reader(udp, self._receive, udp)
        self._tcp = await asyncio.start_server(self._converse, sock=tcp)

    def close(self) -> None:
        """Give both up."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def _receive(self, udp: socket.socket) -> None:
        # A burst is read whole: one wake-up of the loop per packet would halve the rate.
        for _ in range(64):
            try:
                packet, peer = udp.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            answer = None if self._alias(packet) else self._local(packet, limit=True)
            if answer is None:
                self.server.spawn(self._forward_udp(udp, packet, peer))
            else:
                with contextlib.suppress(OSError):
                    udp.sendto(answer, peer)

    def _alias(self, packet: bytes) -> Alias | None:
        return self.server.names.alias(packet, self.namespace) if self.mesh else None

    def _local(self, packet: bytes, *, limit: bool) -> bytes | None:
        return self.server.names.answer(packet, self.namespace, limit=limit) if self.mesh else None

    async def _forward_udp(self, udp: socket.socket, packet: bytes, peer: Any) -> None:
        if len(packet) < 12 or self._forwards >= _OWN_FORWARDS_MAX:
            return
        self._forwards += 1
        try:
            alias = self._alias(packet)
            answer = await self.server.forward(alias.query if alias else packet)
            if alias is not None:
                answer = alias.answer(answer)
            with contextlib.suppress(OSError):
                udp.sendto(answer, peer)
        finally:
            self._forwards -= 1

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _OWN_CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    packet = await reader.readexactly(length)
                if length < 12:
                    return
                alias = self._alias(packet)
                if alias is not None:
                    answer = alias.answer(await self.server.forward_tcp(alias.query))
                else:
                    answer = self._local(packet, limit=False) or await self.server.forward_tcp(packet)
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            self._connections -= 1
            writer.close()


class _Reply(asyncio.DatagramProtocol):
    """One query to one resolver; an answer with another id is not ours."""

    def __init__(self, query: bytes) -> None:
        self.query = query
        self.got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport does not derive from DatagramTransport.
        cast(asyncio.DatagramTransport, transport).sendto(self.query)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[:2] == self.query[:2] and not self.got.done():
            self.got.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.got.done():
            self.got.set_exception(exc)


class Server:
    """All listeners of a node, one table of names, and the host's resolvers for the rest."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names = Names()
        self.resolvers: tuple[str, ...] = ()
        self.revision = 0
        self.listeners: dict[str, Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwards = asyncio.Semaphore(_FORWARDS_MAX)

    def spawn(self, work: Any) -> None:
        """Run a forward beside; when too many run, the query is dropped and asked again by its client."""
        if len(self._tasks) >= _FORWARDS_MAX:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def load(self) -> None:
        """Read the table anew.

        Raises:
            OSError, ValueError: it cannot be read; the old one stays.
        """
        found = json.loads((self.directory / TABLE_NAME).read_bytes())
        names = Names(found.get("names", {}), found.get("domain", CLUSTER_DOMAIN))
        self.names, self.resolvers = names, tuple(found.get("resolvers", ()))
        self.revision = int(found.get("revision", 0))

    async def forward(self, packet: bytes) -> bytes:
        """Ask the host's resolvers in their order, each for two seconds; SERVFAIL when none answers."""
        loop = asyncio.get_running_loop()
        for resolver in self.resolvers:
            transport = None
            try:
                # A socket of its own: a new source port for each query is what makes forging answers hard.
                transport, reply = await loop.create_datagram_endpoint(
                    lambda: _Reply(packet), remote_addr=_address(resolver)
                )
                return await asyncio.wait_for(reply.got, _UPSTREAM_PATIENCE_S)
            except (OSError, TimeoutError):
                continue
            finally:
                if transport is not None:
                    transport.close()
        return refuse(packet)

    async def forward_tcp(self, packet: bytes) -> bytes:
        """As ``forward``, over TCP."""
        for resolver in self.resolvers:
            host, port = _address(resolver)
            writer = None
            try:
                async with asyncio.timeout(_UPSTREAM_PATIENCE_S):
                    reader, writer = await asyncio.open_connection(host, port)
                    writer.write(len(packet).to_bytes(2, "big") + packet)
                    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            except (OSError, TimeoutError, EOFError):
                continue
            finally:
                if writer is not None:
                    writer.close()
        return refuse(packet)

    async def obey(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """One order of the agent: ``reload``, ``listen`` (with two descriptors), ``close`` or ``status``."""
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        match message:
            case {"op": "reload"}:
                self.load()
            case {"op": "listen", "name": str(name), "namespace": str(namespace)} if len(sockets) == 2:
                if (old := self.listeners.pop(name, None)) is not None:
                    old.close()
                listener = Listener(self, name, namespace, bool(message.get("mesh", True)))
                await listener.start(*sockets)
                self.listeners[name] = listener
            case {"op": "close", "name": str(name)}:
                if (old := self.listeners.pop(name, None)) is not None:
                    old.close()
            case {"op": "status"}:
                pass
            case _:
                for one in sockets:
                    one.close()
                return {"error": f"cannot do {message.get('op')!r}"}
        return {
            "revision": self.revision,
            "names": len(self.names.table),
            "listeners": sorted(self.listeners),
        }


def _address(resolver: str) -> tuple[str, int]:
    """``192.0.2.53``, ``fd00::53`` or, for tests, ``127.0.0.1#5353``."""
    host, _, port = resolver.partition("#")
    return host, int(port or _DNS_PORT)


async def serve(directory: Path, control: socket.socket) -> None:
    """Obey the agents that connect to ``control`` until SIGTERM. One message is one packet (SEQPACKET)."""
    server = Server(directory)
    with contextlib.suppress(OSError, ValueError):
        server.load()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    clients: set[asyncio.Task[None]] = set()

    async def attend(client: socket.socket) -> None:
        readable = asyncio.Event()
        loop.add_reader(client, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                try:
                    data, descriptors, _, _ = socket.recv_fds(client, _MESSAGE_MAX, 2)
                except BlockingIOError:
                    continue  # woken twice for one message
                if not data:
                    return
                try:
                    reply = await server.obey(json.loads(data), descriptors)
                except (OSError, ValueError) as error:
                    reply = {"error": str(error)}
                client.send(json.dumps(reply).encode())
        except OSError:
            return
        finally:
            loop.remove_reader(client)
            client.close()

    def welcome() -> None:
        with contextlib.suppress(OSError):
            client, _ = control.accept()
            client.setblocking(False)
            task = loop.create_task(attend(client))
            clients.add(task)
            task.add_done_callback(clients.discard)

    loop.add_reader(control, welcome)
    await stop.wait()


def main() -> None:
    """Bind ``dns.sock`` in the directory given, become the directory's owner, and serve."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # four sockets for each workload of the host
    directory = Path(sys.argv[1])
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.bind(str(path))
        path.chmod(0o600)
        owner = directory.stat().st_uid
        if os.getuid() == 0 and owner != 0:
            # Only now: the interpreter and its modules may lie where nobody else can read them.
            os.setgroups([])
            os.setresgid(owner, owner, owner)
            os.setresuid(owner, owner, owner)
        control.listen(4)
        control.setblocking(False)
        asyncio.run(serve(directory, control))
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
