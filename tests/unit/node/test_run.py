"""The wrapper with real processes: what passes through it, and what it says to its node."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.captured import Node, environment, node, wrapped
from tests.support.envoy import wait_until

from weft.cli.run import default_name, read_pairs, read_ports, read_scrape
from weft.errors import UsageError
from weft.node.run import launcher
from weft.node.run_node import Link, NodeError, await_node, socket_paths, start_node


@pytest.fixture
def served() -> Iterator[Node]:
    """A node that captures nothing: these tests are about the process."""
    with tempfile.TemporaryDirectory(prefix="weft-run-") as made, node(Path(made), second=2) as (found, _):
        found.capture = "env"
        yield found


def run(served: Node, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = wrapped(served, command, user=False)
    env = environment(served)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload,no-any-return]


def start(served: Node, *command: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        wrapped(served, command, user=False), env=environment(served), stdout=subprocess.PIPE
    )
    wait_until(lambda: "started" in served.ops())
    return process


def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)])
def test_the_exit_code_passes_through(served: Node, script: str, code: int) -> None:
    assert run(served, "sh", "-c", script).returncode == code
    assert served.ops() == ["join", "started", "exited"]
    assert served.told[-1]["code"] == code


def test_streams_and_environment_pass_through(served: Node) -> None:
    served.env = {"http_proxy": "http://127.0.0.1:1"}
    done = run(served, "sh", "-c", "cat; echo $http_proxy $WEFT_RUN; echo err >&2", input="in\n")
    assert (done.stdout, done.stderr) == ("in\nhttp://127.0.0.1:1\n", "err\n")


@pytest.mark.parametrize(("command", "code"), [("/nonexistent/x", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed(served: Node, command: str, code: int) -> None:
    done = run(served, command)
    assert done.returncode == code
    assert command in done.stderr
    assert served.ops()[-1] == "exited"


def test_a_refusal_is_told_with_its_remedy(served: Node) -> None:
    served.refuse = {"message": "that name is taken", "hint": "choose another", "exitCode": 1}
    done = run(served, "true")
    assert (done.returncode, done.stderr) == (1, "error: that name is taken\n  choose another\n")


def test_term_drains_first(served: Node) -> None:
    served.drain.clear()
    process = start(served, "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    ready(process)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "leave" in served.ops())
    assert process.poll() is None
    served.drain.set()
    assert process.wait(10) == 5


def test_a_second_term_does_not_wait(served: Node) -> None:
    served.drain.clear()
    process = start(served, "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    ready(process)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "leave" in served.ops())
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 5


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH])
def test_other_signals_pass_at_once(served: Node, number: signal.Signals) -> None:
    script = f"trap 'exit 6' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    # A shell cannot trap what is ignored from the start, as SIGHUP is for all that nohup begins.
    process = start(served, "env", f"--default-signal={number.name[3:]}", "sh", "-c", script)
    ready(process)
    process.send_signal(number)
    assert process.wait(10) == 6
    assert "leave" not in served.ops()


def test_a_job_stops_and_goes_on_as_one(served: Node) -> None:
    process = start(served, "sh", "-c", "echo ready; kill -STOP $$; exit 4")
    ready(process)

    def state() -> str:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    wait_until(lambda: state() == "T", what="the wrapper to stop with its application")
    process.send_signal(signal.SIGCONT)
    assert process.wait(10) == 4


def test_the_terminal_is_the_applications(served: Node) -> None:
    """Ctrl-C reaches it once, by the terminal's driver, and not again by the wrapper."""
    program = """
import signal, sys, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("tty", sys.stdin.isatty(), flush=True)
while not seen: time.sleep(0.01)
time.sleep(0.3)
print("seen", len(seen), flush=True)
"""
    argv = wrapped(served, [sys.executable, "-c", program], user=False)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, environment(served))
    said = b""
    while b"tty True" not in said:
        said += os.read(terminal, 999)
    os.write(terminal, b"\x03")
    while b"seen" not in said:
        said += os.read(terminal, 999)
    assert b"seen 1" in said
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_the_node_may_end_it(served: Node) -> None:
    process = start(served, "sleep", "600")
    served.tell({"event": "stop", "reason": "the liveness probe failed"})
    assert process.wait(10) == 128 + signal.SIGTERM


