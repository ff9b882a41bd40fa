"""A mesh over several hosts: its commands as real processes, each on a host of ``tests.support.hosts``.

Hosts share the machine's files and cgroups, so each has a mesh name of its own; by that everything that weft
makes on a host is told apart, as if the machines were several.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.hosts import Host, hosts
from tests.support.mesh import WEFT, leftovers

MEMBER = Path(__file__).with_name("member.py")
WARDEN = Path(__file__).with_name("warden.py")
PYTHON = "/usr/bin/python3"
API_PORT = 15017
_ANSWER_S = 40
_POLL_S = 0.05


@dataclass
class Machine:
    """One host with its node. ``mesh`` is the name by which weft's things on it are told apart."""

    host: Host
    mesh: str
    logs: Path
    control: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    node: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        """As the node is called."""
        return self.host.name

    @property
    def address(self) -> str:
        """Where peers reach the host."""
        return self.host.address

    @property
    def runtime(self) -> Path:
        """The node's runtime directory."""
        return Path("/run/weft", self.mesh)

    def start(self, log: str, *argv: str, pipes: bool = False, token: str = "") -> subprocess.Popen[str]:
        """Start ``weft argv`` on the host; what it says goes to a log, or to pipes but for errors."""
        with self.log_file(log).open("a") as file:
            child = self.host.popen(
                *WEFT, *argv, stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else file, stderr=file, start_new_session=True,
                env={**os.environ, **({"WEFT_TOKEN": token} if token else {})},
            )  # fmt: skip
        self.children.append(child)
        return child

    def log_file(self, log: str) -> Path:
        """The log of a process that was started here."""
        return self.logs / f"{self.name}-{log}.log"

    def weft(self, *argv: str, code: int = 0, stdin: str | None = None, timeout: float = 60) -> str:
        """Run a command on the host; its output.

        Raises:
            AssertionError: its exit code is not ``code``.
        """
        done = subprocess.run(
            self.host.command(*WEFT, *argv), input=stdin, capture_output=True, text=True, timeout=timeout,
            env={**os.environ, "WEFT_SERVER": str(self.control / "api.sock")}, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"weft {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_node(self, *argv: str, token: str = "") -> None:
        """Start ``weft node`` and wait until it answers."""
        self.node = self.start(
            "node",
            "node",
            "--mesh",
            self.mesh,
            "--name",
            self.name,
            "--advertise",
            self.address,
            *argv,
            token=token,
        )
        self.wait_started(self.node, "node", lambda: self.status() is not None)

    def wait_started(
        self, child: subprocess.Popen[str], log: str, ready: Callable[[], bool], seconds: float = 40
    ) -> None:
        """Until ``ready``.

        Raises:
            AssertionError: the process has ended, or the time is over; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            running = child.poll() is None and time.monotonic() < deadline
            assert running, f"{self.name}: {log} does not start: {self.tail(log)}"
            time.sleep(_POLL_S)

    def status(self) -> dict[str, Any] | None:
        """What the node says of itself, None when it does not answer."""
        answer = self._ask({"op": "status"})
        return answer if answer and answer.get("event") == "status" else None

    def rows(self) -> dict[str, dict[str, Any]]:
        """The workloads of the node by id."""
        answer = self._ask({"op": "list"})
        return {row["id"]: row for row in (answer or {}).get("workloads", ())}

    def admin(self, workload: str, path: str) -> str:
        """What the Envoy of a workload says on its admin interface."""
        answer = self._ask({"op": "admin", "id": workload, "method": "GET", "path": path})
        assert answer is not None
        return str(answer["body"])

    def stats(self, workload: str, pattern: str) -> dict[str, int]:
        """Counters and gauges of a workload's Envoy."""
        found = json.loads(self.admin(workload, f"/stats?format=json&filter={pattern}"))["stats"]
        return {one["name"]: one["value"] for one in found if "value" in one}

    def requests(self, workload: str, **fields: Any) -> list[dict[str, Any]]:
        """Lines of a workload's access log that have these fields."""
        path = self.runtime / "workloads" / workload.replace("/", ".") / "stdout.log"
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]

    def outside(self, *argv: str) -> str:
        """What ``member.py`` prints as a process of this host that is not in the mesh."""
        return self.host.run(PYTHON, str(MEMBER), *argv)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_ANSWER_S)
            try:
                client.connect(str(self.runtime / "node.sock"))
                client.sendall(json.dumps(request).encode() + b"\n")
                line = client.makefile().readline()
            except OSError:
                return None
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def tail(self, log: str) -> str:
        """The end of a log."""
        path = self.log_file(log)
        return path.read_text()[-3000:] if path.exists() else ""


