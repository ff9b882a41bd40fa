"""Who may bring which workloads into the mesh on this host: by uid, gid or systemd unit."""

from __future__ import annotations

import os
import socket
import struct
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from weft.errors import UsageError, WeftError

_UCRED = struct.Struct("3i")
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end of a Unix socket (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, peer: socket.socket) -> Self:
        """Ask the kernel."""
        return cls(*_UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))

    @property
    def trusted(self) -> bool:
        """Root, or the user that the node itself runs as."""
        return self.uid in {0, os.geteuid()}

    def unit(self) -> str:
        """The unit of the system's systemd it belongs to, from its cgroup; empty when there is none."""
        try:
            text = Path(f"/proc/{self.pid}/cgroup").read_text()
        except OSError:
            return ""
        return unit_of(text)


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
            and self.gid in {None, caller.gid}
            and (self.unit is None or self.unit == caller.unit())
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
