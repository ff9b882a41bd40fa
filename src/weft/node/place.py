"""Addresses, ports and cgroups for workloads: chosen once, noted, and given again to the same workload."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from weft.errors import WeftError
from weft.ir.proxy import Attachment, Capture
from weft.names import (
    DNS_PORT,
    HOST_BLOCK_FIRST_PORT,
    HOST_BLOCK_SIZE,
    INBOUND_PORT,
    OUTBOUND_PORT,
)
from weft.node.capture import cgroup, netns, nft
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.choose import Choice, Mode
from weft.node.capture.loopback import APPLICATIONS, PEERS
from weft.node.layout import Layout, read_json, write_atomic
from weft.node.process import Process
from weft.node.spec import Placement, WorkloadSpec, capture_of

# What each of a workload's eight ports is for. With proxy variables the application's ports start at INBOUND.
OUTBOUND, INBOUND, DNS, HTTP_PROXY, PROMETHEUS, HEALTH = range(6)
_BLOCKS_END: Final = 32768  # where Linux' ephemeral ports begin by default
_SLOTS_FILE: Final = "slots.json"


class Slots:
    """Which slot each workload has. Persisted, so that a restart finds its ports and addresses again."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.state / _SLOTS_FILE
        self._slots: dict[str, int] = {}
        with contextlib.suppress(TypeError, ValueError):
            self._slots = {key: int(slot) for key, slot in (read_json(self._path) or {}).items()}

    def take(self, workload: str, usable: Any, *, live: Iterable[str] = ()) -> int:
        """The workload's old slot if ``usable(slot)``, else the lowest usable that no other has.

        Slots of workloads that are not ``live`` are taken again only when there is no other.

        Raises:
            WeftError: there is none.
        """
        old = self._slots.get(workload)
        if old is not None and usable(old):
            return old
        most = (_BLOCKS_END - HOST_BLOCK_FIRST_PORT) // HOST_BLOCK_SIZE
        for others in (set(self._slots.values()), {self._slots[key] for key in live if key in self._slots}):
            for slot in range(most):
                if slot not in others and usable(slot):
                    self._slots = {key: taken for key, taken in self._slots.items() if taken != slot}
                    self._slots[workload] = slot
                    write_atomic(self._path, json.dumps(self._slots).encode())
                    return slot
        raise WeftError(
            f"no block of {HOST_BLOCK_SIZE} free ports is left from {HOST_BLOCK_FIRST_PORT}",
            hint="stop workloads of this host, or see what holds the ports: ss -ltn",
        )


def _free(address: str, ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def _check_ports(ports: Iterable[int], address: str) -> None:
    """That a gateway can open them on this host.

    Raises:
        WeftError: one is in use, or below 1024 without the right to open it.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except PermissionError:
                raise WeftError(
                    f"port {port} may be opened by root only",
                    hint=f"map it: --port-map {port}={port + 10000}, or allow it: "
                    f"sysctl net.ipv4.ip_unprivileged_port_start={port}",
                ) from None
            except OSError as error:
                raise WeftError(
                    f"port {port} cannot be opened: {error.strerror}",
                    hint=f"see who has it (ss -ltnp 'sport = :{port}'), or use --port-map",
                ) from None


def _check_allowed(ports: Iterable[int]) -> None:
    """That this user may open them, the application's as well as its sidecar's.

    Raises:
        WeftError: one is below what the kernel leaves to ordinary users.
    """
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                raise WeftError(
                    f"port {port} may be opened by root only",
                    hint=f"let the application listen on 1024 or higher, or allow it: "
                    f"sysctl net.ipv4.ip_unprivileged_port_start={port}",
                ) from None
            except OSError:
                continue  # somebody has it there: another address may be free


def _block(slot: int) -> int:
    return HOST_BLOCK_FIRST_PORT + slot * HOST_BLOCK_SIZE


def _block_free(slot: int) -> bool:
    return _free("0.0.0.0", range(_block(slot), _block(slot) + HOST_BLOCK_SIZE))


def loopback(mesh: str, slot: int, *, peer: bool) -> str:
    """The address of a slot: where the application listens, or (``peer``) where its sidecar does.

    Each mesh and user has a part of its own, so that two of them on a machine seldom meet.
    """
    part = PEERS if peer else APPLICATIONS
    digest = hashlib.sha256(f"{mesh}/{os.getuid()}".encode()).digest()
    return f"127.{part[digest[0] % len(part)]}.{slot // 250}.{slot % 250 + 1}"


def host_address() -> str:
    """The address of this host that others reach it by: the source of its default route, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))  # sends nothing; TEST-NET is routed like any other
            found = str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
    return found


