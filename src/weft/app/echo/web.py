"""HTTP for the test backend: 1.1, 2 (also in clear text), gRPC and WebSocket on one port.

The protocols are sans-I/O libraries (h11, h2, websockets); this is asyncio around them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from typing import Any, Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h11
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from weft.app.echo import rpc
from weft.app.echo.answer import Asked, Echo, Headers, Reply

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_READ: Final = 1 << 16
_BODY_MAX: Final = 1 << 20
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_GRPC: Final = "application/grpc"


def tls_facts(connection: ssl.SSLObject | None, server_name: str) -> dict[str, Any] | None:
    """What the backend says of its TLS."""
    if connection is None:
        return None
    cipher = connection.cipher()
    found: dict[str, Any] = {
        "version": connection.version() or "",
        "serverName": server_name,
        "negotiatedProtocol": connection.selected_alpn_protocol() or "",
        "cipherSuite": cipher[0] if cipher else "",
    }
    if leaf := connection.getpeercert(binary_form=True):
        found["peerCertificates"] = [ssl.DER_cert_to_PEM_cert(leaf)]
    return found


class Conversation:
    """One connection, to its end."""

    def __init__(self, echo: Echo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._echo = echo
        self._reader = reader
        self._writer = writer
        self._port = int(writer.get_extra_info("sockname")[1])
        connection = writer.get_extra_info("ssl_object")
        self._tls = tls_facts(connection, getattr(connection, "weft_server_name", "") or "")

    async def hold(self) -> None:
        """Find out which protocol it is, and speak it."""
        begun = b""
        while len(begun) < len(_PREFACE) and _PREFACE.startswith(begun):
            part = await self._reader.read(_READ)
            if not part:
                return
            begun += part
        if begun.startswith(_PREFACE):
            await self._second(begun)
        else:
            await self._first(begun)

    async def _first(self, begun: bytes) -> None:
        protocol = h11.Connection(h11.SERVER)
        protocol.receive_data(begun)
        while True:
            try:
                request = await self._event(protocol)
                if not isinstance(request, h11.Request):
                    return
                asked = self._asked(request)
                names = {name.lower(): value for name, value in asked.headers}
                if names.get("upgrade", "").lower() == "websocket" and "sec-websocket-key" in names:
                    await self._websocket(names["sec-websocket-key"], protocol.trailing_data[0])
                    return
                while not isinstance(await self._event(protocol), h11.EndOfMessage):
                    pass
            except h11.RemoteProtocolError as error:
                if protocol.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    refusal = Reply(status=error.error_status_hint, headers=[], body=b"")
                    self._writer.write(_sent(protocol, refusal))
                return
            reply = self._echo.reply(asked)
            await asyncio.sleep(reply.delay.total_seconds())
            if reply.broken:
                self._writer.transport.abort()
                return
            self._writer.write(_sent(protocol, reply, head=asked.method == "HEAD"))
            await self._writer.drain()
            if protocol.our_state is h11.MUST_CLOSE:
                return
            protocol.start_next_cycle()

    async def _event(self, protocol: h11.Connection) -> Any:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            if protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(protocol.send(go_on) or b"")
            protocol.receive_data(await self._reader.read(_READ))
        return event

    def _asked(self, request: h11.Request) -> Asked:
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
        host = next((value for name, value in headers if name.lower() == "host"), "")
        return Asked(
            method=request.method.decode(),
            target=request.target.decode("latin-1"),
            host=host,
            proto=f"HTTP/{request.http_version.decode()}",
            headers=headers,
            port=self._port,
            tls=self._tls,
        )

    async def _websocket(self, key: str, begun: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _WEBSOCKET_GUID).digest())  # noqa: S324 - RFC
        self._writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n\r\n"
        )
        protocol = ServerProtocol(state=State.OPEN, max_size=_BODY_MAX)
        data = begun
        while True:
            protocol.receive_data(data)
            for frame in protocol.events_received():
                if not isinstance(frame, Frame):
                    continue
                if frame.opcode is Opcode.TEXT:
                    protocol.send_text(bytes(frame.data), frame.fin)
                elif frame.opcode is Opcode.BINARY:
                    protocol.send_binary(bytes(frame.data), frame.fin)
                elif frame.opcode is Opcode.CONT:
                    protocol.send_continuation(bytes(frame.data), frame.fin)
            for part in protocol.data_to_send():
                if part:
                    self._writer.write(part)
            await self._writer.drain()
            if protocol.close_expected() or not (data := await self._reader.read(_READ)):
                return

    async def _second(self, begun: bytes) -> None:
        """HTTP/2. Each request is answered in a task of its own: one that waits holds up no other."""
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        protocol = h2.connection.H2Connection(config=config)
        protocol.initiate_connection()
        self._writer.write(protocol.data_to_send())
        streams: dict[int, tuple[Headers, bytearray]] = {}
        room = asyncio.Event()
        async with asyncio.TaskGroup() as answers:
            data = begun
            while data:
                try:
                    events = protocol.receive_data(data)
                except h2.exceptions.ProtocolError:
                    self._writer.write(protocol.data_to_send())
                    break
                for event in events:
                    if isinstance(event, h2.events.RequestReceived):
                        streams[event.stream_id] = (list(event.headers), bytearray())  # type: ignore[arg-type]
                    elif isinstance(event, h2.events.DataReceived):
                        if (stream := streams.get(event.stream_id)) is not None:
                            stream[1].extend(event.data)
                        protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        if stream is not None and len(stream[1]) > _BODY_MAX:
                            del streams[event.stream_id]
                            protocol.reset_stream(event.stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    elif isinstance(event, h2.events.StreamEnded):
                        if (stream := streams.pop(event.stream_id, None)) is not None:
                            answers.create_task(self._answer(protocol, event.stream_id, *stream, room))
                    elif isinstance(event, h2.events.StreamReset):
                        streams.pop(event.stream_id, None)
                self._writer.write(protocol.data_to_send())
                room.set()
                await self._writer.drain()
                data = await self._reader.read(_READ)
            protocol.close_connection()
            room.set()

    async def _answer(
        self,
        protocol: h2.connection.H2Connection,
        stream: int,
        headers: Headers,
        body: bytearray,
        room: asyncio.Event,
    ) -> None:
        given = dict(headers)
        plain = [(name, value) for name, value in headers if not name.startswith(":")]
        asked = Asked(
            method=given.get(":method", ""),
            target=given.get(":path", ""),
            host=given.get(":authority", given.get("host", "")),
            proto="HTTP/2.0",
            headers=plain,
            port=self._port,
            tls=self._tls,
        )
        reply = self._echo.reply(asked)
        await asyncio.sleep(reply.delay.total_seconds())
        grpc = given.get("content-type", "").startswith(_GRPC)
        try:
            if reply.broken:
                protocol.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
                self._writer.write(protocol.data_to_send())
                return
            if grpc:
                code, message, data = rpc.answer(self._echo, asked, bytes(body))
                sent = [(":status", "200"), ("content-type", _GRPC)]
            else:
                sent = [(":status", str(reply.status)), ("content-length", str(len(reply.body)))]
                sent += [(name.lower(), value) for name, value in reply.headers]
                data = b"" if asked.method == "HEAD" else reply.body
            protocol.send_headers(stream, sent, end_stream=not data and not grpc)
            await self._send(protocol, stream, data, room, end=not grpc)
            if grpc:
                trailers = [("grpc-status", str(code)), ("grpc-message", message)]
                protocol.send_headers(stream, trailers, end_stream=True)
            self._writer.write(protocol.data_to_send())
        except (h2.exceptions.ProtocolError, KeyError):
            return  # the client has gone, or does not want this answer any more

    async def _send(
        self,
        protocol: h2.connection.H2Connection,
        stream: int,
        body: bytes,
        room: asyncio.Event,
        *,
        end: bool,
    ) -> None:
        while body:
            size = min(protocol.local_flow_control_window(stream), protocol.max_outbound_frame_size)
            if size <= 0:
                room.clear()
                self._writer.write(protocol.data_to_send())
                await room.wait()
                continue
            part, body = body[:size], body[size:]
            protocol.send_data(stream, part, end_stream=end and not body)


def _sent(protocol: h11.Connection, reply: Reply, *, head: bool = False) -> bytes:
    headers = [*reply.headers, ("content-length", str(len(reply.body)))]
    parts = [protocol.send(h11.Response(status_code=reply.status, headers=headers))]
    if reply.body and not head:
        parts.append(protocol.send(h11.Data(data=reply.body)))
    parts.append(protocol.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
