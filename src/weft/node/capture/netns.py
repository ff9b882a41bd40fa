"""A network namespace for each replica, as a pod has one: a bridge on the host, a veth pair, an address.

Nothing here outlives ``remove``: what is made is noted first (``Layout.write_record``), so that the next node
or ``weft clean`` can take it away after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from weft.errors import WeftError
from weft.node.capture.command import CommandError, run
from weft.node.layout import Layout

_CLONE_NEWNET: Final = 0x40000000
_NETNS_DIRECTORY: Final = Path("/run/netns")
_SYSCTL: Final = Path("/proc/sys/net/ipv4/conf")
# 10.88 and up: what people's own networks and Docker (172.17) use least. A /16 holds 65,000 replicas.
_SUBNETS: Final = tuple(ipaddress.IPv4Network(f"10.{second}.0.0/16") for second in range(88, 256))

T = TypeVar("T")


def _short(text: str, length: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The bridge of one mesh on this host. ``gateway`` is the host's own address on it."""

    mesh: str
    bridge: str
    subnet: ipaddress.IPv4Network

    @property
    def gateway(self) -> str:
        """Where the host, its control plane and its probes are, seen from a replica."""
        return str(self.subnet[1])

    @property
    def table(self) -> str:
        """The nft table that lets replicas reach the world beyond the host."""
        return f"weft-{self.mesh}-bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A replica's network: ``path`` may be entered, ``link`` is the host's end of the cable."""

    name: str
    path: Path
    link: str
    address: str


async def _ip_json(*argv: str) -> list[dict[str, Any]]:
    found = json.loads(await run("ip", "-j", *argv) or "[]")
    return [row for row in found if isinstance(row, dict)]


async def _used_networks() -> list[ipaddress.IPv4Network]:
    used = []
    for row in await _ip_json("-4", "route", "show", "table", "all"):
        target = str(row.get("dst", "default"))
        with contextlib.suppress(ValueError):
            if target != "default":
                used.append(ipaddress.IPv4Network(target, strict=False))
    return used


async def make_network(layout: Layout) -> Network:
    """Make the bridge of this mesh, with the first subnet that no route of the host touches.

    Raises:
        CommandError: without the rights, or without ``ip`` or ``nft``.
    """
    mesh = layout.mesh
    bridge = f"weft{_short(mesh)}"
    noted = layout.read_record("network", bridge)
    exists = Path(f"/sys/class/net/{bridge}").exists()
    if noted and exists:
        return Network(mesh=mesh, bridge=bridge, subnet=ipaddress.IPv4Network(noted["subnet"]))
    if exists:
        await run("ip", "link", "delete", bridge)
    used = await _used_networks()
    start = int(_short(mesh), 16) % len(_SUBNETS)
    choices = (*_SUBNETS[start:], *_SUBNETS[:start])
    subnet = next((net for net in choices if not any(net.overlaps(other) for other in used)), None)
    if subnet is None:
        raise WeftError(
            "every network from 10.88.0.0/16 to 10.255.0.0/16 is in use on this host",
            hint="remove a route, or use --capture seccomp",
        )
    network = Network(mesh=mesh, bridge=bridge, subnet=subnet)
    uplinks = sorted({str(row["dev"]) for row in await _ip_json("-4", "route", "show", "default")})
    forwarding = {name: _forwarding(name) for name in uplinks}
    layout.write_record(
        "network", bridge, {"subnet": str(subnet), "table": network.table, "forwarding": forwarding}
    )
    await run(
        *("ip", "-batch", "-"),
        # An address of its own: else a bridge takes its lowest port's, and whenever a replica comes or
        # goes the others send to one that nobody has until their neighbour tables notice.
        stdin=f"link add {bridge} address {_mac(network.gateway)} type bridge\n"
        f"addr add {network.gateway}/{subnet.prefixlen} dev {bridge}\n"
        f"link set {bridge} up\n",
    )
    # Forwarding is decided by the interface a packet comes in on: only these, not the whole host.
    for name in (bridge, *uplinks):
        _set_forwarding(name, "1")
    table = network.table
    await run(
        *("nft", "-f", "-"),
        stdin=f"table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n"
        " chain postrouting {\n  type nat hook postrouting priority 100; policy accept;\n"
        f'  ip saddr {subnet} oifname != "{bridge}" masquerade\n }}\n'
        # The host does not become a router for others: new connections pass only from the bridge outwards.
        " chain forward {\n  type filter hook forward priority 0; policy accept;\n"
        f'  iifname "{bridge}" accept\n'
        f'  oifname "{bridge}" ct state established,related accept\n'
        f'  oifname "{bridge}" drop\n }}\n}}\n',
    )
    return network


def _mac(address: str) -> str:
    """A locally administered hardware address made of an IPv4 address."""
    return "02:77:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def _forwarding(interface: str) -> str:
    try:
        return (_SYSCTL / interface / "forwarding").read_text().strip()
    except OSError:
        return "0"


