"""gRPC's HTTP/2 framing on a Unix socket: enough for one small service whose every caller must be known.

The agent speaks it itself, since the gRPC library cannot say which process a call came from, and weighs more
than the agent. Form: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

log = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024
# Less than the 64 KiB that a connection may send before something of it was used: that bounds what it holds.
_MESSAGE_MAX: Final = 32 * 1024
_PREFIX: Final = 5
_FIRST_CALL_S: Final = 10.0
# Printable ASCII but "%" goes as it is (gRPC over HTTP/2, Status-Message).
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Code(IntEnum):
    """Status codes of gRPC that this service gives."""

    OK = 0
    INVALID_ARGUMENT = 3
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallError(Exception):
    """A call ends with this status."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# Metadata and the request's bytes -> the replies, one or a stream.
Method = Callable[[Mapping[str, str], bytes], AsyncIterator[bytes]]


@dataclass(slots=True)
class _Call:
    headers: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)
    unused: int = 0
    task: asyncio.Task[None] | None = None


class Connection:
    """One client: ``serve`` returns when it has gone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        methods: Mapping[str, Method],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._methods = methods
        self._calls: dict[int, _Call] = {}
        self._called = False
        self._window = asyncio.Event()
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)

    async def serve(self) -> None:
        """Answer its calls until it ends the connection, breaks the protocol, or never calls."""
        self._h2.initiate_connection()
        self._flush()
        try:
            while not self._writer.is_closing():
                # Who has called once may be silent for long: its next token is due in minutes.
                async with asyncio.timeout(None if self._called else _FIRST_CALL_S):
                    data = await self._reader.read(_READ_BYTES)
                if not data:
                    return
                try:
                    self._handle(self._h2.receive_data(data))
                except h2.exceptions.ProtocolError as error:
                    log.debug("a client of the Workload API breaks HTTP/2: %s", error)
                    self._flush()
                    return
                self._flush()
                await self._writer.drain()
        except (ConnectionError, TimeoutError):
            return
        finally:
            tasks = [call.task for call in self._calls.values() if call.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.close_connection()
            self._flush()
            self._writer.close()

    def _handle(self, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    headers = {str(name): str(value) for name, value in event.headers}
                    self._calls[event.stream_id] = _Call(headers)
                    self._called = True
                case h2.events.DataReceived():
                    call = self._calls.get(event.stream_id)
                    if call is None or call.task is not None:
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        continue
                    call.body += event.data
                    call.unused += event.flow_controlled_length
                    if len(call.body) > _MESSAGE_MAX:
                        self._start(event.stream_id, call)
                case h2.events.StreamEnded():
                    call = self._calls.get(event.stream_id)
                    if call is not None and call.task is None:
                        self._start(event.stream_id, call)
                case h2.events.StreamReset():
                    call = self._calls.pop(event.stream_id, None)
                    if call is not None:
                        self._use(event.stream_id, call)
                        if call.task is not None:
                            call.task.cancel()
                case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                    self._window.set()
                case h2.events.ConnectionTerminated():
                    self._writer.close()

    def _use(self, stream: int, call: _Call) -> None:
        """Let the client send as much again."""
        if call.unused:
            self._h2.acknowledge_received_data(call.unused, stream)
            call.unused = 0

    def _start(self, stream: int, call: _Call) -> None:
        self._use(stream, call)
        call.task = asyncio.get_running_loop().create_task(self._run(stream, call), name="workload API call")

    async def _run(self, stream: int, call: _Call) -> None:
        begun = False
        code, message = Code.OK, ""
        try:
            method, body = self._method(call.headers), _unframe(call.body)
            async for reply in method(call.headers, body):
                if not begun:
                    self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
                    begun = True
                await self._send(stream, b"\0" + len(reply).to_bytes(4, "big") + reply)
        except CallError as error:
            code, message = error.code, error.message
        except (h2.exceptions.ProtocolError, ConnectionError):
            self._calls.pop(stream, None)
            return  # the client has given the call or the connection up
        except Exception:
            log.exception("a call of the Workload API failed")
            code, message = Code.INTERNAL, "the node agent failed: see its log"
        trailers = [("grpc-status", str(int(code)))]
        if message:
            trailers.append(("grpc-message", quote(message, safe=_PLAIN)))
        if not begun:
            trailers = [(":status", "200"), ("content-type", "application/grpc"), *trailers]
        self._calls.pop(stream, None)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.send_headers(stream, trailers, end_stream=True)
            self._flush()

    def _method(self, headers: Mapping[str, str]) -> Method:
        path = headers.get(":path", "")
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith(
            "application/grpc"
        ):
            raise CallError(Code.UNIMPLEMENTED, "this is a gRPC service")
        method = self._methods.get(path)
        if method is None:
            raise CallError(Code.UNIMPLEMENTED, f"there is no method {path}")
        return method

    async def _send(self, stream: int, data: bytes) -> None:
        while data:
            # A client that does not read holds up its own call only.
            self._window.clear()
            share = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if share <= 0:
                self._flush()
                await self._window.wait()
                continue
            self._h2.send_data(stream, data[:share])
            data = data[share:]
        self._flush()
        await self._writer.drain()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(data)


def _unframe(body: bytearray) -> bytes:
    """The one message of a call whose client sends one.

    Raises:
        CallError: it is too large, compressed or cut off.
    """
    if len(body) > _MESSAGE_MAX:
        raise CallError(Code.RESOURCE_EXHAUSTED, f"a request has at most {_MESSAGE_MAX} bytes")
    if len(body) < _PREFIX or int.from_bytes(body[1:_PREFIX], "big") != len(body) - _PREFIX:
        raise CallError(Code.INVALID_ARGUMENT, "expected one whole message")
    if body[0]:
        raise CallError(Code.UNIMPLEMENTED, "compressed messages are not taken")
    return bytes(body[_PREFIX:])
