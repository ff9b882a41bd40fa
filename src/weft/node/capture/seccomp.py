"""Capture for an ordinary user: a supervisor answers the application's connects and binds.

It does them itself, on the application's own sockets (pidfd_getfd), to the sidecar instead; nothing is
written into the application's memory. One thread serves all: connects that are not done at once wait in an
epoll, so that none holds up another. When the supervisor dies, connects fail (ENOSYS): closed, not open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from weft.node.capture import bpf
from weft.node.capture import seccomp_kernel as kernel
from weft.node.capture.seccomp_policy import Address, Policy, Steer, parse, proxy_header

_CONNECT_S: Final = 10.0
_SOCKADDR_MAX: Final = 28  # struct sockaddr_in6
_IPPROTO_MPTCP: Final = 262
_TCP: Final = frozenset({0, socket.IPPROTO_TCP, _IPPROTO_MPTCP})
_UDP: Final = frozenset({0, socket.IPPROTO_UDP})
_INTERRUPTED_MAX: Final = 1024
_PLAIN, _SIX_ONLY, _DUAL = "IPv4", "IPv6 only", "dual-stack"


class _Pending:
    """A connect under way. ``header`` is sent before the application may write."""

    __slots__ = ("call", "deadline", "destination", "socket", "steer", "waits")

    def __init__(
        self, call: kernel.Call, sock: socket.socket, destination: Address, steer: Steer, waits: bool
    ) -> None:
        self.call = call
        self.socket = sock
        self.destination = destination
        self.steer = steer
        self.waits = waits
        self.deadline = time.monotonic() + _CONNECT_S


class Supervisor:
    """Answers for everything that was started under one filter. ``listener`` is taken over and closed.

    ``fileno`` becomes readable when ``step`` has work; ``ended`` is true when no filtered process is left.
    ``killable``: calls that were heard are not interrupted (``seccomp_kernel.install`` says so).
    """

    def __init__(
        self, listener: int, policy: Policy, *, killable: bool = True, say: Callable[[str], None] = print
    ) -> None:
        self.ended = False
        self._listener = listener
        self._policy = policy
        self._killable = killable
        self._say = say
        self._said: set[str] = set()
        self._connect = bpf.MACHINES[os.uname().machine].connect
        self._pending: dict[int, _Pending] = {}
        self._holders: dict[int, str] = {}
        self._interrupted: dict[int, Address] = {}
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)

    def fileno(self) -> int:
        """For the poll of a larger loop."""
        return self._epoll.fileno()

    def timeout_s(self) -> float | None:
        """When ``step`` must be called although nothing is readable."""
        if not self._pending:
            return None
        return max(0.0, min(one.deadline for one in self._pending.values()) - time.monotonic())

    def step(self) -> None:
        """Do what can be done without waiting."""
        for descriptor, events in self._epoll.poll(0):
            if descriptor != self._listener:
                self._continue(descriptor)
            elif events & select.EPOLLIN:
                self._hear()
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self.ended = True
                self._epoll.unregister(self._listener)
        now = time.monotonic()
        for one in [one for one in self._pending.values() if one.deadline <= now]:
            self._finish(one, errno.ETIMEDOUT)

    def close(self) -> None:
        """Stop answering: calls that wait fail."""
        for one in self._pending.values():
            one.socket.close()
        self._pending.clear()
        self._epoll.close()
        os.close(self._listener)

    def _hear(self) -> None:
        call = kernel.receive(self._listener)
        if call is None:
            return
        try:
            self._decide(call)
        except OSError as error:
            # Closed, not open: what we cannot look into must not go around the sidecar.
            self._tell(f"a connect or bind of process {call.thread} failed: {error.strerror or error}")
            kernel.answer(
                self._listener, call, errno.EACCES if error.errno == errno.EPERM else error.errno or 5
            )

    def _tell(self, text: str) -> None:
        if text not in self._said and len(self._said) < 100:
            self._said.add(text)
            self._say(text)

    def _decide(self, call: kernel.Call) -> None:
        descriptor, at, length = call.arguments[:3]
        length &= 0xFFFFFFFF
        try:
            raw = kernel.read_memory(call.thread, at, min(length, _SOCKADDR_MAX)) if length else b""
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raw = b""  # the kernel says EFAULT better than we could
        if (address := parse(raw)) is None:
            kernel.let_pass(self._listener, call)
            return
        try:
            taken = kernel.take_descriptor(call.thread, descriptor & 0xFFFFFFFF)
        except OSError as error:
            if error.errno in {errno.EBADF, errno.ESRCH}:
                kernel.answer(self._listener, call, errno.EBADF)
                return
            raise
        if not kernel.valid(self._listener, call):
            os.close(taken)  # the thread's id may be another process's by now: so may this file
            return
        try:
            sock = socket.socket(fileno=taken)
        except OSError:
            os.close(taken)
            kernel.let_pass(self._listener, call)  # no socket: the kernel says ENOTSOCK
            return
        internet = sock.family in {socket.AF_INET, socket.AF_INET6}
        if internet and sock.type == socket.SOCK_DGRAM and call.number != self._connect:
            with sock:
                self._do_bind_datagrams(call, sock, address)
        elif not internet or sock.type != socket.SOCK_STREAM or sock.proto not in _TCP:
            sock.close()
            kernel.let_pass(self._listener, call)
        elif call.number == self._connect:
            self._do_connect(call, sock, address)
        else:
            with sock:
                self._do_bind(call, sock, address)

    def _do_bind(self, call: kernel.Call, sock: socket.socket, address: Address) -> None:
        to = self._policy.bind(address)
        if to is None:
            kernel.let_pass(self._listener, call)
            return
        kind = _kind(sock)
        if {kind, self._holders.get(address.port)} == {_PLAIN, _SIX_ONLY} and not _free(to):
            # The second of a pair for [::] and 0.0.0.0. The first has both now, so this one gets a place
            # where nobody calls; the application serves both alike. It must not try: with SO_REUSEADDR two
            # may bind, and the second fails when it listens.
            error = _bind(sock, kind, (to[0], 0))
        else:
            error = _bind(sock, kind, to)
            if error == 0:
                self._holders[address.port] = kind
        if error == 0:
            self._policy.bound(address.port)
        kernel.answer(self._listener, call, error)

    def _do_bind_datagrams(self, call: kernel.Call, sock: socket.socket, address: Address) -> None:
        to, kind = self._policy.bind_datagrams(address), _kind(sock)
        if to is None or kind == _SIX_ONLY or sock.proto not in _UDP:
            kernel.let_pass(self._listener, call)
        else:
            kernel.answer(self._listener, call, _bind(sock, kind, to))

    def _do_connect(self, call: kernel.Call, sock: socket.socket, address: Address) -> None:
        way = self._policy.connect(address)
        if not isinstance(way, Steer):
            sock.close()
            if way is None:
                kernel.let_pass(self._listener, call)
            else:
                kernel.answer(self._listener, call, way)
            return
        flags = fcntl.fcntl(sock, fcntl.F_GETFL)
        one = _Pending(call, sock, address, way, not flags & os.O_NONBLOCK)
        # The open file is shared with the application, whose thread waits in this very call.
        if one.waits:
            fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_NONBLOCK)
            one.deadline = min(one.deadline, time.monotonic() + _send_timeout_s(sock))
        try:
            error = _connect(sock, way.to)
        finally:
            if one.waits:
                fcntl.fcntl(sock, fcntl.F_SETFL, flags)
        if error == errno.EISCONN and self._interrupted.get(_inode(sock)) == address:
            del self._interrupted[_inode(sock)]
            self._reply(one, 0)
        elif error not in {0, errno.EINPROGRESS}:
            self._reply(one, error)
        elif error == 0 or _writable(sock):
            self._complete(one)
        else:
            self._pending[sock.fileno()] = one
            self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _continue(self, descriptor: int) -> None:
        one = self._pending.get(descriptor)
        if one is not None:
            self._forget(one)
            self._complete(one)

    def _complete(self, one: _Pending) -> None:
        sock = one.socket
        # Once more: the kernel says how it went and notes that the connect is over, so that a second one by
        # the application is told EISCONN and does not come here as a new one.
        flags = fcntl.fcntl(sock, fcntl.F_GETFL)
        fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        error = _connect(sock, one.steer.to)
        fcntl.fcntl(sock, fcntl.F_SETFL, flags)
        error = 0 if error == errno.EISCONN else error
        if not error and one.steer.announce:
            source = sock.getsockname()
            header = proxy_header((source[0].removeprefix("::ffff:"), source[1]), one.destination)
            try:
                if sock.send(header, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) != len(header):
                    error = errno.ECONNABORTED
            except OSError as failed:
                error = failed.errno or errno.EIO
        self._finish(one, error)

    def _finish(self, one: _Pending, error: int) -> None:
        self._forget(one)
        if error:
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_RDWR)
        if error == 0 and not one.waits:
            error = errno.EINPROGRESS  # what a program that does not wait is always told
        self._reply(one, error)

    def _reply(self, one: _Pending, error: int) -> None:
        with one.socket:
            heard = kernel.answer(self._listener, one.call, error)
            if not heard and not self._killable and error in {0, errno.EINPROGRESS}:
                # A signal came between: the program calls again, for a socket that is connected already.
                if len(self._interrupted) >= _INTERRUPTED_MAX:
                    self._interrupted.pop(next(iter(self._interrupted)))
                self._interrupted[_inode(one.socket)] = one.destination

    def _forget(self, one: _Pending) -> None:
        if self._pending.pop(one.socket.fileno(), None) is not None:
            self._epoll.unregister(one.socket.fileno())


def _kind(sock: socket.socket) -> str:
    if sock.family == socket.AF_INET:
        return _PLAIN
    return _SIX_ONLY if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else _DUAL


def _inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def _writable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _mapped(sock: socket.socket, to: tuple[str, int]) -> tuple[str, int]:
    """An IPv4 address as this socket takes it; an IPv6 one is opened for both families first."""
    if sock.family == socket.AF_INET:
        return to
    if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return f"::ffff:{to[0]}", to[1]


def _connect(sock: socket.socket, to: tuple[str, int]) -> int:
    try:
        return sock.connect_ex(_mapped(sock, to))
    except OSError as error:
        return error.errno or errno.EIO


def _bind(sock: socket.socket, kind: str, to: tuple[str, int]) -> int:
    try:
        sock.bind(_mapped(sock, to) if kind != _PLAIN else to)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _free(at: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return _bind(probe, _PLAIN, at) == 0


def _send_timeout_s(sock: socket.socket) -> float:
    """SO_SNDTIMEO also bounds connect (socket(7)); 0 means without end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
    seconds, micros = struct.unpack("=qq", raw)
    return seconds + micros / 1e6 or _CONNECT_S
