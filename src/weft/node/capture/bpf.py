"""The seccomp filter of a captured application, as classic BPF.

It asks the supervisor about ``connect`` and ``bind`` and closes the ways around them: TCP Fast Open by
``sendto``/``sendmsg`` (answered "not supported", so that programs connect instead), ``io_uring`` (answered
"no such call", as container runtimes do) and the machine's 32-bit and x32 calls, which have other numbers
(connect and bind are refused there). Everything else is allowed without a detour.

Numbers: ``asm/unistd_64.h``, ``asm-generic/unistd.h``, ``linux/audit.h``; seccomp(2).
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_ABOVE: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_BITS: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

ALLOW: Final = 0x7FFF0000
NOTIFY: Final = 0x7FC00000
ERRNO: Final = 0x00050000

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; the low halves of the arguments (both
# machines are little-endian).
_NUMBER: Final = 0
_ARCH: Final = 4
_ARGUMENTS: Final = 16
_X32_BIT: Final = 0x40000000
_MSG_FASTOPEN: Final = 0x20000000
_SOCKETCALL_BIND, _SOCKETCALL_CONNECT = 2, 3


class Calls(NamedTuple):
    """The numbers of one machine. ``compat_*`` are those of its 32-bit programs; -1: there is none."""

    arch: int
    connect: int
    bind: int
    sendto: int
    sendmsg: int
    sendmmsg: int
    seccomp: int
    compat_arch: int
    compat_connect: int
    compat_bind: int
    compat_socketcall: int


MACHINES: Final = {
    "x86_64": Calls(0xC000003E, 42, 49, 44, 46, 307, 317, 0x40000003, 362, 361, 102),
    "aarch64": Calls(0xC00000B7, 203, 200, 206, 211, 269, 277, 0x40000028, 283, 282, -1),
}
IO_URING_SETUP: Final = 425  # the same number on every machine


class _Assembler:
    """Instructions with labels; jumps go forward only, as BPF wants it."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def put(self, code: int, k: int, yes: str = "", no: str = "") -> None:
        self._code.append((code, yes, no, k))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def assemble(self) -> bytes:
        def offset(at: int, label: str) -> int:
            return self._labels[label] - at - 1 if label else 0

        return b"".join(
            struct.pack("=HBBI", code, offset(at, yes), offset(at, no), k)
            for at, (code, yes, no, k) in enumerate(self._code)
        )


def program(machine: str) -> bytes:
    """The filter for ``os.uname().machine``: ``struct sock_filter`` after another.

    Raises:
        KeyError: for a machine that is not in ``MACHINES``.
    """
    calls = MACHINES[machine]
    out = _Assembler()
    out.put(_LOAD, _ARCH)
    out.put(_JUMP_EQUAL, calls.arch, yes="native")
    out.put(_JUMP_EQUAL, calls.compat_arch, yes="compat", no="refuse")
    out.label("native")
    out.put(_LOAD, _NUMBER)
    if machine == "x86_64":
        out.put(_JUMP_ABOVE, _X32_BIT, yes="absent")
    for number in (calls.connect, calls.bind):
        out.put(_JUMP_EQUAL, number, yes="notify")
    out.put(_JUMP_EQUAL, IO_URING_SETUP, yes="absent")
    out.put(_JUMP_EQUAL, calls.sendto, yes="flags3")
    out.put(_JUMP_EQUAL, calls.sendmmsg, yes="flags3")
    out.put(_JUMP_EQUAL, calls.sendmsg, yes="flags2", no="allow")
    out.label("flags3")
    out.put(_LOAD, _ARGUMENTS + 3 * 8)
    out.put(_JUMP_BITS, _MSG_FASTOPEN, yes="unsupported", no="allow")
    out.label("flags2")
    out.put(_LOAD, _ARGUMENTS + 2 * 8)
    out.put(_JUMP_BITS, _MSG_FASTOPEN, yes="unsupported", no="allow")
    out.label("compat")
    out.put(_LOAD, _NUMBER)
    for number in (calls.compat_connect, calls.compat_bind):
        out.put(_JUMP_EQUAL, number, yes="refuse")
    out.put(_JUMP_EQUAL, IO_URING_SETUP, yes="absent")
    if calls.compat_socketcall >= 0:
        out.put(_JUMP_EQUAL, calls.compat_socketcall, yes="socketcall", no="allow")
        out.label("socketcall")
        out.put(_LOAD, _ARGUMENTS)
        out.put(_JUMP_EQUAL, _SOCKETCALL_BIND, yes="refuse")
        out.put(_JUMP_EQUAL, _SOCKETCALL_CONNECT, yes="refuse", no="allow")
    for name, action in (
        ("allow", ALLOW),
        ("notify", NOTIFY),
        ("absent", ERRNO | errno.ENOSYS),
        ("unsupported", ERRNO | errno.EOPNOTSUPP),
        ("refuse", ERRNO | errno.EACCES),
    ):
        out.label(name)
        out.put(_RETURN, action)
    return out.assemble()
