"""Rules for nftables, as text. Pure, but for ``apply`` and ``drop`` which hand the text to ``nft -f -``.

Host mode: each workload has an ``app`` and a ``proxy`` cgroup. NAT stands in one table and guards in a second
one, so that losing the first closes the mesh instead of opening it. Namespace mode: one workload owns the
network namespace, and its sidecar is told apart by its uid.

What nft 1.0.6 (Debian 12) wants: ``priority -100`` where newer ones know ``dstnat`` in output, one statement
a line, and ``meta l4proto tcp`` in the same rule as ``redirect to :port``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weft.names import DNS_PORT, HEALTH_PORT, INBOUND_PORT, INBOUND_SOURCE, OUTBOUND_PORT, PROMETHEUS_PORT
from weft.node.capture.cgroup import Group
from weft.node.capture.command import run

# Only the first packet: the first NAT rule of a host would otherwise break connections that live already.
_SYN: Final = "tcp flags syn / fin,syn,rst,ack"
# The node's probes go to applications directly. Only with CAP_NET_ADMIN can a socket be marked.
PROBE_MARK: Final = 0x77656674
_PROBE: Final = f"meta mark {PROBE_MARK:#x}"
_OWN_MARK: Final = 0x77650000
INBOUND_SOURCE_6: Final = "::6"
# The resolver of sidecars, which only forwards: a virtual address would lead them back to themselves.
PROXY_DNS_PORT: Final = DNS_PORT + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWorkload:
    """One workload on the host's own network. ``ports`` are those its application listens on."""

    name: str
    app: Group
    proxy: Group
    outbound_port: int
    inbound_port: int
    dns_port: int
    ports: tuple[int, ...] = ()


def table_name(mesh: str) -> str:
    """The NAT table of a mesh; its guards are in the same name with ``-guard``."""
    return f"weft-{mesh}"


def host_rules(mesh: str, workloads: Iterable[HostWorkload]) -> str:
    """Both tables, replaced in one transaction. Without workloads they are only removed."""
    sorted_workloads = sorted(workloads, key=lambda workload: workload.name)
    nat, guard = table_name(mesh), f"{table_name(mesh)}-guard"
    text = _gone(nat) + _gone(guard)
    if sorted_workloads:
        text += _nat_table(nat, sorted_workloads) + _guard_table(guard, sorted_workloads)
    return text


def no_rules(mesh: str) -> str:
    """Removes both tables, whether they exist or not."""
    return host_rules(mesh, ())


def _gone(table: str) -> str:
    # Adding first makes deleting right in either case (nft 1.0.6 has no "destroy").
    return f"table inet {table}\ndelete table inet {table}\n"


def _levels(workloads: Sequence[HostWorkload]) -> list[int]:
    return sorted({workload.app.level for workload in workloads})


def _map(
    name: str, level: int, workloads: Sequence[HostWorkload], port: Callable[[HostWorkload], int]
) -> str:
    elements = ", ".join(
        f'"{workload.app.path}" : {port(workload)}' for workload in workloads if workload.app.level == level
    )
    return (
        f" map {name}{level} {{\n  typeof socket cgroupv2 level {level} : tcp dport\n"
        f"  elements = {{ {elements} }}\n }}\n"
    )


def _by_app(table: str, levels: Iterable[int]) -> list[str]:
    return [f":socket cgroupv2 level {level} map @{table}{level}" for level in levels]


def _port_owners(workloads: Sequence[HostWorkload]) -> dict[int, HostWorkload]:
    return {port: workload for workload in workloads for port in workload.ports}


def _ports(ports: Iterable[int]) -> str:
    return "{ " + ", ".join(str(port) for port in sorted(ports)) + " }"


