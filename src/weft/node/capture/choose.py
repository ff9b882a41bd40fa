"""Which capture a host allows, and what each does not cover. Said aloud, never chosen in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from weft.errors import WeftError
from weft.node.capture import proxy_env
from weft.node.capture.bpf import MACHINES
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.command import SEARCH_PATH

_USERNS_LIMIT: Final = Path("/proc/sys/user/max_user_namespaces")
_SECCOMP_ACTIONS: Final = Path("/proc/sys/kernel/seccomp/actions_avail")
_TESTED: Final = "x86_64"
_KERNEL_SECCOMP: Final = (5, 19)  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


class Mode(StrEnum):
    """``NETNS`` and ``NFT`` both redirect by nft: in a namespace of the replica, or on the host's network."""

    NETNS = "netns"
    NFT = "nft"
    SECCOMP = "seccomp"
    ENV = "env"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a host offers. ``userns_error`` and ``seccomp_error`` are empty when it works."""

    root: bool
    nft: bool
    ip: bool
    cgroup2: bool
    userns_error: str = ""
    seccomp_error: str = ""

    @classmethod
    def look(cls) -> Host:
        """The host that we are on; nothing is changed."""
        return cls(
            root=os.geteuid() == 0,
            nft=shutil.which("nft", path=SEARCH_PATH) is not None,
            ip=shutil.which("ip", path=SEARCH_PATH) is not None,
            cgroup2=Hierarchy.find() is not None,
            userns_error=_userns_error(),
            seccomp_error=_seccomp_error(),
        )


def _userns_error() -> str:
    """Try it in a child: sysctls, AppArmor and LSMs each have their own way to forbid it."""
    try:
        if _USERNS_LIMIT.read_text().strip() == "0":
            return "user namespaces are turned off (sysctl user.max_user_namespaces is 0)"
    except OSError:
        return "this kernel has no user namespaces"
    try:
        # A program, no fork of our own: a child that some library gives threads again may not unshare.
        done = subprocess.run(
            ("unshare", "--user", "true"),
            env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot try user namespaces: {error}"
    said = done.stderr.strip().removeprefix("unshare: ")
    return "" if done.returncode == 0 else f"user namespaces are not permitted: {said}"


def _seccomp_error() -> str:
    release = os.uname().release.split("-")[0].split(".")
    version = (int(release[0]), int("".join(filter(str.isdigit, release[1])) or 0))
    if version < _KERNEL_SECCOMP:
        return "seccomp user notification needs Linux 5.19 or newer"
    if os.uname().machine not in MACHINES:
        return f"seccomp capture is not available on {os.uname().machine}"
    try:
        actions = _SECCOMP_ACTIONS.read_text().split()
    except OSError:
        return "this kernel has no seccomp"
    return "" if "user_notif" in actions else "this kernel's seccomp has no user notification"


_COVERS: Final = {
    Mode.NETNS: "all TCP and DNS of the workload, in a network namespace of its own",
    Mode.NFT: "all TCP and DNS of the workload, by cgroup; its ports take only what its sidecar lets in",
    Mode.SECCOMP: "all TCP that the workload opens; its ports move to an address of its own",
    Mode.ENV: "HTTP of programs that read http_proxy",
    Mode.NONE: "nothing: the sidecar only receives",
}
_LIMITS: Final[dict[Mode, tuple[str, ...]]] = {
    Mode.NETNS: ("UDP other than DNS goes out directly", "IPv6 ends inside the namespace"),
    Mode.NFT: ("UDP other than DNS goes out directly", "root on this host can go around it"),
    Mode.SECCOMP: (
        "UDP is not captured; io_uring is refused, so that programs use connect()",
        "getpeername() shows the sidecar",
        "it is no boundary between processes of one machine: STRICT holds between hosts only",
    ),
    Mode.ENV: proxy_env.LIMITS,
    Mode.NONE: ("calls of the workload do not go through the mesh",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A capture, what it covers, what it does not, and why a better one was not taken."""

    mode: Mode
    covers: str
    limits: tuple[str, ...]
    because: str = ""

    def __str__(self) -> str:
        why = f" ({self.because})" if self.because else ""
        return f"capture: {self.mode}{why}. Covers {self.covers}. Not covered: {'; '.join(self.limits)}."


def _choice(mode: Mode, because: str, *, own_network: bool) -> Choice:
    limits = _LIMITS[mode]
    if mode is Mode.SECCOMP and os.uname().machine != _TESTED:
        limits = (*limits, f"it was not tested on {os.uname().machine}")
    if mode in {Mode.ENV, Mode.NONE} and own_network:
        limits = (proxy_env.ADDRESS_LIMIT, *limits)
    return Choice(mode=mode, covers=_COVERS[mode], limits=limits, because=because)


def lacks(mode: Mode, host: Host) -> tuple[str, str]:
    """Why a host cannot do a capture, and the remedy; two empty texts when it can."""
    if mode in {Mode.NETNS, Mode.NFT}:
        if not host.root:
            return "nft capture needs root", "run as root, or use --capture seccomp"
        if not host.nft:
            return "nft is not installed", "install the package 'nftables'"
        if mode is Mode.NETNS and not host.ip:
            return "ip is not installed", "install the package 'iproute2'"
        if mode is Mode.NFT and not host.cgroup2:
            return (
                "there is no cgroup2 hierarchy below /sys/fs/cgroup",
                "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
    if mode is Mode.SECCOMP and host.seccomp_error:
        return host.seccomp_error, "use --capture env, or run as root for nft"
    if mode is Mode.SECCOMP and host.userns_error:
        return host.userns_error, "allow them, use --capture env, or run as root for nft"
    return "", ""


def choose(wanted: str, host: Host, *, own_network: bool) -> Choice:
    """The capture for one workload. ``wanted`` is ``auto`` or a mode; ``own_network``: each replica has its
    own address (``weft up``), so that nft works in namespaces instead of on the host's network.

    Raises:
        WeftError: when what was asked for cannot be had here. ``auto`` always finds one.
    """
    redirect = Mode.NETNS if own_network else Mode.NFT
    if wanted == "auto":
        order = (redirect, Mode.SECCOMP, Mode.ENV) if host.root else (Mode.SECCOMP, Mode.ENV)
        because = "" if host.root else "not root"
        for mode in order:
            problem, _ = lacks(mode, host)
            if not problem:
                return _choice(mode, because, own_network=own_network)
            because = problem
    try:
        mode = redirect if wanted == "nft" else Mode(wanted)
    except ValueError:
        raise WeftError(
            f"{wanted!r} is not a capture", hint="write auto, nft, seccomp, env or none"
        ) from None
    problem, remedy = lacks(mode, host)
    if problem:
        raise WeftError(f"capture {wanted} is not possible here: {problem}", hint=remedy)
    return _choice(mode, "as asked", own_network=own_network)
