"""Capture by nft with real processes: who reaches whom, by which way, and who is refused.

The stand-in for a sidecar only says where a connection wanted to go (SO_ORIGINAL_DST), so that each rule is
seen by itself; `test_node.py` has the whole path with Envoys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from weft.names import INBOUND_SOURCE
from weft.node.capture import cgroup, netns, nft
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.command import run
from weft.node.layout import Layout
from weft.node.probe import Probe, Target, TcpSocket, check

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

# argv: outbound port, inbound port, DNS port, the address that the application shall see.
# Inbound: asks the application at the original destination.
SIDECAR = """
import socket, struct, sys, threading
outbound, inbound, dns = map(int, sys.argv[1:4]); source = (sys.argv[4], 0)
def original(c):
    raw = c.getsockopt(socket.SOL_IP, 80, 16)
    return socket.inet_ntoa(raw[4:8]) + ":" + str(struct.unpack("!H", raw[2:4])[0])
def serve(port, answer, address):
    s = socket.create_server((address, port))
    while True:
        c, peer = s.accept()
        threading.Thread(target=one, args=(c, peer, answer)).start()
def one(c, peer, answer):
    with c: c.sendall(answer(c).encode())
def out(c): return "out " + original(c)
def into(c):
    host, port = original(c).split(":")
    if int(port) == inbound: return "to itself"
    with socket.create_connection((host, int(port)), 5, source) as app: return "in " + app.recv(100).decode()
def names():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", dns))
    while True:
        data, peer = u.recvfrom(100); u.sendto(b"dns " + data, peer)
for port, answer, address in ((outbound, out, "127.0.0.1"), (inbound, into, "0.0.0.0")):
    threading.Thread(target=serve, args=(port, answer, address)).start()
names()
"""
APP = """
import socket, sys, threading
def serve(port):
    s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=200)
    while True:
        c, _ = s.accept()
        with c: c.sendall(b"app")
for port in sys.argv[1:]: threading.Thread(target=serve, args=(int(port),)).start()
"""
CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as c:
        print(c.recv(100).decode() or "closed")
except ConnectionRefusedError: print("refused")
except ConnectionResetError: print("reset")
except TimeoutError: print("timeout")
except OSError as error:
    if error.errno != 99: raise  # our own address of that link is not ready yet: says nothing
"""
ASK = """
import socket, sys
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(3)
u.sendto(b"who", (sys.argv[1], 53)); print(u.recv(100).decode())
"""


def enter(group: Path | None) -> list[str]:
    return ["sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh"] if group else []


@dataclass
class Host:
    mesh: str
    root: Path
    remote: netns.Namespace
    network: netns.Network
    layout: Layout
    web: nft.HostWorkload
    web_app: Path
    shop_app: Path
    hidden: int
    workloads: list[nft.HostWorkload]

    async def run_python(self, prefix: list[str], code: str, *args: object) -> str:
        child = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-ISc", code, *map(str, args), stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(child.communicate(), 15)
        return out.decode().strip()

    async def call(self, group: Path | None, address: str, port: int) -> str:
        return await self.run_python(enter(group), CALL, address, port)

    async def call_remotely(self, port: int) -> str:
        prefix = ["nsenter", f"--net={self.remote.path}"]
        return await self.run_python(prefix, CALL, self.network.gateway, port)


def start(children: list[subprocess.Popen[bytes]], prefix: list[str], code: str, *args: object) -> None:
    children.append(subprocess.Popen([*prefix, "/usr/bin/python3", "-ISc", code, *map(str, args)]))


async def said(port: int) -> str:
    """What the application says to a connection with the mark of probes."""
    probe = socket.socket()
    probe.setblocking(False)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, nft.PROBE_MARK)
    await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=probe)
    answer = (await reader.read(100)).decode()
    writer.close()
    return answer