def _own(workload: HostWorkload) -> list[str]:
    """Matches for the application, and for its sidecar when it delivers.

    A sidecar that balanced to its own workload is no delivery: it goes in by the front door, where mTLS ends.
    IPv6 has no second loopback address to tell them by.
    """
    app, proxy = (
        f'socket cgroupv2 level {group.level} "{group.path}"' for group in (workload.app, workload.proxy)
    )
    return [app, f"ip saddr {INBOUND_SOURCE} {proxy}", f"meta nfproto ipv6 {proxy}"]


def _nat_table(table: str, workloads: Sequence[HostWorkload]) -> str:
    levels, owners = _levels(workloads), _port_owners(workloads)
    text = f"table inet {table} {{\n"
    for level in levels:
        text += _map("out", level, workloads, lambda workload: workload.outbound_port)
        text += _map("in", level, workloads, lambda workload: workload.inbound_port)
        text += _map("dns", level, workloads, lambda workload: workload.dns_port)
    if owners:
        elements = ", ".join(f"{port} : {owners[port].inbound_port}" for port in sorted(owners))
        text += f" map inport {{\n  type inet_service : inet_service\n  elements = {{ {elements} }}\n }}\n"
    text += " chain output {\n  type nat hook output priority -100; policy accept;\n"
    for target in _by_app("dns", levels):
        text += f"  udp dport 53 redirect to {target}\n  tcp dport 53 redirect to {target}\n"
    text += f"  {_SYN} jump toward\n }}\n chain toward {{\n  {_PROBE} accept\n"
    for workload in workloads:
        if workload.ports:
            for own in _own(workload):
                text += (
                    f"  fib daddr type local tcp dport {_ports(workload.ports)} {own} accept"
                    f' comment "{workload.name}: its own ports"\n'
                )
    text += "  ip daddr 127.0.0.0/8 goto inside\n  ip6 daddr ::1 goto inside\n"
    for target in _by_app("out", levels):
        text += f"  meta l4proto tcp redirect to {target}\n"
    text += "  fib daddr type local goto inside\n }\n chain inside {\n"
    if owners:
        text += "  meta l4proto tcp redirect to :tcp dport map @inport\n"
    text += " }\n chain prerouting {\n  type nat hook prerouting priority -100; policy accept;\n"
    text += "  iif lo accept\n"
    if owners:
        text += f"  fib daddr type local {_SYN} redirect to :tcp dport map @inport\n"
    # The listener's cgroup, so that ports which nobody declared are protected too.
    for target in _by_app("in", levels):
        text += f"  fib daddr type local {_SYN} redirect to {target}\n"
    return text + " }\n}\n"


def _guard_table(table: str, workloads: Sequence[HostWorkload]) -> str:
    owners = _port_owners(workloads)
    text = f"table inet {table} {{\n chain output {{\n  type filter hook output priority 0; policy accept;\n"
    text += f"  ct state established,related accept\n  {_PROBE} accept\n"
    # Who listens is seen at the way in only, who calls at the way out only: the connection carries it over.
    # Others get to no sidecar's way out, so that what it sends is the application's.
    for workload in workloads:
        for group in (workload.app, workload.proxy):
            own = f'socket cgroupv2 level {group.level} "{group.path}"'
            text += f"  fib daddr type local {_SYN} {own} ct mark set {_mark(workload)}\n"
    # Allow, then reject: '!=' does not match a cgroup that is not as deep.
    for workload in workloads:
        app = f'socket cgroupv2 level {workload.app.level} "{workload.app.path}"'
        text += f'  tcp dport {workload.outbound_port} {app} accept comment "{workload.name}: its way out"\n'
    outbound = _ports(workload.outbound_port for workload in workloads)
    text += f"  fib daddr type local tcp dport {outbound} counter reject with tcp reset\n"
    for workload in workloads:
        if workload.ports:
            for own in _own(workload):
                text += f"  fib daddr type local tcp dport {_ports(workload.ports)} {own} accept\n"
    if owners:
        text += f"  fib daddr type local tcp dport {_ports(owners)} counter reject with tcp reset\n"
    text += " }\n chain input {\n  type filter hook input priority 0; policy accept;\n"
    text += f"  ct state established,related accept\n  {_PROBE} accept\n"
    if owners:
        text += f"  iif != lo tcp dport {_ports(owners)} counter reject with tcp reset\n"
    # Ports that nobody declared: from afar they are redirected to the sidecar, from this host they cannot be.
    for workload in workloads:
        listens = f'socket cgroupv2 level {workload.app.level} "{workload.app.path}"'
        text += f"  {_SYN} {listens} ct mark != {_mark(workload)} counter reject with tcp reset\n"
    return text + " }\n}\n"


