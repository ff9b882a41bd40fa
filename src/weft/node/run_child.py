"""The application's side of ``weft run``: between fork and exec. Standard library only."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from weft.node.capture import bpf, hosts_overlay, seccomp_kernel

_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
NOT_EXECUTABLE, NOT_FOUND, NOT_CAPTURED = 126, 127, 125


class StartError(Exception):
    """The application could not be started. ``code`` is the exit code, as of shells."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Started:
    """A running application. ``listener`` is the descriptor of its seccomp filter, or None.

    ``names_error`` says why it does not see the mesh's names, else it is empty.
    """

    __slots__ = ("killable", "listener", "names_error", "pid")

    def __init__(self, pid: int, listener: int | None, killable: bool, names_error: str) -> None:
        self.pid = pid
        self.listener = listener
        self.killable = killable
        self.names_error = names_error


def start(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    seccomp: bool = False,
    hosts: str | None = None,
    netns: str | None = None,
    working_dir: str | None = None,
) -> Started:
    """Execute the application. It is killed by the kernel when we die: without us it has no way out.

    Raises:
        StartError: not found, not executable, or not capturable.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become(theirs, parent, command, environ, seccomp, hosts, netns, working_dir)
    theirs.close()
    with ours:
        listener, killable, names_error, failed = None, True, "", ""
        code = NOT_CAPTURED
        while True:
            body, ancillary, _, _ = ours.recvmsg(4096, socket.CMSG_SPACE(4))
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    listener = array.array("i", data[:4])[0]
            if not body:
                break
            for line in body.decode(errors="replace").splitlines():
                word, _, rest = line.partition(" ")
                if word == "filtered":
                    killable = rest == "killable"
                elif word == "names":
                    names_error = rest
                elif word == "failed":
                    number, _, failed = rest.partition(" ")
                    code = int(number)
    if failed:
        if listener is not None:
            os.close(listener)
        os.waitpid(pid, 0)
        raise StartError(failed, code)
    return Started(pid, listener, killable, names_error)


def _become(
    report: socket.socket,
    parent: int,
    command: Sequence[str],
    environ: Mapping[str, str],
    seccomp: bool,
    hosts: str | None,
    netns: str | None,
    working_dir: str | None,
) -> None:
    """The child: never returns."""
    code, what = NOT_CAPTURED, "start"
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # what Python ignores and exec would hand on
        libc = ctypes.CDLL(None, use_errno=True)
        if netns:
            what = f"enter {netns}"
            descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.close(descriptor)
        if hosts:
            try:
                hosts_overlay.cover(hosts)
            except OSError as error:
                report.send(f"names {error.strerror}\n".encode())
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(code)
        code, what = NOT_EXECUTABLE, f"change to {working_dir}"
        if working_dir:
            os.chdir(working_dir)
        code, what = NOT_CAPTURED, "capture"
        os.environ.clear()
        os.environ.update(environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if seccomp:
            machine = os.uname().machine
            listener, killable = seccomp_kernel.install(bpf.program(machine), machine)
            word = b"filtered killable\n" if killable else b"filtered interruptible\n"
            report.sendmsg([word], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
            os.close(listener)
        code, what = NOT_EXECUTABLE, command[0]
        os.execvp(command[0], list(command))  # noqa: S606 - what this module is for
    except FileNotFoundError as error:
        code = NOT_FOUND if code == NOT_EXECUTABLE else code
        text = f"{what}: {error.strerror}"
    except PermissionError as error:
        text = f"{what}: {error.strerror}"
        if what == command[0] and not _visible(what, os.environ.get("PATH", os.defpath)):
            # A directory of PATH that may not be entered is no reason, as for shells.
            code, text = NOT_FOUND, f"{what}: {os.strerror(errno.ENOENT)}"
    except OSError as error:
        text = f"{what}: {error.strerror or error}"
        if error.errno == errno.EBUSY:
            text = f"{what}: another supervisor watches this process, as in `weft run` in `weft run`"
    except BaseException as error:  # a child must never run on in its parent's code
        text = f"{what}: {error}"
    with contextlib.suppress(OSError):
        report.send(f"failed {code} {text}\n".encode())
    os._exit(code)


def _visible(program: str, path: str) -> bool:
    """Whether a file of this name can be seen, itself or in a directory of ``path``."""
    places = [program] if "/" in program else [f"{directory}/{program}" for directory in path.split(":")]
    return any(os.path.exists(place) for place in places)  # noqa: PTH110 - no pathlib here