def _set_forwarding(interface: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        (_SYSCTL / interface / "forwarding").write_text(value)


async def remove_network(layout: Layout, bridge: str) -> None:
    """Remove a mesh's bridge and its table, and put the host's forwarding back as it was."""
    noted = layout.read_record("network", bridge) or {}
    if Path(f"/sys/class/net/{bridge}").exists():
        await run("ip", "link", "delete", bridge)
    if table := noted.get("table"):
        await run("nft", "-f", "-", stdin=f"table ip {table}\ndelete table ip {table}\n")
    for interface, value in dict(noted.get("forwarding", {})).items():
        if value == "0":
            _set_forwarding(interface, "0")
    layout.drop_record("network", bridge)


def namespace_name(mesh: str, workload: str) -> str:
    """``weft-default-shop.web-0``; a name too long for a file is cut and bears its hash."""
    full = f"weft-{mesh}-{workload}"
    return full if len(full) <= 200 else f"{full[:190]}-{_short(full)}"


def free_address(network: Network, taken: Iterable[str]) -> str:
    """The lowest free address of the bridge's subnet.

    Raises:
        WeftError: when all are taken.
    """
    used = {int(ipaddress.IPv4Address(address)) for address in taken}
    first = int(network.subnet.network_address)
    for number in range(first + 2, int(network.subnet.broadcast_address)):
        if number not in used:
            return str(ipaddress.IPv4Address(number))
    raise WeftError(f"all addresses of {network.subnet} are taken")


async def make_namespace(
    layout: Layout, network: Network, workload: str, address: str, rules: str
) -> Namespace:
    """Make a replica's namespace with its address, default route and rules; noted before it is made.

    Raises:
        CommandError: without the rights; what was made until then is removed again.
    """
    name = namespace_name(network.mesh, workload)
    link = f"wv{_short(name, 12)}"
    path = _NETNS_DIRECTORY / name
    layout.write_record("netns", name, {"link": link, "address": address, "workload": workload})
    with contextlib.suppress(CommandError):
        await remove_namespace_only(name, link)
    try:
        await run("ip", "netns", "add", name)
        await run(
            *("ip", "-batch", "-"),
            stdin=f"link add {link} type veth peer name eth0 netns {name}\n"
            f"link set {link} master {network.bridge}\n"
            f"link set {link} up\n",
        )
        # Not 'ip netns exec': it mounts a new /sys, and cgroup paths break.
        script = (
            "ip link set lo up; "
            f"ip addr add {address}/{network.subnet.prefixlen} dev eth0; "
            "ip link set eth0 up; "
            f"ip route add default via {network.gateway}; "
            # It has the network to itself, as a pod: any port is open to any user.
            "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start; "
            "exec nft -f -"
        )
        await run("nsenter", f"--net={path}", "sh", "-euc", script, stdin=rules)
    except BaseException:
        await asyncio.shield(remove_namespace(layout, name))
        raise
    return Namespace(name=name, path=path, link=link, address=address)


async def remove_namespace_only(name: str, link: str) -> None:
    """Remove a namespace and its cable, if they exist; processes in it must be gone."""
    if link and Path(f"/sys/class/net/{link}").exists():
        await run("ip", "link", "delete", link)
    if (_NETNS_DIRECTORY / name).exists():
        await run("ip", "netns", "delete", name)


async def remove_namespace(layout: Layout, name: str) -> None:
    """Remove a namespace that was noted, and the note."""
    noted = layout.read_record("netns", name) or {}
    await remove_namespace_only(name, str(noted.get("link", "")))
    layout.drop_record("netns", name)


def within(path: Path | None, act: Callable[[], T]) -> T:
    """Call ``act`` inside a network namespace (None: where we are). Sockets made there stay there.

    Only the calling thread enters, and it comes back: call it from a thread of its own.

    Raises:
        OSError: without CAP_SYS_ADMIN.
    """
    if path is None:
        return act()
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"enter {path}: {os.strerror(number)}")

    with _opened("/proc/thread-self/ns/net") as home, _opened(str(path)) as there:
        enter(there)
        try:
            return act()
        finally:
            enter(home)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def route_virtual_addresses(cidr: str, *, add: bool) -> list[str]:
    """The command that gives the host a route for the mesh's virtual addresses, or takes it away.

    A connection must find a route before nft can redirect it. The odd metric marks the route as ours.
    """
    action = ["replace"] if add else ["delete"]
    return ["ip", "route", *action, cidr, "dev", "lo", "metric", "15400", "proto", "static"]


def bound(address: str, port: int, kind: socket.SocketKind, *, netns: Path | None = None) -> socket.socket:
    """A bound socket in a namespace; a stream socket listens already.

    Raises:
        OSError: the port is taken, or the namespace may not be entered.
    """

    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen(64)
        except OSError:
            made.close()
            raise
        return made

    return within(netns, make)