def _mark(workload: HostWorkload) -> str:
    """Of connections that may reach the application itself. The block of ports is the workload's alone."""
    return f"{_OWN_MARK | workload.outbound_port:#x}"


def namespace_rules(
    proxy_uid: int,
    *,
    outbound_port: int = OUTBOUND_PORT,
    inbound_port: int = INBOUND_PORT,
    dns_port: int = DNS_PORT,
    open_ports: Iterable[int] = (HEALTH_PORT, PROMETHEUS_PORT),
) -> str:
    """The rules inside one workload's network namespace. ``open_ports`` are the sidecar's own.

    The node's probes need no rule: their sockets are made inside, so they come from loopback.
    """
    table, guard = "weft", "weft-guard"
    uid = f"meta skuid {proxy_uid}"
    text = _gone(table) + _gone(guard) + f"table inet {table} {{\n"
    text += " chain output {\n  type nat hook output priority -100; policy accept;\n"
    for protocol in ("udp", "tcp"):
        text += f"  {protocol} dport 53 {uid} redirect to :{PROXY_DNS_PORT}\n"
        text += f"  {protocol} dport 53 redirect to :{dns_port}\n"
    text += "  meta l4proto != tcp return\n"
    # A sidecar that balanced to its own workload goes in by the front door, where mTLS ends; what it hands
    # to the application comes from its private address and is left alone, or it would go round for ever.
    text += f"  ip saddr {INBOUND_SOURCE} return\n  ip6 saddr {INBOUND_SOURCE_6} return\n"
    text += f"  oif lo ip daddr != 127.0.0.0/8 {uid} {_SYN} redirect to :{inbound_port}\n"
    text += f"  {uid} return\n  oif lo return\n"
    text += f"  {_SYN} redirect to :{outbound_port}\n }}\n"
    text += " chain prerouting {\n  type nat hook prerouting priority -100; policy accept;\n"
    text += f"  iif lo return\n  tcp dport {_ports(open_ports)} return\n"
    text += f"  {_SYN} redirect to :{inbound_port}\n }}\n}}\n"
    # In a table of its own, so that losing the other closes the workload instead of opening it.
    text += f"table inet {guard} {{\n chain output {{\n  type filter hook output priority 0; policy accept;\n"
    text += f"  fib daddr type != local {_SYN} meta skuid != {proxy_uid} counter reject with tcp reset\n }}\n"
    text += " chain input {\n  type filter hook input priority 0; policy accept;\n"
    front = _ports((inbound_port, *open_ports))
    text += f"  iif != lo {_SYN} tcp dport != {front} counter reject with tcp reset\n }}\n}}\n"
    return text


async def apply(rules: str, *, netns: Path | None = None) -> None:
    """Load rules in one transaction: all of them or none.

    Raises:
        CommandError: nft is missing, refused the rules, or we may not.
    """
    prefix = ("nsenter", f"--net={netns}") if netns else ()
    await run(*prefix, "nft", "-f", "-", stdin=rules)


async def drop(mesh: str) -> None:
    """Remove the host tables of a mesh, if they are there.

    Raises:
        CommandError: as ``apply``.
    """
    await apply(no_rules(mesh))


async def tables() -> list[str]:
    """Names of all tables of weft on this host, of any mesh.

    Raises:
        CommandError: as ``apply``.
    """
    listed = await run("nft", "list", "tables")
    return [line.split()[2] for line in listed.splitlines() if line.startswith("table inet weft-")]