def test_it_survives_its_node_and_comes_back(served: Node) -> None:
    process = start(served, "sleep", "600")
    served.hang_up()
    wait_until(lambda: served.ops().count("join") == 2, what="the wrapper to join again")
    assert [message["resume"] for message in served.told if message["op"] == "join"] == [False, True]
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


def test_without_a_node(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "WEFT_NODE_SOCKET": str(tmp_path / "none.sock")}
    env["WEFT_RUN"] = json.dumps({"join": {"name": "web"}})
    done = subprocess.run(
        [*launcher(), "--", "true"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "no node listens at" in done.stderr
    assert "weft node" in done.stderr


def test_it_is_small(served: Node) -> None:
    """DESIGN: at most 15 MB."""
    process = start(served, "sleep", "600")
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    process.terminate()
    process.wait(10)
    assert resident_kb <= 15 * 1024


def test_it_loads_the_standard_library_only() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import weft.node.run; print('\\n'.join(sys.modules))"
    source = str(Path(launcher()[-1]).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, check=True
    )
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert names <= sys.stdlib_module_names | {"weft", "__main__", "sitecustomize", "zipimport"}
    assert not names & {"asyncio", "pathlib", "dataclasses", "inspect", "subprocess", "tempfile"}


def test_where_a_node_may_be() -> None:
    assert socket_paths("m", {"WEFT_NODE_SOCKET": "/x"}) == ["/x"]
    assert socket_paths("m", {})[-1] == "/run/weft/m/node.sock"


def test_options() -> None:
    assert read_ports(("http:9080", "7000")) == {"http": 9080, "tcp-7000": 7000}
    assert read_pairs("--label", ("a=b,c=d", "e=")) == {"a": "b", "c": "d", "e": ""}
    assert default_name(("/usr/bin/Python3.11", "-m")) == "python3-11"
    for wrong in ("http", ":80", "http:0", "http:65536", "http:-1"):
        with pytest.raises(UsageError):
            read_ports((wrong,))
    with pytest.raises(UsageError):
        read_pairs("--label", ("app",))
    assert read_scrape("9090") == {"port": 9090, "path": "/metrics"}
    assert read_scrape("9090/all/of?it=1") == {"port": 9090, "path": "/all/of?it=1"}
    for wrong in ("/metrics", "0", "99999/x", "http://x"):
        with pytest.raises(UsageError):
            read_scrape(wrong)


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    log = str(tmp_path / "own" / "node.log")
    failing = [sys.executable, "-c", "raise SystemExit('no token')"]
    with pytest.raises(NodeError, match="no token"):
        await_node(start_node(failing, {}, log), [str(tmp_path / "node.sock")], log)


def test_a_started_node_is_nobodys_child(tmp_path: Path) -> None:
    """The wrapper ends what its application leaves behind; the node and its sidecars are not that."""
    log, path = str(tmp_path / "node.log"), str(tmp_path / "node.sock")
    serve = "import socket, sys; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); s.accept()"
    pid = start_node([sys.executable, "-c", serve, path], {}, log)
    link = await_node(pid, [path], log)
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()
    link.close()


def test_the_join_token_stays_with_us(served: Node) -> None:
    argv = wrapped(served, ["sh", "-c", "echo ${WEFT_TOKEN-none} ${WEFT_RUN-none}"], user=False)
    env = environment(served, WEFT_TOKEN="secret")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "none none\n"


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_node_of_another_user_is_not_obeyed(tmp_path: Path) -> None:
    """Its answer would say what we execute, and anybody may make a directory in /tmp."""
    path = tmp_path / "node.sock"
    script = (
        "import os, socket, sys\n"
        "served = socket.socket(socket.AF_UNIX)\n"
        "served.bind(sys.argv[1])\n"
        "os.setresuid(4242, 4242, 4242)\n"
        "served.listen()\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with pytest.raises(NodeError, match="served by uid 4242"):
            Link.dial([str(path)])
