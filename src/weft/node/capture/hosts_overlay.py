"""The mesh's names for one application: its own ``/etc/hosts``, which nobody else on the host sees.

A file is bound over ``/etc/hosts`` in a mount namespace of the application. Whoever writes into that file
(the same inode) changes the names while it runs. An ordinary user needs a user namespace for it, with its
own uid mapped to itself; at exec the capabilities in there are gone again.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_HOSTS: Final = b"/etc/hosts"


def cover(hosts: str) -> None:
    """Put ``hosts`` over ``/etc/hosts`` for the calling process and its children. One thread only.

    Raises:
        OSError: user or mount namespaces are not permitted, or the file is not there. The names are then the
            host's; a namespace that was entered before stays, and changes nothing that can be seen.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if uid else 0)), "a mount namespace")
    if uid:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    else:
        _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "private mounts")
    _check(libc.mount(os.fsencode(hosts), _HOSTS, None, _MS_BIND, None), "names over /etc/hosts")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
