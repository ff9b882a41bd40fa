"""Capture for an ordinary user, with real programs in several languages; the sidecar is a stand-in that
reads PROXY v2 and says where the connection wanted to go."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.captured import Node, Sidecar, environment, interpreter, node, wrapped
from tests.support.envoy import wait_until

VIP = "240.240.0.7"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an ordinary user can enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="weft-capture-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def mesh(home: Path) -> Iterator[tuple[Node, Sidecar]]:
    with node(home) as pair:
        yield pair


def call(served: Node, *command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        wrapped(served, command),
        env=environment(served),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd or "/",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


PYTHON_ASYNC = """
import asyncio
async def one(n):
    r, w = await asyncio.open_connection("catalog", 8000 + n)
    w.write(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"); await w.drain()
    answer = (await r.read()).decode().rsplit("\\r\\n", 1)[1]; w.close(); return answer
async def main():
    print(*sorted(await asyncio.gather(*(one(n) for n in range(100)))))
asyncio.run(main())
"""
NODE = """
require("http").get("http://catalog:8080/", r => r.on("data", d => process.stdout.write(d)));
"""
JAVA = """
public class Call { public static void main(String[] a) throws Exception {
  System.out.print(new String(new java.net.URL("http://catalog:8080/").openStream().readAllBytes())); } }
"""
C = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
  int s = socket(AF_INET6, SOCK_STREAM, 0); char b[999] = {0}; size_t n = 0; ssize_t g;
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(8080)};
  inet_pton(AF_INET6, "2001:db8::7", &to.sin6_addr);
  if (connect(s, (void *)&to, sizeof to)) return perror("connect"), 1;
  if (write(s, "GET / HTTP/1.1\r\n\r\n", 18) != 18) return 2;
  while ((g = read(s, b + n, sizeof b - 1 - n)) > 0) n += g;
  puts(strstr(b, "\r\n\r\n") + 4);
  return connect(s, (void *)&to, sizeof to) == 0; /* connected already: must fail */
}
"""


class TestWhoConnects:
    def test_curl_by_name(self, mesh: tuple[Node, Sidecar]) -> None:
        served, sidecar = mesh
        assert call(served, "curl", "-sS", "http://catalog:8080/") == f"{VIP}:8080"
        assert sidecar.seen == [f"{VIP}:8080"]

    def test_a_hundred_connects_at_once(self, mesh: tuple[Node, Sidecar]) -> None:
        want = sorted(f"{VIP}:{8000 + number}" for number in range(100))
        assert call(mesh[0], interpreter(), "-c", PYTHON_ASYNC).split() == want

    @pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
    def test_node(self, mesh: tuple[Node, Sidecar]) -> None:
        assert call(mesh[0], "node", "-e", NODE) == f"{VIP}:8080"

    @pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")
    def test_java(self, mesh: tuple[Node, Sidecar], home: Path) -> None:
        (home / "Call.java").write_text(JAVA)
        subprocess.run(["javac", "Call.java"], cwd=home, check=True)
        assert call(mesh[0], "java", "-Xshare:auto", "-cp", str(home), "Call") == f"{VIP}:8080"

    @pytest.mark.skipif(shutil.which("etcdctl") is None, reason="needs etcd-client")
    def test_a_static_go_program(self, mesh: tuple[Node, Sidecar]) -> None:
        served, sidecar = mesh
        argv = wrapped(served, ["etcdctl", "--endpoints=catalog:2379", "--dial-timeout=2s", "get", "x"])
        go = environment(served, ETCDCTL_API="3")
        subprocess.run(argv, env=go, capture_output=True, timeout=60, check=False)
        assert f"{VIP}:2379" in sidecar.seen

    @pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
    def test_a_c_program_over_ipv6(self, mesh: tuple[Node, Sidecar], home: Path) -> None:
        (home / "call.c").write_text(C)
        subprocess.run(["gcc", "-o", "call", "call.c"], cwd=home, check=True)
        assert call(mesh[0], str(home / "call")) == "[2001:db8::7]:8080"

    def test_children_and_those_they_leave(self, mesh: tuple[Node, Sidecar]) -> None:
        script = "(setsid curl -sS http://catalog:81/ >&2 &); curl -sS http://catalog:82/"
        nested = "sh -c 'curl -sS http://catalog:83/'"
        assert call(mesh[0], "sh", "-c", f"{script}; {nested}") == f"{VIP}:82{VIP}:83"

    def test_what_must_not_be_captured(self, mesh: tuple[Node, Sidecar], home: Path) -> None:
        """Databases on localhost, Unix sockets, UDP."""
        served, sidecar = mesh
        script = f"""
import socket
s = socket.create_server(("0.0.0.0", 0)); c = socket.create_connection(("127.0.0.1", s.getsockname()[1]))
u = socket.socket(socket.AF_UNIX); u.connect({str(served.path)!r})
a = socket.socket(type=socket.SOCK_DGRAM); a.bind(("127.0.0.1", 0))
b = socket.socket(type=socket.SOCK_DGRAM); b.connect(a.getsockname()); b.send(b"x"); assert a.recv(9) == b"x"
print(c.getpeername()[0])
"""
        assert call(served, interpreter(), "-c", script) == "127.0.0.1"
        assert sidecar.seen == []

    def test_ways_around_are_closed(self, mesh: tuple[Node, Sidecar]) -> None:
        served, sidecar = mesh
        script = """
import ctypes, errno, os, socket
def tell(f):
    try: f(); print("open")
    except OSError as e: print(errno.errorcode[e.errno])
tell(lambda: socket.socket().sendto(b"x", 0x20000000, ("240.240.0.7", 80)))
tell(lambda: socket.socket().sendmsg([b"x"], [], 0x20000000, ("240.240.0.7", 80)))
tell(lambda: socket.create_connection(("127.65.1.1", 15001)))
libc = ctypes.CDLL(None, use_errno=True); libc.syscall(425, 1, 0); print(errno.errorcode[ctypes.get_errno()])
"""
        answers = call(served, interpreter(), "-c", script).split()
        assert answers == ["ENOTSUP", "ENOTSUP", "ECONNREFUSED", "ENOSYS"]
        assert sidecar.seen == []


SERVE = """
import socket, sys, threading
def serve(s, name):
    while True:
        c, _ = s.accept(); c.sendall(name); c.close()
for number, (family, host, only) in enumerate(eval(sys.argv[2])):
    s = socket.socket(family)
    if family == socket.AF_INET6: s.setsockopt(41, 26, only)
    s.setsockopt(1, 2, 1); s.bind((host, int(sys.argv[1]))); s.listen()
    threading.Thread(target=serve, args=(s, b"%d" % number), daemon=True).start()
for to in ("127.0.0.1", "localhost"):
    print(socket.create_connection((to, int(sys.argv[1]))).recv(9).decode(), flush=True)
sys.stdin.read()
"""


class TestWhereItListens:
    @pytest.mark.parametrize(
        "sockets",
        [
            "[(2, '0.0.0.0', 0)]",
            "[(2, '127.0.0.1', 0)]",
            "[(10, '::', 0)]",
            "[(10, '::1', 1)]",
            "[(2, '0.0.0.0', 0), (10, '::', 1)]",
            "[(10, '::', 1), (2, '0.0.0.0', 0)]",
        ],
    )
    def test_at_an_address_of_its_own(self, mesh: tuple[Node, Sidecar], sockets: str) -> None:
        served, sidecar = mesh
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            # The port is taken on localhost, by us: many applications may have the same.
            application = subprocess.Popen(
                wrapped(served, [interpreter(), "-c", SERVE, str(port), sockets]),
                env=environment(served),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
            )
            assert application.stdout is not None
            # It reaches itself by localhost …
            assert application.stdout.readline().strip() == "0"
            assert application.stdout.readline().strip() == "0"
            # … and its sidecar reaches it by its own address.
            with socket.create_connection((sidecar.listener.getsockname()[0], port), 5) as connection:
                assert connection.recv(9) == b"0"
            application.communicate("", timeout=10)
        assert application.returncode == 0
        assert sidecar.seen == []

    def test_an_asyncio_server(self, mesh: tuple[Node, Sidecar]) -> None:
        """It binds for both families, with SO_REUSEADDR, before it listens; and may begin again."""
        script = """
import asyncio
async def hello(r, w): w.write(b"hello"); w.close()
async def main():
    for _ in range(2):
        s = await asyncio.start_server(hello, None, 18098)
        r, w = await asyncio.open_connection("127.0.0.1", 18098)
        print((await r.read()).decode(), len(s.sockets)); w.close(); s.close(); await s.wait_closed()
asyncio.run(main())
"""
        assert call(mesh[0], interpreter(), "-c", script).split() == ["hello", "2"] * 2

    def test_twice_the_same_port_is_still_refused(self, mesh: tuple[Node, Sidecar]) -> None:
        script = """
import errno, socket
s = socket.create_server(("0.0.0.0", 18099))
try: socket.create_server(("127.0.0.1", 18099))
except OSError as e: print(errno.errorcode[e.errno])
"""
        assert call(mesh[0], interpreter(), "-c", script) == "EADDRINUSE"


class TestFailures:
    def test_a_full_backlog_holds_up_one_connect_only(self, home: Path) -> None:
        """The supervisor goes on while a connect waits."""
        with node(home, second=1, backlog=0) as (served, _):
            script = """
import socket, threading, time
def late(s):
    try: s.connect(("240.240.0.9", 80))
    except OSError: pass
held = [socket.socket() for _ in range(4)]
for s in held: threading.Thread(target=late, args=(s,), daemon=True).start()
t = socket.create_server(("0.0.0.0", 0)); began = time.monotonic()
for _ in range(20): socket.create_connection(("127.0.0.1", t.getsockname()[1])).close()
print(time.monotonic() - began < 0.8)
"""
            full = socket.create_server(("127.65.200.1", 0), backlog=0)
            served.place.update(outboundAddress="127.65.200.1", outboundPort=full.getsockname()[1])
            with full:
                assert call(served, interpreter(), "-c", script) == "True"

    def test_no_sidecar_means_refused(self, mesh: tuple[Node, Sidecar]) -> None:
        served, _ = mesh
        with socket.create_server((served.place["outboundAddress"], 0)) as gone:
            served.place["outboundPort"] = gone.getsockname()[1]
        argv = wrapped(served, ["curl", "-s", "http://catalog:8080/"])
        assert subprocess.run(argv, env=environment(served), timeout=20, check=False).returncode == 7

    def test_the_supervisors_end_is_the_applications(self, mesh: tuple[Node, Sidecar]) -> None:
        served, _ = mesh
        wrapper = subprocess.Popen(wrapped(served, ["sleep", "600"]), env=environment(served))
        wait_until(lambda: "started" in served.ops())
        pid = next(message["pid"] for message in served.told if message["op"] == "started")
        os.kill(wrapper.pid, signal.SIGKILL)
        wrapper.wait()
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))

    def test_without_names_it_runs_and_says_so(self, mesh: tuple[Node, Sidecar]) -> None:
        served, _ = mesh
        served.hosts.unlink()
        done = subprocess.run(
            wrapped(served, ["curl", "-sS", "http://240.240.0.7:81/"]),
            env=environment(served),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == "240.240.0.7:81"
        assert "names of the mesh are not visible here" in done.stderr

    def test_one_in_another_is_refused(self, mesh: tuple[Node, Sidecar]) -> None:
        served, _ = mesh
        inner = environment(served)
        argv = ["env", f"WEFT_RUN={inner['WEFT_RUN']}", *wrapped(served, ["true"])[-6:]]
        done = subprocess.run(
            wrapped(served, argv), env=inner, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 125
        assert "another supervisor" in done.stderr

    def test_names_change_while_it_runs(self, mesh: tuple[Node, Sidecar]) -> None:
        served, _ = mesh
        script = """
import socket, sys
for line in sys.stdin:
    print(socket.gethostbyname(line.strip()), flush=True)
"""
        with subprocess.Popen(
            wrapped(served, [interpreter(), "-c", script]),
            env=environment(served),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as application:
            assert application.stdin is not None
            assert application.stdout is not None
            for address in ("240.240.0.8", "240.240.0.9"):
                with served.hosts.open("r+") as same:
                    same.truncate()
                    same.write(f"127.0.0.1 localhost\n{address} orders\n")
                application.stdin.write("orders\n")
                application.stdin.flush()
                assert application.stdout.readline().strip() == address
            application.stdin.close()

    def test_what_it_leaves_behind_ends_with_it(self, mesh: tuple[Node, Sidecar], home: Path) -> None:
        mark = f"600.{os.getpid()}"
        began = time.monotonic()
        call(mesh[0], "sh", "-c", f"setsid sleep {mark} >/dev/null 2>&1 & true")
        assert time.monotonic() - began < 10
        left = [
            path
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _read(path).split(b"\0")[:2] == [b"sleep", mark.encode()]
        ]
        assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> str:
    found = _read(Path(f"/proc/{pid}/stat")).decode()
    return found.rpartition(")")[2].split()[0] if found else ""