def free_ports(count: int) -> list[int]:
    """Below the ephemeral ports, which connections of other tests take at any moment."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            found.append(port)
    return found


async def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        assert time.monotonic() < deadline, f"nobody listens on {port}"
        await asyncio.sleep(0.02)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    mesh = f"t{uuid.uuid4().hex[:8]}"
    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    root = hierarchy.mount / f"weft-{mesh}"
    children: list[subprocess.Popen[bytes]] = []
    async with contextlib.AsyncExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        layout = Layout(mesh, base / "run" / mesh, base / "state" / mesh)
        layout.prepare()
        network = await netns.make_network(layout)
        stack.push_async_callback(netns.remove_network, layout, network.bridge)
        remote = await netns.make_namespace(
            layout, network, "remote", netns.free_address(network, ()), "table inet nothing\n"
        )
        stack.push_async_callback(netns.remove_namespace, layout, remote.name)
        stack.callback(cgroup.remove, root, kill=True)
        stack.push_async_callback(nft.drop, mesh)

        @stack.callback
        def end() -> None:
            for child in children:
                child.kill()
                child.wait()

        workloads = []
        for name in ("web", "shop"):
            app, proxy = (cgroup.make(root / name / part) for part in ("app", "proxy"))
            outbound, inbound, dns, port, hidden = free_ports(5)
            workloads.append(
                nft.HostWorkload(
                    name=name,
                    app=hierarchy.group(app),
                    proxy=hierarchy.group(proxy),
                    outbound_port=outbound,
                    inbound_port=inbound,
                    dns_port=dns,
                    ports=(port,),
                )
            )
            ports = [str(number) for number in (outbound, inbound, dns)] + [INBOUND_SOURCE]
            start(children, enter(proxy), SIDECAR, *ports)
            start(children, enter(app), APP, port, hidden)
            for number in (outbound, inbound, port, hidden):
                await wait_for(number)
        await nft.apply(nft.host_rules(mesh, workloads))
        yield Host(
            mesh=mesh,
            root=root,
            remote=remote,
            network=network,
            layout=layout,
            web=workloads[0],
            web_app=root / "web" / "app",
            shop_app=root / "shop" / "app",
            hidden=hidden,
            workloads=workloads,
        )
    assert not root.exists()
    assert not [name for name in await nft.tables() if mesh in name]
    assert not Path(f"/sys/class/net/{network.bridge}").exists()


async def test_who_reaches_whom(host: Host) -> None:
    port, gateway = host.web.ports[0], host.network.gateway
    got = {
        "out": await host.call(host.web_app, "240.240.0.9", 80),
        "own port": await host.call(host.web_app, "127.0.0.1", port),
        "own port by the host's address": await host.call(host.web_app, gateway, port),
        "unmeshed, loopback": await host.call(None, "127.0.0.1", port),
        "unmeshed, the host's address": await host.call(None, gateway, port),
        "another workload, loopback": await host.call(host.shop_app, "127.0.0.1", port),
        "another workload's way out": await host.call(host.shop_app, "127.0.0.1", host.web.outbound_port),
        "unmeshed, a workload's way out": await host.call(None, "127.0.0.1", host.web.outbound_port),
        "remote": await host.call_remotely(port),
        "remote, an undeclared port": await host.call_remotely(host.hidden),
        "its own sidecar, not delivering": await host.call(host.root / "web" / "proxy", "127.0.0.1", port),
        "a probe": await said(port),
    }
    assert got == {
        "out": "out 240.240.0.9:80",
        "own port": "app",
        "own port by the host's address": "app",
        "unmeshed, loopback": "in app",
        "unmeshed, the host's address": "in app",
        "another workload, loopback": "in app",
        "another workload's way out": "refused",
        "unmeshed, a workload's way out": "refused",
        "remote": "in app",
        "remote, an undeclared port": "in app",
        "its own sidecar, not delivering": "in app",
        "a probe": "app",
    }


async def test_capture_cannot_be_walked_around(host: Host) -> None:
    """By whatever address or port: strangers get to the sidecar or nowhere; the application itself may."""
    shop = host.workloads[1]
    port, hidden = shop.ports[0], host.hidden
    other_user = [*enter(None), "setpriv", "--reuid=65534", "--clear-groups"]
    aliases = ("127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1", host.network.gateway)
    got = {
        f"{who}, {address}, {what}": await host.run_python(prefix, CALL, address, number)
        for who, prefix in (
            ("a stranger", enter(None)),
            ("another user", other_user),
            ("another's sidecar", enter(host.root / "web" / "proxy")),
            ("itself", enter(host.shop_app)),
        )
        for address in (*aliases, "::1")
        for what, number in (("declared", port), ("undeclared", hidden))
    }
    out = f"out {aliases[-1]}:{hidden}"
    expected = {
        f"{who}, {address}, {what}": (out if (address, what) == (aliases[-1], "undeclared") else "app")
        if who == "itself"
        # The stand-in has no IPv6, and to ports that nobody declared there is no way from this host.
        else ("in app" if what == "declared" and address != "::1" else "refused")
        for who in ("a stranger", "another user", "another's sidecar", "itself")
        for address in (*aliases, "::1")
        for what in ("declared", "undeclared")
    }
    assert got == expected
    # The sidecar's own ports lead to no application, whoever asks.
    for group in (None, host.web_app, host.shop_app):
        assert await host.call(group, "127.0.0.1", shop.inbound_port) == "to itself"
    assert await host.call(host.web_app, "127.0.0.1", shop.outbound_port) == "refused"


async def test_a_call_between_workloads_by_the_hosts_address_goes_out_first(host: Host) -> None:
    port = host.web.ports[0]
    assert await host.call(host.shop_app, host.network.gateway, port) == f"out {host.network.gateway}:{port}"


async def test_names_are_asked_of_the_meshs_resolver(host: Host) -> None:
    assert await host.run_python(enter(host.web_app), ASK, "203.0.113.53") == "dns who"


async def test_without_the_nat_table_the_mesh_is_closed(host: Host) -> None:
    await run("nft", "delete", "table", "inet", nft.table_name(host.mesh))
    port = host.web.ports[0]
    assert await host.call(None, "127.0.0.1", port) == "refused"
    assert await host.call(host.shop_app, "127.0.0.1", port) == "refused"
    assert await host.call_remotely(port) == "refused"
    assert await host.call(host.web_app, "127.0.0.1", port) == "app"
    assert await host.call_remotely(host.hidden) == "refused"


async def test_reloading_the_rules_breaks_no_connection(host: Host) -> None:
    port = host.web.ports[0]
    done, failed = 0, 0

    async def load() -> None:
        nonlocal done, failed
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = await asyncio.wait_for(reader.read(100), 5)
            done += 1
            failed += said != b"in app"
            writer.close()

    stop = asyncio.Event()
    loads = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(20):
        await nft.apply(nft.host_rules(host.mesh, host.workloads))
    stop.set()
    await asyncio.gather(*loads)
    assert done > 20
    assert failed == 0


async def link_local(namespace: netns.Namespace) -> str:
    """The IPv6 address that every link has, as another replica dials it."""
    enter_it = ("nsenter", f"--net={namespace.path}")
    rows = json.loads(await run(*enter_it, "ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"))
    (address,) = [row["local"] for row in rows[0]["addr_info"]]
    return f"{address}%eth0"


async def test_a_replicas_own_network(host: Host) -> None:
    """Outbound and inbound are redirected, but for the sidecar's uid and the node's probes."""
    address = netns.free_address(host.network, (host.remote.address,))
    uid = 61001
    rules = nft.namespace_rules(uid)
    namespace = await netns.make_namespace(host.layout, host.network, "pod", address, rules)
    children: list[subprocess.Popen[bytes]] = []
    try:
        inside = ["nsenter", f"--net={namespace.path}"]
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        ports = ("15001", "15006", "15053", INBOUND_SOURCE)
        start(children, [*inside, *drop], SIDECAR, *ports)
        start(children, inside, APP, 80, 81)
        other = ["setpriv", "--reuid=65534", "--clear-groups"]
        deadline = time.monotonic() + 10
        while await host.run_python(inside, CALL, "240.240.0.9", 80) == "refused":
            assert time.monotonic() < deadline
        while await host.run_python(inside, CALL, "127.0.0.1", 80) == "refused":
            assert time.monotonic() < deadline
        remotely = ["nsenter", f"--net={host.remote.path}"]
        by_link = await link_local(namespace)
        while not (over_link := await host.run_python(remotely, CALL, by_link, 80)):
            assert time.monotonic() < deadline, "the link's addresses are never ready"
        got = {
            "out": await host.run_python(inside, CALL, "240.240.0.9", 443),
            "loopback": await host.run_python(inside, CALL, "127.0.0.1", 80),
            "names": await host.run_python(inside, ASK, "203.0.113.53"),
            "from another replica": await host.run_python(remotely, CALL, address, 80),
            "the host": await host.call(None, address, 80),
            "another user, loopback": await host.run_python([*inside, *other], CALL, "127.0.0.1", 80),
            "another user, out": await host.run_python([*inside, *other], CALL, "240.240.0.9", 80),
            "from another replica, undeclared": await host.run_python(remotely, CALL, address, 81),
            "from another replica, by the link's IPv6 address": over_link,
            "its sidecar's way out, from outside": await host.run_python(remotely, CALL, address, 15001),
            "its sidecar's way in, from outside": await host.run_python(remotely, CALL, address, 15006),
            "a probe": await check(
                Probe(handler=TcpSocket(port=80)), Target(address=address, netns=namespace.path)
            ),
        }
        assert got == {
            "out": "out 240.240.0.9:443",
            "loopback": "app",
            "names": "dns who",
            "from another replica": "in app",
            "the host": "in app",
            "another user, loopback": "app",
            "another user, out": "out 240.240.0.9:80",
            "from another replica, undeclared": "in app",
            "from another replica, by the link's IPv6 address": "refused",
            "its sidecar's way out, from outside": "closed",
            "its sidecar's way in, from outside": "to itself",
            "a probe": "",
        }
        # Without the redirections there is no way in or out but the sidecar's.
        await run("nsenter", f"--net={namespace.path}", "nft", "delete", "table", "inet", "weft")
        closed = {
            "out": await host.run_python(inside, CALL, host.network.gateway, host.workloads[0].ports[0]),
            "from another replica": await host.run_python(remotely, CALL, address, 80),
            "loopback": await host.run_python(inside, CALL, "127.0.0.1", 80),
        }
        assert closed == {"out": "refused", "from another replica": "refused", "loopback": "app"}
    finally:
        for child in children:
            child.kill()
            child.wait()
        await netns.remove_namespace(host.layout, namespace.name)
    assert not namespace.path.exists()
