"""``weft run`` as an ordinary user: real programs in a mesh, what passes through, a node of one's own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support import spiffe_client
from tests.support.mesh import Mesh, Output, up, wait_until
from tests.support.ports import free_port
from tests.support.user import User, as_uid, interpreter, ordinary_user

MESH = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: web, labels: {{app: web}}}}
spec:
  command: [{python}, web.py, "8080"]
  ports: [{{name: http, port: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: kv}}
spec:
  selector: {{app: kv}}
  ports: [{{name: grpc, port: 2379}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: kv, labels: {{app: kv}}}}
spec:
  command: [{python}, kv.py]
  ports: [{{name: grpc, port: 2379}}]
"""
# The probe asks for a file that the test puts there.
GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: probed}
spec:
  metadata: {labels: {app: probed}}
  template: {}
  probe: {periodSeconds: 1, failureThreshold: 1, httpGet: {path: /ready, port: PORT}}
"""
AWAY = """
apiVersion: v1
kind: Service
metadata: {name: away, namespace: elsewhere}
spec:
  ports: [{name: http, port: 8080}]
"""
WEB = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "5"); self.end_headers()
        self.wfile.write(b"hello")
HTTPServer(("", int(sys.argv[1])), Hello).serve_forever()
"""
# The one call of etcd's API that `etcdctl get` makes (etcdserverpb.KV/Range), every value is "found".
KV = r"""
import grpc
from concurrent.futures import ThreadPoolExecutor
def found(request, context):
    key = request[2:2 + request[1]]
    kv = b"\x0a" + bytes([len(key)]) + key + b"\x2a\x05found"
    return b"\x12" + bytes([len(kv)]) + kv + b"\x20\x01"
server = grpc.server(ThreadPoolExecutor(2))
handler = {"Range": grpc.unary_unary_rpc_method_handler(found)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("etcdserverpb.KV", handler),))
server.add_insecure_port("0.0.0.0:2379")
server.start()
server.wait_for_termination()
"""
GET = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  char body[4096] = {0}; size_t n = 0; ssize_t got;
  if (count != 3 || getaddrinfo(words[1], words[2], &hints, &found)) return 2;
  int s = socket(found->ai_family, SOCK_STREAM, 0);
  if (connect(s, found->ai_addr, found->ai_addrlen)) return perror("connect"), 1;
  dprintf(s, "GET /from-c HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", words[1]);
  while ((got = read(s, body + n, sizeof body - 1 - n)) > 0) n += got;
  puts(strstr(body, "\r\n\r\n") + 4);
}
"""


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with ordinary_user() as made:
        yield made


@pytest.fixture(scope="module")
def mesh(user: User) -> Iterator[Mesh]:
    user.write("web.py", WEB)
    user.write("kv.py", KV)
    file = user.write("mesh.yaml", MESH.format(python=interpreter(user.uid)))
    with up(file, prefix=user.prefix, env=user.env, runtime_root=user.runtime_root) as running:
        yield running


def run(
    user: User, mesh: Mesh, name: str, *command: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    argv = ("run", "--mesh", mesh.name, "--name", name, "--service-account", name, "--", *command)
    return user.run(*argv, stdin=stdin)


def received(mesh: Mesh, workload: str, **fields: Any) -> list[dict[str, Any]]:
    """Requests that a workload's sidecar took from peers."""
    found = [json.loads(line) for line in mesh.log(workload).splitlines() if line.startswith("{")]
    fields["reporter"] = "destination"
    return [line for line in found if all(line.get(key) == value for key, value in fields.items())]


def seen(mesh: Mesh, workload: str, **fields: Any) -> dict[str, Any]:
    """The one request to it that has these fields."""
    (found,) = wait_until(partial(received, mesh, workload, **fields), f"{fields} in the log of {workload}")
    return found