class Places:
    """Gives every workload its place by the capture chosen, and takes it back."""

    def __init__(self, layout: Layout, *, advertise: str | None = None) -> None:
        self.layout = layout
        self.advertise = advertise or host_address()
        self._slots = Slots(layout)
        self._hierarchy = Hierarchy.find() if os.geteuid() == 0 else None
        self._live: dict[str, Placement] = {}
        self._held: dict[str, tuple[int, ...]] = {}
        self._shared_ports: dict[str, frozenset[int]] = {}
        self.network: netns.Network | None = None
        self._making = asyncio.Lock()
        self._homes: dict[str, Path] = {}

    @property
    def cgroup_root(self) -> Path | None:
        """This mesh's cgroup, below which each workload has two."""
        return self._hierarchy.mount / f"weft-{self.layout.mesh}" if self._hierarchy else None

    def adopt(self, spec: WorkloadSpec, placement: Placement) -> None:
        """A placement that an earlier agent made."""
        self._live[spec.id] = placement
        if spec.shared_ports:
            self._shared_ports[spec.id] = frozenset(spec.port_map.values())

    async def take(
        self, spec: WorkloadSpec, choice: Choice, *, pid: int | None, proxy_uid: int | None
    ) -> Placement:
        """Find the workload its place. ``pid``: a process whose delegated cgroup may be built upon.

        Raises:
            WeftError: nothing free, or no right to make it.
        """
        if spec.kind == "router":
            opened = set(spec.port_map.values())
            if spec.shared_ports:
                opened -= {port for ports in self._shared_ports.values() for port in ports}
            _check_ports(opened, spec.address or "0.0.0.0")
            if spec.shared_ports:
                self._shared_ports[spec.id] = frozenset(spec.port_map.values())
            attachment = Attachment(
                capture=Capture.NONE,
                inbound_address=spec.address or "0.0.0.0",
                shared_ports=spec.shared_ports,
            )
            placement = Placement(
                choice=choice, address=spec.address or self.advertise, attachment=attachment
            )
        elif choice.mode is Mode.NETNS:
            placement = await self._namespace(spec, choice, proxy_uid)
        elif choice.mode is Mode.NFT:
            placement = self._host(spec, choice, pid)
        elif choice.mode is Mode.SECCOMP or spec.own_network:
            placement = self._private(spec, choice)
        else:
            placement = self._shared(spec, choice)
        self._live[spec.id] = placement
        self._held[spec.id] = tuple(spec.ports.values())
        return placement

    async def release(self, spec: WorkloadSpec, *, spare: Process | None = None) -> None:
        """Remove what ``take`` made, and whatever processes are left in it.

        ``spare`` is a wrapper that still has an exit code to pass on: it goes back where it came from.
        """
        placement = self._live.pop(spec.id, None)
        self._held.pop(spec.id, None)
        self._shared_ports.pop(spec.id, None)
        if placement is None:
            return
        if placement.netns is not None:
            await netns.remove_namespace(self.layout, placement.netns.name)
        home = self._homes.pop(spec.id, None)
        if spare is not None and placement.app_cgroup is not None and self._hierarchy is not None:
            with contextlib.suppress(OSError):
                if spare.alive():
                    cgroup.enter(home or self._hierarchy.mount, spare.pid)
        for group in (placement.app_cgroup, placement.proxy_cgroup):
            if group is not None:
                cgroup.remove(group, kill=True)
                with contextlib.suppress(OSError):
                    group.parent.rmdir()
                self.layout.drop_record("cgroup", _flat(group))

    async def close(self) -> None:
        """Remove the bridge and the cgroup of the mesh, when nothing is left in them."""
        if self.network is not None and not self._live:
            await netns.remove_network(self.layout, self.network.bridge)
            self.network = None
        if self.cgroup_root is not None:
            cgroup.remove(self.cgroup_root)

    def host_workloads(self, specs: dict[str, WorkloadSpec]) -> list[nft.HostWorkload]:
        """What the rules of the host must say now."""
        assert self._hierarchy is not None
        found = []
        for workload, placement in self._live.items():
            if placement.mode is not Mode.NFT or workload not in specs or placement.block is None:
                continue
            assert placement.app_cgroup is not None
            assert placement.proxy_cgroup is not None
            found.append(
                nft.HostWorkload(
                    name=workload,
                    app=self._hierarchy.group(placement.app_cgroup),
                    proxy=self._hierarchy.group(placement.proxy_cgroup),
                    outbound_port=placement.block + OUTBOUND,
                    inbound_port=placement.block + INBOUND,
                    dns_port=placement.block + DNS,
                    ports=tuple(sorted(set(specs[workload].ports.values()))),
                )
            )
        return found

    async def make_network(self) -> netns.Network:
        """The bridge for replicas with networks of their own; made at the first call."""
        async with self._making:
            if self.network is None:
                self.network = await netns.make_network(self.layout)
        return self.network

    def _groups(self, spec: WorkloadSpec, pid: int | None) -> tuple[Path, Path]:
        assert self._hierarchy is not None
        root = self.cgroup_root
        assert root is not None
        own = root / f"{spec.namespace}.{spec.name}"
        delegated = self._hierarchy.delegated_to(pid) if pid else None
        home = self._hierarchy.of_process(pid) if pid else None
        if home is not None:
            self._homes[spec.id] = home
        app = delegated / "weft-app" if delegated else own / "app"
        for group in (app, own / "proxy"):
            self.layout.write_record("cgroup", _flat(group), {"path": str(group)})
            cgroup.make(group)
        return app, own / "proxy"

    def _host(self, spec: WorkloadSpec, choice: Choice, pid: int | None) -> Placement:
        taken = {
            port: workload
            for workload, placement in self._live.items()
            if placement.mode is Mode.NFT
            for port in self._ports(workload)
        }
        for port in spec.ports.values():
            if port in taken:
                raise WeftError(
                    f"port {port} belongs to {taken[port]} on this host",
                    hint="let one of them listen on another port",
                )
        block = _block(self._slots.take(spec.id, _block_free, live=self._live))
        app, proxy = self._groups(spec, pid)
        attachment = Attachment(
            capture=Capture.REDIRECT,
            outbound_address="127.0.0.1",
            outbound_port=block + OUTBOUND,
            inbound_port=block + INBOUND,
        )
        return Placement(
            choice=choice,
            address=spec.address or self.advertise,
            attachment=attachment,
            app_cgroup=app,
            proxy_cgroup=proxy,
            block=block,
            dns_port=block + DNS,
        )

    def _ports(self, workload: str) -> Iterable[int]:
        if workload in self._held:
            return self._held[workload]
        record = self.layout.read_record("workload", workload.replace("/", ".")) or {}
        return [int(port) for port in dict(record.get("spec", {}).get("ports", {})).values()]

    async def _namespace(self, spec: WorkloadSpec, choice: Choice, proxy_uid: int | None) -> Placement:
        network = await self.make_network()
        taken = [record["address"] for _, record in self.layout.read_records("netns")]
        address = netns.free_address(network, taken)
        namespace = await netns.make_namespace(
            self.layout,
            network,
            f"{spec.namespace}.{spec.name}",
            address,
            nft.namespace_rules(proxy_uid or 0),
        )
        app, proxy = self._groups(spec, None) if self._hierarchy else (None, None)
        return Placement(
            choice=choice,
            address=address,
            attachment=Attachment(capture=Capture.REDIRECT, outbound_address="127.0.0.1"),
            netns=namespace.path,
            gateway=network.gateway,
            app_cgroup=app,
            proxy_cgroup=proxy,
            dns_port=DNS_PORT,
        )

    def _private(self, spec: WorkloadSpec, choice: Choice) -> Placement:
        """An address for the application alone; its sidecar takes its ports at another.

        By seccomp the application's binds are moved there; otherwise it is told, as HOST and PORT.
        """
        mesh = self.layout.mesh
        ports = sorted(set(spec.ports.values()))
        _check_allowed(ports)
        # A wrapper that comes back has its application there still; what `weft up` runs ended with its node.
        own = (OUTBOUND_PORT, INBOUND_PORT, *(ports if spec.own_network else ()))

        def usable(slot: int) -> bool:
            at = loopback(mesh, slot, peer=True)
            return _free(loopback(mesh, slot, peer=False), own) and _free(at, ports)

        slot = self._slots.take(spec.id, usable, live=self._live)
        app = loopback(mesh, slot, peer=False)
        if spec.own_network:
            address = loopback(mesh, slot, peer=True)
        else:
            address = spec.address or self.advertise
            for port in ports:
                if not _free(address, (port,)):
                    raise WeftError(
                        f"port {port} is in use on {address}",
                        hint=f"stop what listens there (ss -ltnp 'sport = :{port}'), or use another port",
                    )
        attachment = Attachment(
            capture=capture_of(choice.mode),
            outbound_address=app,
            inbound_address=address,
            app_address=app,
            inbound_ports=tuple((port, port) for port in ports),
            http_proxy_port=OUTBOUND_PORT if choice.mode is Mode.ENV else None,
        )
        return Placement(choice=choice, address=address, attachment=attachment)

    def _shared(self, spec: WorkloadSpec, choice: Choice) -> Placement:
        ports = sorted(set(spec.ports.values()))
        count = -(-(HEALTH + 1 + len(ports)) // HOST_BLOCK_SIZE)

        def usable(slot: int) -> bool:
            return all(_block_free(slot + further) for further in range(count))

        block = _block(self._slots.take(spec.id, usable, live=self._live))
        attachment = Attachment(
            capture=capture_of(choice.mode),
            outbound_address="127.0.0.1",
            outbound_port=block + OUTBOUND,
            inbound_port=block + INBOUND,
            app_address="127.0.0.1",
            inbound_ports=tuple((port, block + HEALTH + 1 + index) for index, port in enumerate(ports)),
            http_proxy_port=block + HTTP_PROXY if choice.mode is Mode.ENV else None,
        )
        return Placement(
            choice=choice, address=spec.address or self.advertise, attachment=attachment, block=block
        )


def _flat(group: Path) -> str:
    return hashlib.sha256(str(group).encode()).hexdigest()[:16]
