"""Signals as a descriptor that says who sent them (signalfd(2)). Standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from typing import Final

_SFD_NONBLOCK: Final = os.O_NONBLOCK
_SFD_CLOEXEC: Final = os.O_CLOEXEC
_INFO: Final = struct.Struct("=IiiII")  # number, errno, code, pid, uid; 128 bytes in all
_INFO_BYTES: Final = 128
_FROM_KERNEL: Final = 0x80  # SI_KERNEL: the terminal's driver, to its whole foreground group
_SIGSET_BYTES: Final = 128

# Not these: the kernel's own business, or how a shell stops a background job that touches the terminal.
_LEFT_ALONE: Final = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGPIPE,
}


class Signals:
    """All signals that a program may be sent, blocked and read one by one."""

    def __init__(self) -> None:
        wanted = signal.valid_signals() - _LEFT_ALONE
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would reap for us
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        body = bytearray(_SIGSET_BYTES)
        for number in wanted:
            body[(number - 1) // 8] |= 1 << (number - 1) % 8
        libc = ctypes.CDLL(None, use_errno=True)
        mask = (ctypes.c_char * _SIGSET_BYTES).from_buffer(body)
        self._descriptor = int(libc.signalfd(-1, mask, _SFD_NONBLOCK | _SFD_CLOEXEC))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._descriptor

    def read(self) -> Iterator[tuple[int, bool]]:
        """Each signal, and whether the terminal sent it (then the application has got it too)."""
        while True:
            try:
                body = os.read(self._descriptor, _INFO_BYTES)
            except BlockingIOError:
                return
            number, _, code, _, _ = _INFO.unpack_from(body)
            yield number, code == _FROM_KERNEL
