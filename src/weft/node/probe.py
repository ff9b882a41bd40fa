"""Probes as Kubernetes has them, from the node to the application directly: neither policies nor mTLS apply.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from weft.errors import UsageError
from weft.node.capture.netns import within
from weft.node.capture.nft import PROBE_MARK

_H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_H2_DATA, _H2_HEADERS, _H2_SETTINGS, _H2_GOAWAY, _H2_PING = 0, 1, 4, 7, 6
_H2_END_STREAM, _H2_END_HEADERS = 1, 4
_SERVING: Final = b"\x08\x01"
_SOON_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """Success is a status from 200 to 399. ``port`` may be a name."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """Success is an accepted connection."""

    port: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpc:
    """Success is SERVING of grpc.health.v1.Health."""

    port: int | str
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """Success is exit status 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Times are in seconds; the defaults are Kubernetes'."""

    handler: HttpGet | TcpSocket | Grpc | Execute
    initial_delay_s: float = 0
    period_s: float = 10
    timeout_s: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Probe:
        """Read a Kubernetes Probe.

        Raises:
            UsageError: not exactly one handler, or one without its port or command.
        """
        handlers = [kind for kind in ("exec", "httpGet", "tcpSocket", "grpc") if data.get(kind) is not None]
        if len(handlers) != 1:
            raise UsageError(
                "a probe has exactly one handler", hint="write one of httpGet, tcpSocket, grpc, exec"
            )
        given = data[handlers[0]]
        handler: HttpGet | TcpSocket | Grpc | Execute
        try:
            if handlers[0] == "exec":
                handler = Execute(command=tuple(str(part) for part in given["command"]))
            elif handlers[0] == "httpGet":
                handler = HttpGet(
                    port=given["port"],
                    path=given.get("path") or "/",
                    host=given.get("host") or "",
                    scheme=given.get("scheme") or "HTTP",
                    headers=tuple(
                        (header["name"], header["value"]) for header in given.get("httpHeaders") or ()
                    ),
                )
            elif handlers[0] == "tcpSocket":
                handler = TcpSocket(port=given["port"])
            else:
                handler = Grpc(port=given["port"], service=given.get("service") or "")
        except KeyError as error:
            raise UsageError(f"the probe's {handlers[0]} lacks {error.args[0]!r}") from error
        return cls(
            handler=handler,
            initial_delay_s=float(data.get("initialDelaySeconds") or 0),
            period_s=float(data.get("periodSeconds") or 10),
            timeout_s=float(data.get("timeoutSeconds") or 1),
            success_threshold=int(data.get("successThreshold") or 1),
            failure_threshold=int(data.get("failureThreshold") or 3),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an application is. ``prefix`` and ``env`` put a command where the application runs."""

    address: str = "127.0.0.1"
    ports: Mapping[str, int] = field(default_factory=dict)
    netns: Path | None = None
    prefix: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    cwd: str | None = None

    def port(self, wanted: int | str) -> int:
        """A port by number or by name.

        Raises:
            UsageError: the workload has no port of that name.
        """
        if isinstance(wanted, int) or wanted.isdigit():
            return int(wanted)
        if wanted not in self.ports:
            raise UsageError(f"the probe's port {wanted!r} is none of the workload's")
        return self.ports[wanted]


async def check(probe: Probe, target: Target) -> str:
    """Probe once; what is wrong, or the empty text."""
    try:
        async with asyncio.timeout(probe.timeout_s):
            match probe.handler:
                case HttpGet() as handler:
                    return await _http(handler, target)
                case TcpSocket(port=port):
                    _, writer = await connect(target, target.port(port))
                    writer.close()
                    return ""
                case Grpc() as handler:
                    return await _grpc(handler, target)
                case Execute(command=command):
                    return await _execute(command, target)
    except ConnectionRefusedError:
        return "connection refused"
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g} s"
    except (OSError, EOFError, ValueError) as error:
        return str(error) or type(error).__name__


async def watch(probe: Probe, target: Target, *, eager: bool = False) -> AsyncIterator[tuple[bool, str]]:
    """Yield ``(healthy, why not)`` at each crossing of a threshold, for ever.

    ``eager``: until it is healthy the first time it is asked more often than its period says, so that a
    start does not wait for one. Not for liveness: it would end what only starts slowly.
    """
    await asyncio.sleep(probe.initial_delay_s)
    began, starting = time.monotonic(), eager
    healthy: bool | None = None
    good = bad = 0
    while True:
        problem = await check(probe, target)
        good, bad = (0, bad + 1) if problem else (good + 1, 0)
        if problem and healthy is not False and bad >= probe.failure_threshold:
            healthy = False
            yield False, problem
        elif not problem and healthy is not True and good >= probe.success_threshold:
            healthy, starting = True, False
            yield True, ""
        soon = max(_SOON_S, (time.monotonic() - began) / 10)
        await asyncio.sleep(min(probe.period_s, soon) if starting else probe.period_s)


async def accepts(target: Target, port: int) -> bool:
    """Whether somebody listens."""
    try:
        _, writer = await connect(target, port)
    except OSError:
        return False
    writer.close()
    return True


async def connect(
    target: Target, port: int, *, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the application itself, past its sidecar.

    Raises:
        OSError: nobody listens there.
    """

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.setblocking(False)
        return made

    made = await asyncio.to_thread(within, target.netns, make) if target.netns else make()
    try:
        if target.netns is None and os.geteuid() == 0:
            with contextlib.suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROBE_MARK)
        await asyncio.get_running_loop().sock_connect(made, (target.address, port))
        name = "" if tls else None
        return await asyncio.open_connection(sock=made, ssl=tls, server_hostname=name)
    except BaseException:
        made.close()
        raise


