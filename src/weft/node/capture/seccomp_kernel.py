"""The kernel's side of seccomp capture: install a filter, hear of calls, look into the caller, answer.

Thin over seccomp(2), seccomp_unotify(2), pidfd_getfd(2) and process_vm_readv(2); no policy here.
Standard library only: the wrapper around every application imports this.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import Final, NamedTuple

from weft.node.capture import bpf

_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_WAIT_KILLABLE_RECV: Final = 32  # Linux 5.19: once heard, only a fatal signal interrupts the call
_SYS_PIDFD_GETFD: Final = 438
_PIDFD_THREAD: Final = os.O_EXCL  # Linux 6.9: a pidfd of a thread that leads no group

_NOTIF_RECV: Final = 0xC0502100
_NOTIF_SEND: Final = 0xC0182101
_NOTIF_ID_VALID: Final = 0x40082102
_NOTIF_BYTES: Final = 80
_CONTINUE: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Call(NamedTuple):
    """One call that waits for an answer. ``thread`` is the caller's thread id in our pid namespace."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def install(filter_code: bytes, machine: str) -> tuple[int, bool]:
    """Filter the calling thread and whatever it starts. This cannot be undone.

    Returns the listener's descriptor (close-on-exec) and whether a call that was heard can only be
    interrupted by a fatal signal (Linux 5.19).

    Raises:
        OSError: EBUSY when a supervisor listens already, as in a captured application.
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failed("no_new_privs")
    body = ctypes.create_string_buffer(filter_code, len(filter_code))
    code = _Program(len(filter_code) // 8, ctypes.addressof(body))
    number = bpf.MACHINES[machine].seccomp
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):
        listener = _libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(code))
        if listener >= 0:
            return listener, flags != _NEW_LISTENER
        if ctypes.get_errno() != errno.EINVAL:
            break
    raise _failed("seccomp filter")


def receive(listener: int) -> Call | None:
    """The next call that waits; None when its caller has gone meanwhile."""
    body = bytearray(_NOTIF_BYTES)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, body, True)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINTR}:
            return None
        raise
    id_, thread = struct.unpack_from("=QI", body)
    (number,) = struct.unpack_from("=i", body, 16)
    return Call(id_, thread, number, struct.unpack_from("=6Q", body, 32))


def valid(listener: int, call: Call) -> bool:
    """Whether the call still waits. Asked after looking into its thread: the id could be another's by now."""
    try:
        fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", call.id))
    except OSError:
        return False
    return True


def _send(listener: int, body: bytes) -> bool:
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, body)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def answer(listener: int, call: Call, error: int) -> bool:
    """Let the call return 0, or fail with an errno. False: its caller has gone, or was interrupted."""
    return _send(listener, struct.pack("=QqiI", call.id, 0, -error, 0))


def let_pass(listener: int, call: Call) -> bool:
    """Let the kernel do the call as it stands.

    The caller's memory may have changed since we read it: what must not happen is never decided this way.
    """
    return _send(listener, struct.pack("=QqiI", call.id, 0, 0, _CONTINUE))


def read_memory(thread: int, address: int, length: int) -> bytes:
    """Bytes of a process.

    Raises:
        OSError: EFAULT for an address it does not have, ESRCH, EPERM.
    """
    body = ctypes.create_string_buffer(length)
    local = _Vector(ctypes.addressof(body), length)
    remote = _Vector(address, length)
    got = _libc.process_vm_readv(thread, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if got < 0:
        raise _failed("read memory")
    return body.raw[:got]


def _pidfd(thread: int) -> int:
    try:
        return os.pidfd_open(thread, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    with open(f"/proc/{thread}/status") as status:  # noqa: PTH123 - pathlib costs 2 MB in every wrapper
        for line in status:
            if line.startswith("Tgid:"):
                return os.pidfd_open(int(line[5:]))
    raise ProcessLookupError(errno.ESRCH, f"thread {thread}")


def take_descriptor(thread: int, descriptor: int) -> int:
    """Our own descriptor for a file that a process has open (the same open file, not a copy).

    Raises:
        OSError: EBADF, ESRCH, EPERM.
    """
    pidfd = _pidfd(thread)
    try:
        taken = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0)
        if taken < 0:
            raise _failed("pidfd_getfd")
        return int(taken)
    finally:
        with contextlib.suppress(OSError):
            os.close(pidfd)
