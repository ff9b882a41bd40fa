"""Places of workloads that share the host's network. Real sockets say what is free."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port

from weft.errors import UsageError, WeftError
from weft.ir.proxy import Capture
from weft.names import OUTBOUND_PORT
from weft.node.capture.choose import Host, choose
from weft.node.capture.loopback import APPLICATIONS, PEERS
from weft.node.layout import Layout
from weft.node.place import Places
from weft.node.spec import Placement, WorkloadSpec

HERE = Host(root=False, nft=False, ip=False, cgroup2=False)


def places(directory: Path) -> Places:
    layout = Layout(f"t{os.getpid()}", directory / "run", directory / "state")
    layout.prepare()
    return Places(layout, advertise="127.0.0.1")


def take(where: Places, name: str, capture: str, *, own_network: bool = True, port: int = 18080) -> Placement:
    spec = WorkloadSpec(name=name, ports={"http": port}, own_network=own_network)
    choice = choose(capture, HERE, own_network=own_network)
    return asyncio.run(where.take(spec, choice, pid=None, proxy_uid=None))


def second(address: str) -> int:
    return int(address.split(".")[1])


@pytest.mark.parametrize("capture", ["seccomp", "env", "none"])
def test_each_replica_has_an_address_and_its_application_another(tmp_path: Path, capture: str) -> None:
    where = places(tmp_path)
    first, other = take(where, "a", capture), take(where, "b", capture)
    assert len({first.address, other.address}) == 2
    assert len({first.attachment.app_address, other.attachment.app_address}) == 2
    for place in (first, other):
        assert second(place.address) in PEERS
        assert second(place.attachment.app_address) in APPLICATIONS
        assert place.attachment.inbound_address == place.address
        assert place.attachment.inbound_ports == ((18080, 18080),)


def test_proxy_variables_lead_to_the_door_beside_the_application(tmp_path: Path) -> None:
    attachment = take(places(tmp_path), "a", "env").attachment
    assert attachment.capture is Capture.PROXY_ENV
    assert attachment.outbound_address == attachment.app_address
    assert attachment.http_proxy_port == OUTBOUND_PORT


def test_on_the_hosts_network_the_application_stays_where_it_listens(tmp_path: Path) -> None:
    place = take(places(tmp_path), "a", "env", own_network=False)
    assert place.attachment.app_address == "127.0.0.1"
    (application, sidecar) = place.attachment.inbound_ports[0]
    assert application == 18080 != sidecar


def test_an_address_that_somebody_listens_at_is_left_to_them(tmp_path: Path) -> None:
    port = free_port()
    app = take(places(tmp_path / "1"), "a", "env", port=port).attachment.app_address
    with socket.create_server((app, port)):
        assert take(places(tmp_path / "2"), "a", "env", port=port).attachment.app_address != app


@pytest.mark.parametrize("capture", ["seccomp", "env"])
def test_a_port_below_1024_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capture: str
) -> None:
    if os.geteuid() == 0:  # root may: ask as the kernel would answer others
        real = socket.socket.bind

        def bind(self: socket.socket, address: tuple[str, int]) -> None:
            if 0 < address[1] < 1024:
                raise PermissionError(13, "Permission denied")
            real(self, address)

        monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(WeftError, match="port 80 may be opened by root only") as caught:
        take(places(tmp_path), "a", capture, port=80)
    assert "1024" in (caught.value.hint or "")


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="cgroups need root")
def test_two_that_come_at_once_for_a_port_do_not_both_get_it(tmp_path: Path) -> None:
    where = places(tmp_path)
    if where.cgroup_root is None:
        pytest.skip("no cgroup v2 here")
    choice = choose("nft", Host(root=True, nft=True, ip=True, cgroup2=True), own_network=False)
    first, other = (WorkloadSpec(name=name, ports={"http": 18080}) for name in ("a", "b"))

    async def both() -> None:
        await where.take(first, choice, pid=None, proxy_uid=None)
        try:
            with pytest.raises(WeftError, match="belongs to default/a"):
                await where.take(other, choice, pid=None, proxy_uid=None)
        finally:
            await where.release(first)
            await where.close()

    asyncio.run(both())


@pytest.mark.parametrize(
    "odd", [{"namespace": "a.b"}, {"kind": "both"}, {"concurrency": 100_000}, {"concurrency": 0}]
)
def test_what_no_workload_is(odd: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        WorkloadSpec(**{"name": "a", **odd})


def test_a_gateway_is_at_every_address_or_at_one_of_its_own(tmp_path: Path) -> None:
    where = places(tmp_path)
    port = free_port()
    edge = WorkloadSpec(name="edge", kind="router", port_map={80: port})
    choice = choose("none", HERE, own_network=False)
    found = asyncio.run(where.take(edge, choice, pid=None, proxy_uid=None))
    assert (found.address, found.attachment.inbound_address) == ("127.0.0.1", "0.0.0.0")
    with socket.socket() as held:
        held.bind(("0.0.0.0", port))
        with pytest.raises(WeftError, match="cannot be opened"):
            asyncio.run(where.take(edge, choice, pid=None, proxy_uid=None))

    def taken(name: str, address: str | None) -> Placement:
        spec = replace(edge, name=name, address=address, shared_ports=True)
        return asyncio.run(where.take(spec, choice, pid=None, proxy_uid=None))

    first = taken("a", None)
    with socket.socket() as held:  # as the first's Envoy has it
        held.bind(("0.0.0.0", port))
        apart = taken("b", "127.200.0.1")
        again = places(tmp_path)  # an agent that was started again
        again.adopt(replace(edge, name="a", shared_ports=True), first)
        spec = replace(edge, name="c", address="127.200.0.2", shared_ports=True)
        asyncio.run(again.take(spec, choice, pid=None, proxy_uid=None))
    assert (apart.address, apart.attachment.inbound_address) == ("127.200.0.1", "127.200.0.1")
    assert apart.attachment.shared_ports
