"""Who may bring which workloads into the mesh on this host: by uid, gid or systemd unit."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from weft.errors import UsageError, WeftError

_UCRED = struct.Struct("3i")
# <asm-generic/socket.h>, since Linux 6.5; Python does not name it.
_SO_PEERPIDFD: Final = 77
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class Held:
    """The process at the other end of a Unix socket, held so that its pid cannot become another's unnoticed.

    Whoever connects may hand the connection on and end; what is then read of its pid is somebody else's.
    """

    def __init__(self, peer: socket.socket) -> None:
        self.pid, self.uid, self.gid = _UCRED.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        self._descriptor: int | None = None
        try:
            self._descriptor = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                return  # it has ended: who bears its pid now is somebody else
            # Before Linux 6.5: a pid that was given again between its connect() and now is not noticed.
            with contextlib.suppress(OSError):
                self._descriptor = os.pidfd_open(self.pid)

    def alive(self) -> bool:
        """Whether the process that connected still runs: then what was read of its pid was its own."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a Unix socket, as the kernel says (unix(7)): when it connected, not later.

    ``unit``: of the system's systemd, from its cgroup; empty when there is none. ``groups``: further ones.
    Neither is looked for where nothing depends on it.
    """

    pid: int
    uid: int
    gid: int
    unit: str = ""
    groups: frozenset[int] = frozenset()

    @classmethod
    def of(cls, peer: socket.socket) -> Self:
        """Ask the kernel."""
        held = Held(peer)
        try:
            made = cls(held.pid, held.uid, held.gid)
            if made.trusted:
                return made
            found = replace(made, unit=_unit(held.pid), groups=_groups(held.pid))
            return found if held.alive() else made
        finally:
            held.close()

    @property
    def trusted(self) -> bool:
        """Root, or the user that the node itself runs as."""
        return self.uid in {0, os.geteuid()}


def _unit(pid: int) -> str:
    try:
        return unit_of(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return ""


def _groups(pid: int) -> frozenset[int]:
    """The supplementary groups of a process (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return frozenset()
    lines = (line.removeprefix("Groups:") for line in text.splitlines() if line.startswith("Groups:"))
    return frozenset(int(gid) for line in lines for gid in line.split())


def unit_of(cgroup: str) -> str:
    """The unit in the text of ``/proc/PID/cgroup`` (cgroups(7)).

    The outermost one below the slices, as systemd itself reads it (cg_path_get_unit): further inside people
    name what they like, in a delegated cgroup or with ``systemd-run --user``.
    """
    for line in cgroup.splitlines():
        hierarchy, _, path = line.partition("::")
        if hierarchy != "0":
            continue  # cgroup v1: not systemd's tree
        for part in path.split("/"):
            if part and not part.endswith(".slice"):
                return part if part.endswith((".service", ".scope")) else ""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Callers that match all of what is given may claim these; ``*`` stands for any."""

    namespaces: tuple[str, ...]
    service_accounts: tuple[str, ...] = ("*",)
    uid: int | None = None
    gid: int | None = None
    unit: str | None = None

    def allows(self, caller: Caller, namespace: str, service_account: str) -> bool:
        """Whether this claim covers the caller and what it wants."""
        return (
            self.uid in {None, caller.uid}
            and (self.gid is None or self.gid == caller.gid or self.gid in caller.groups)
            and (self.unit is None or self.unit == caller.unit)
            and bool({"*", namespace} & {*self.namespaces})
            and bool({"*", service_account} & {*self.service_accounts})
        )


def check_claim(claims: Sequence[Claim], caller: Caller, namespace: str, service_account: str) -> None:
    """Pass, or say what is missing.

    Raises:
        WeftError: the caller may not be this.
    """
    if caller.trusted or any(claim.allows(caller, namespace, service_account) for claim in claims):
        return
    raise WeftError(
        f"uid {caller.uid} may not run as {namespace}/{service_account} on this node",
        hint=f"let its configuration say: [[claim]] uid = {caller.uid}, namespaces = [{namespace!r}]",
    )


def check_ports(ports: Iterable[int]) -> None:
    """That an ordinary user could open these ports now: by root's rules all their traffic becomes its own.

    Raises:
        WeftError: one is kept for root, or somebody listens there.
    """
    first = int(_FIRST_FREE_PORT.read_text())
    for port in ports:
        if port < first:
            raise WeftError(f"port {port} may be opened by root only", hint="let root start it")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError as error:
                raise WeftError(
                    f"port {port} cannot be opened on this host: {error.strerror}",
                    hint=f"see who has it: ss -ltn 'sport = :{port}'",
                ) from None


def read_claims(path: Path) -> tuple[Claim, ...]:
    """Read the ``[[claim]]`` tables of a node's configuration (TOML).

    Raises:
        UsageError: the file cannot be read, or says something else.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    unknown = set(found) - {"claim"}
    if unknown:
        raise UsageError(f"{path}: {sorted(unknown)[0]!r} is unknown", hint="write [[claim]] tables")
    return tuple(_claim(path, table) for table in found.get("claim", []))


def _claim(path: Path, table: Mapping[str, Any]) -> Claim:
    unknown = set(table) - {"uid", "gid", "unit", "namespaces", "serviceAccounts"}
    if unknown or not table.get("namespaces"):
        what = f"{sorted(unknown)[0]!r} is unknown" if unknown else "a claim lacks 'namespaces'"
        raise UsageError(f"{path}: {what}", hint="a claim has uid, gid or unit, namespaces, serviceAccounts")
    if not {"uid", "gid", "unit"} & set(table):
        raise UsageError(f"{path}: a claim for everybody", hint="say whose it is: uid, gid or unit")
    return Claim(
        namespaces=tuple(table["namespaces"]),
        service_accounts=tuple(table.get("serviceAccounts", ("*",))),
        uid=table.get("uid"),
        gid=table.get("gid"),
        unit=table.get("unit"),
    )