class TestPrograms:
    def test_curl_and_what_is_said_of_the_capture(self, mesh: Mesh, user: User) -> None:
        done = run(user, mesh, "curl", "curl", "-sS", "http://web:8080/from-curl")
        assert (done.returncode, done.stdout) == (0, "hello"), done.stderr
        assert "capture seccomp (not root)" in done.stderr
        assert "not covered: UDP" in done.stderr
        hop = seen(mesh, "default.web-0", path="/from-curl")
        assert hop["downstream_peer_principal"] == "spiffe://cluster.local/ns/default/sa/curl"
        assert hop["downstream_tls_version"] == "TLSv1.3"

    @pytest.mark.skipif(shutil.which("etcdctl") is None, reason="needs etcd-client")
    def test_a_static_go_program_over_grpc(self, mesh: Mesh, user: User) -> None:
        done = run(
            user, mesh, "etcdctl", "env", "ETCDCTL_API=3", "etcdctl", "--endpoints=kv:2379", "get", "x"
        )
        assert (done.returncode, done.stdout) == (0, "x\nfound\n"), done.stderr
        hop = seen(mesh, "default.kv-0", path="/etcdserverpb.KV/Range")
        assert hop["downstream_peer_principal"] == "spiffe://cluster.local/ns/default/sa/etcdctl"
        assert hop["protocol"] == "HTTP/2"

    @pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
    def test_a_c_program(self, mesh: Mesh, user: User) -> None:
        source, program = user.write("get.c", GET), user.home / "get"
        subprocess.run(["gcc", "-o", program, source], check=True)
        done = run(user, mesh, "c", str(program), "web", "8080")
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
        hop = seen(mesh, "default.web-0", path="/from-c")
        assert hop["downstream_peer_principal"] == "spiffe://cluster.local/ns/default/sa/c"

    def test_a_server_is_called_by_its_service_and_leaves_with_its_process(
        self, mesh: Mesh, user: User
    ) -> None:
        port = str(free_port())
        argv = ("run", "--mesh", mesh.name, "--service", "late", "--name", "late", "--port", f"http:{port}")
        server = subprocess.Popen(
            user.weft(*argv, "--", interpreter(user.uid), str(user.home / "web.py"), port),
            env={**os.environ, **user.env}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        call = ("call", "--mesh", mesh.name, "--from", "web-0", f"http://late:{port}/")
        wait_until(lambda: mesh.run(*call).stdout == "hello\n", "the answer of the server")
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)
        assert server.returncode == 143, said
        rows = json.loads(mesh.weft("ps", "--mesh", mesh.name, "-o", "json"))
        assert {row["name"] for row in rows} == {"web-0", "kv-0"}

    def test_the_probe_of_a_group_tells_when_a_server_is_ready(self, mesh: Mesh, user: User) -> None:
        port = str(free_port())
        mesh.weft("apply", "-", stdin=GROUP.replace("PORT", port))
        files = user.home / "files"
        argv = ("run", "--mesh", mesh.name, "--group", "probed", "--name", "probed", "--port", f"http:{port}")
        serve = (interpreter(user.uid), "-m", "http.server", "-d", str(files), port)
        with subprocess.Popen(
            user.weft(*argv, "--", "sh", "-c", f"mkdir -p {files}; exec {' '.join(serve)}"),
            env={**os.environ, **user.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as server:  # fmt: skip
            try:

                def row() -> dict[str, Any]:
                    return mesh.rows().get("default/probed", {})

                wait_until(lambda: "not ready" in row().get("message", ""), "the probe to fail")
                assert not row()["ready"]
                (files / "ready").touch()
                wait_until(lambda: row().get("ready"), "the probe to succeed")
            finally:
                server.send_signal(signal.SIGTERM)


class TestWhatPassesThrough:
    def test_streams_and_the_exit_code(self, mesh: Mesh, user: User) -> None:
        script = "read a; echo out $a; echo err $a >&2; exit 7"
        done = run(user, mesh, "streams", "sh", "-c", script, stdin="in\n")
        assert (done.returncode, done.stdout) == (7, "out in\n")
        assert "err in\n" in done.stderr

    @pytest.mark.parametrize(
        ("command", "code"), [("exec sleep 600", 143), ("trap 'exit 3' TERM; while :; do sleep 0.1; done", 3)]
    )
    def test_a_signal_and_what_the_program_makes_of_it(
        self, mesh: Mesh, user: User, command: str, code: int
    ) -> None:
        argv = ("run", "--mesh", mesh.name, "--name", "signal", "-q", "--", "sh", "-c", f"echo go; {command}")
        with subprocess.Popen(
            user.weft(*argv), env={**os.environ, **user.env}, stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "go\n"
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == code

    @pytest.mark.parametrize(("command", "code"), [("weft-has-no-such-program", 127), ("/etc/passwd", 126)])
    def test_a_command_that_cannot_be_executed(self, mesh: Mesh, user: User, command: str, code: int) -> None:
        done = run(user, mesh, "wrong", command)
        assert done.returncode == code
        assert command in done.stderr


class Terminal:
    """A shell on a pseudo terminal, with job control."""

    def __init__(self, user: User) -> None:
        self.said = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            env = {**os.environ, **user.env, "PS1": "$ ", "TERM": "dumb", "HISTFILE": ""}
            argv = [*as_uid(user.uid), "bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvpe(argv[0], argv, env)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Read on until this comes; what came before it is forgotten."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.said)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.said!r}"
            if select.select([self._fd], [], [], left)[0]:
                self.said += os.read(self._fd, 4096).decode(errors="replace")
        self.said = self.said[match.end() :]
        return match

    def close(self) -> None:
        os.close(self._fd)
        os.waitpid(self._pid, 0)


class TestTerminal:
    def test_it_has_the_terminal_and_is_stopped_and_continued_as_one_job(
        self, mesh: Mesh, user: User
    ) -> None:
        program = user.write(
            "ask.sh", "trap 'echo caught; exit 9' INT\ntty\nwhile :; do read line; echo \"<$line>\"; done\n"
        )
        weft = " ".join(
            user.weft("run", "--mesh", mesh.name, "--name", "tty", "-q", "--")[len(user.prefix) :]
        )
        python = interpreter(user.uid)
        terminal = Terminal(user)
        try:
            terminal.type(f"{python} {weft.split(' ', 1)[1]} sh {program}\n")
            terminal.wait_for(r"/dev/pts/\d+")
            terminal.type("one\n")
            terminal.wait_for("<one>")
            terminal.type("\x1a")
            terminal.wait_for("Stopped")
            terminal.type("echo the shell $((40 + 2))\n")
            terminal.wait_for("the shell 42")
            terminal.type("fg\n")
            terminal.wait_for("ask.sh")
            terminal.type("two\n")
            terminal.wait_for("<two>")
            terminal.type("\x03")
            terminal.wait_for("caught")
            terminal.type("echo code $?\n")
            assert terminal.wait_for(r"code (\d+)")[1] == "9"
            terminal.type("exit\n")
        finally:
            terminal.close()


@contextmanager
def control_plane(user: User) -> Iterator[tuple[int, Path]]:
    """One of this user's on loopback; its API's port and its Unix socket."""
    api, home = free_port(), user.home / "control"
    argv = [
        "control-plane", "--mesh", "far", "--runtime-dir", str(home), "--state-dir", str(home / "state"),
        "--listen", "127.0.0.1", "--advertise", "127.0.0.1", "--api-port", str(api), "--xds-port", "0",
        "--monitoring-port", "0", "--telemetry-port", "0",
    ]  # fmt: skip
    process = subprocess.Popen(
        user.weft(*argv), env={**os.environ, **user.env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    output = Output(process)
    try:
        output.wait_for("kubectl")
        yield api, home / "api.sock"
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


class TestANodeOfOnesOwn:
    def test_it_is_started_and_found_again(self, user: User) -> None:
        with control_plane(user) as (port, sock):
            server = {"WEFT_SERVER": str(sock)}
            applied = user.run("apply", str(user.write("away.yaml", AWAY)), env=server)
            assert applied.returncode == 0, applied.stderr
            token = user.run("token", "create", env=server).stdout.strip()
            given = {"WEFT_TOKEN": token, "WEFT_CONTROL_PLANE": f"127.0.0.1:{port}"}
            own = f"own{os.getpid()}"
            # The node was told the names before it could ask for them.
            script = 'echo "token: $WEFT_TOKEN."; getent hosts away.elsewhere; exit 7'
            done = user.run("run", "--mesh", own, "--name", "first", "--", "sh", "-c", script, env=given)
            assert done.returncode == 7, done.stderr
            assert "starting one for this user" in done.stderr
            assert re.match(r"token: \.\n240\.240\.\S+ +away\.elsewhere", done.stdout), done.stdout
            # The second finds it, and needs no token.
            again = user.run("run", "--mesh", own, "--name", "second", "--", "sh", "-c", "exit 8")
            assert again.returncode == 8, again.stderr
            assert "starting one" not in again.stderr
            nodes = {pid: line for pid, line in user.processes().items() if f"weft node --mesh {own}" in line}
            (node,) = nodes
            assert "weft1." not in nodes[node]
            assert json.loads(user.run("ps", "--mesh", own, "-o", "json").stdout) == []
            os.kill(node, signal.SIGTERM)
            wait_until(lambda: own not in " ".join(user.processes().values()), "the end of the node")

    def test_without_a_token_it_says_what_to_do(self, user: User) -> None:
        done = user.run("run", "--mesh", f"lost{os.getpid()}", "--", "true")
        assert done.returncode == 1
        assert "has not joined a mesh yet" in done.stderr
        assert "--token" in done.stderr
        assert not any(" weft " in line for line in user.processes().values() if "lost" in line)


def test_an_application_fetches_its_own_identity(user: User, mesh: Mesh) -> None:
    client = user.write("spiffe_client.py", Path(spiffe_client.__file__).read_text())
    fetch = f'exec {interpreter(user.uid)} {client} "${{SPIFFE_ENDPOINT_SOCKET#unix://}}"'
    done = run(user, mesh, "svid", "sh", "-c", fetch, stdin='{"x509": true}\n{"jwt": ["bank"]}\n')
    assert done.returncode == 0, done.stderr
    certificate, token = map(json.loads, done.stdout.splitlines())
    assert certificate["id"] == token["id"] == "spiffe://cluster.local/ns/default/sa/svid"
    # Who runs beside it and is no workload gets nothing.
    socket = mesh.runtime / "workload.sock"
    stranger = subprocess.run(
        [*user.prefix, interpreter(user.uid), str(client), str(socket)],
        env={**os.environ, **user.env},
        input='{"raw": "/SpiffeWorkloadAPI/FetchX509SVID", "metadata": [["workload.spiffe.io", "true"]]}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(stranger.stdout)["code"] == "PERMISSION_DENIED", stranger.stderr