def _trusting() -> ssl.SSLContext:
    """Kubernetes' probes do not verify certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(handler: HttpGet, target: Target) -> str:
    port = target.port(handler.port)
    tls = _trusting() if handler.scheme.upper() == "HTTPS" else None
    reader, writer = await connect(target, port, tls=tls)
    try:
        given = {name.lower() for name, _ in handler.headers}
        headers = [*handler.headers]
        if "host" not in given:
            headers.insert(0, ("host", handler.host or f"{target.address}:{port}"))
        if "user-agent" not in given:
            headers.append(("user-agent", "weft-probe"))
        path = handler.path if handler.path.startswith("/") else f"/{handler.path}"
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
        status = int((await reader.readline()).split()[1])
    except IndexError:
        return "the answer is no HTTP"
    finally:
        writer.close()
    return "" if 200 <= status < 400 else f"HTTP status {status}"


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack("!I", stream) + body


def _literal(name: str, value: str) -> bytes:
    """A header that no table holds (RFC 7541, 6.2.2); names and values here are below 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


async def _grpc(handler: Grpc, target: Target) -> str:
    """One unary call by hand (RFC 9113): the agent has no gRPC library, and this needs five frames."""
    reader, writer = await connect(target, target.port(handler.port))
    try:
        service = handler.service.encode()[:100]
        message = b"\x0a" + bytes([len(service)]) + service if service else b""
        headers = b"".join(
            _literal(name, value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            )
        )
        writer.write(
            _H2_PREFACE
            + _frame(_H2_SETTINGS, 0, 0)
            + _frame(_H2_HEADERS, _H2_END_HEADERS, 1, headers)
            + _frame(_H2_DATA, _H2_END_STREAM, 1, b"\0" + len(message).to_bytes(4, "big") + message)
        )
        said = b""
        while True:
            head = await reader.readexactly(9)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if kind in {_H2_SETTINGS, _H2_PING} and not flags & 1:
                writer.write(_frame(kind, 1, 0, body if kind == _H2_PING else b""))
            elif kind == _H2_GOAWAY:
                return "the server does not speak gRPC"
            elif stream == 1 and kind == _H2_DATA:
                said += body
            if stream == 1 and (said[5:] == _SERVING or flags & _H2_END_STREAM):
                return "" if said[5:7] == _SERVING else "the service is not SERVING"
    finally:
        writer.close()


async def _execute(command: Sequence[str], target: Target) -> str:
    child = await asyncio.create_subprocess_exec(
        *target.prefix,
        *command,
        env=target.env,
        cwd=target.cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = await child.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        await child.wait()
        raise
    return "" if code == 0 else f"exit status {code}"