class Member:
    """A ``weft run`` of ``tests/support/member.py``."""

    def __init__(self, machine: Machine, name: str, process: subprocess.Popen[str]) -> None:
        self.machine, self.name, self.process = machine, name, process
        self.id = f"shop/{name}"

    def wait_ready(self) -> None:
        """Until its sidecar and its application are."""
        self.machine.wait_started(
            self.process, self.name, lambda: bool(self.machine.rows().get(self.id, {}).get("ready"))
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Have it do something; see ``member.py``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{self.id} has ended: {self.machine.tail(self.name)}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def get(self, url: str) -> tuple[int, str]:
        """Status and body of a request that it makes; status 0 when there was no answer."""
        answer = self.ask(get=url)
        return answer["status"], answer["body"]

    def resolve(self, name: str) -> list[str]:
        """What its resolver says."""
        found: list[str] = self.ask(resolve=name)["addresses"]
        return found

    def dial(self, address: str, port: int) -> str:
        """What a plain request to an address brings it."""
        return str(self.ask(dial=[address, port])["answer"])

    @contextmanager
    def load(self, url: str, threads: int = 2) -> Iterator[dict[str, Any]]:
        """Requests without pause during the block; the outcome is in the mapping after it."""
        outcome: dict[str, Any] = {}
        self.ask(load=url, threads=threads)
        try:
            yield outcome
        finally:
            outcome.update(self.ask(stop=True))


@dataclass
class Cluster:
    """Machines by name; the control plane runs on the first."""

    machines: dict[str, Machine]
    directory: Path
    lease: str
    plane: subprocess.Popen[str] | None = None

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    @property
    def first(self) -> Machine:
        """The machine of the control plane."""
        return next(iter(self.machines.values()))

    @property
    def server(self) -> str:
        """As nodes are told."""
        return f"https://{self.first.address}:{API_PORT}"

    def start_plane(self) -> None:
        """Start ``weft control-plane`` and wait until it serves."""
        first, runtime = self.first, self.directory / "control"
        (runtime / "kubeconfig").unlink(missing_ok=True)
        self.plane = first.start(
            "control-plane", "control-plane", "--mesh", first.mesh, "--lease", self.lease,
            "--runtime-dir", str(runtime), "--state-dir", str(self.directory / "state"),
        )  # fmt: skip
        first.wait_started(self.plane, "control-plane", (runtime / "kubeconfig").exists)

    def kill_plane(self) -> None:
        """As if it had crashed."""
        assert self.plane is not None
        self.plane.send_signal(signal.SIGKILL)
        self.plane.wait()

    def join(self, name: str) -> None:
        """Make a host a node, as docs/how-to/many-hosts.md says."""
        token = self.first.weft("token", "create", "--node", name).strip()
        self[name].start_node("--server", self.server, token=token)

    def apply(self, text: str, *argv: str) -> str:
        """``weft apply`` on the first machine."""
        return self.first.weft("apply", *argv, "-", stdin=text)

    def run(
        self,
        machine: str,
        name: str,
        port: int,
        *,
        service: str,
        labels: Sequence[str] = (),
        latency_s: float = 0,
    ) -> Member:
        """``weft run`` a member on a machine; not yet waited for."""
        where = self[machine]
        process = where.start(
            name, "run", "--mesh", where.mesh, "--namespace", "shop", "--name", name, "--service", service,
            "--service-account", service, "--port", f"http:{port}",
            *(part for label in labels for part in ("--label", label)),
            "--", PYTHON, str(MEMBER), name, str(port), str(latency_s), pipes=True,
        )  # fmt: skip
        return Member(where, name, process)

    def metrics(self) -> list[str]:
        """The control plane's own series, as Prometheus reads them."""
        with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(_ANSWER_S)
            connection.sock.connect(str(self.directory / "control" / "api.sock"))
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode().splitlines()

    def endpoints(self, machine: str, workload: str, service: str) -> set[str]:
        """Addresses that a workload's Envoy has for a service of the shop, healthy or not."""
        text = self[machine].admin(workload, "/clusters?format=json")
        return {
            host["address"]["socket_address"]["address"]
            for cluster in json.loads(text)["cluster_statuses"]
            if cluster["name"].startswith("outbound|") and f"|{service}.shop." in cluster["name"]
            for host in cluster.get("host_statuses", ())
        }


@contextmanager
def cluster(names: Sequence[str], *, lease: str = "3s") -> Iterator[Cluster]:
    """Hosts with a control plane on the first, all joined; everything is gone at the end."""
    run = secrets.token_hex(3)
    with tempfile.TemporaryDirectory(prefix="weft-t") as base, hosts(names) as made:
        directory = Path(base)
        control = directory / "control"
        machines = {host.name: Machine(host, f"t{run}-{host.name}", directory, control) for host in made}
        found = Cluster(machines, directory, lease)
        with _warden(found):
            try:
                found.start_plane()
                for name in names:
                    found.join(name)
                yield found
            finally:
                _stop(found)
    assert leftovers(f"t{run}-") == []


@contextmanager
def _warden(found: Cluster) -> Iterator[None]:
    """A process that removes everything if this one is killed."""
    plan = {
        "meshes": {machine.mesh: machine.host.namespace for machine in found.machines.values()},
        "switch": found.first.host.switch,
        "directory": str(found.directory),
    }
    warden = subprocess.Popen(
        [sys.executable, str(WARDEN)], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert warden.stdin is not None
    warden.stdin.write(json.dumps(plan) + "\n")
    warden.stdin.flush()
    try:
        yield
    finally:
        warden.communicate("done\n", timeout=_ANSWER_S)


def _stop(found: Cluster) -> None:
    """Applications first, then nodes, then the control plane, then whatever is left."""
    plane = [found.plane] if found.plane else []
    nodes = [machine.node for machine in found.machines.values() if machine.node]
    everyone = [child for machine in found.machines.values() for child in machine.children]
    applications = [child for child in everyone if child not in nodes and child not in plane]
    try:
        for group in (applications, nodes, plane):
            for child in group:
                if child.poll() is None:
                    child.terminate()
            for child in group:
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
    finally:
        for child in everyone:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        for machine in found.machines.values():
            sys.stdout.write(f"--- {machine.name}\n{machine.tail('node')}\n")
            machine.weft("clean", "--mesh", machine.mesh, "--all")
        sys.stdout.write(f"--- control plane\n{found.first.tail('control-plane')}\n")
