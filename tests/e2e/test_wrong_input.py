"""What people get wrong, and hosts that lack something: a clear message, a remedy, the documented exit code,
no traceback, and nothing half done."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.mesh import WEFT, Mesh, leftovers, up, wait_until
from tests.support.user import ordinary_user

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

FAILED, USAGE = 1, 2
ABSENT = "wrong-input"

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: good}
spec:
  ports: [{name: http, port: 80}]
---
"""
BROKEN = SERVICE + "kind: Service\nmetadata:\n  name: a\n   labels: {}\n"
UNKNOWN_FIELD = (
    SERVICE
    + """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
    - routes:
        - destination: {host: a}
"""
)
WRONG_TYPE = (
    SERVICE
    + """
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  ports: [{name: http, port: eighty}]
"""
)
UNKNOWN_KIND = SERVICE + "apiVersion: networking.istio.io/v1\nkind: VirtualServise\nmetadata: {name: a}\n"
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: ["*"]
"""


def workload(*command: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: app}}
spec:
  command: [{", ".join(command)}]
  ports: [{{name: http, port: 8080}}]
"""


ECHO = workload(sys.executable, "-m", "weft", "echo")


def weft(*argv: str, prefix: Sequence[str] = (), stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    return subprocess.run(
        [*prefix, *WEFT, *argv], input=stdin, capture_output=True, text=True, timeout=60, env=env, check=False
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It said all of this, and nothing of its insides."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    for word in words:
        assert word in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with up(ready=False) as running:
        wait_until(lambda: running.run("get", "services").returncode == 0, "the API answers")
        yield running


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "it.yaml"
    path.write_text(request.param)
    return path


FILES = pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param(BROKEN, ("it.yaml:11:10", "not YAML"), id="broken"),
        pytest.param(
            UNKNOWN_FIELD, ("it.yaml:15:7: spec.http[0].routes", "did you mean 'route'?"), id="unknown field"
        ),
        pytest.param(WRONG_TYPE, ("it.yaml:13:24: spec.ports[0].port", "whole number"), id="wrong type"),
        pytest.param(UNKNOWN_KIND, ("it.yaml:9:1: kind", "did you mean 'VirtualService'?"), id="kind"),
    ],
    indirect=["file"],
)


@FILES
def test_a_wrong_file_changes_nothing(mesh: Mesh, file: Path, words: Sequence[str]) -> None:
    refused(mesh.run("apply", str(file)), FAILED, *words, "nothing was changed")
    assert "good" not in mesh.weft("get", "services", "-A", "-o", "name"), "not even its good half"


@FILES
def test_a_wrong_file_starts_nothing(file: Path, words: Sequence[str]) -> None:
    refused(weft("up", "--mesh", ABSENT, str(file)), FAILED, *words)
    assert leftovers(ABSENT) == []


def test_what_is_referred_to_in_vain(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "vain.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\n"
        "kind: VirtualService\n"
        "metadata: {name: vain}\n"
        "spec:\n"
        "  hosts: [reviews]\n"
        "  gateways: [no-such-door]\n"
        "  http:\n"
        "    - route:\n"
        "        - destination: {host: reviewz}\n"
    )
    for strict, code in ((["--strict"], FAILED), ([], 0)):
        done = mesh.run("apply", str(file), *strict)
        assert done.returncode == code, done.stderr
        assert f"{file}:6:3: spec.gateways: no Gateway is named 'default/no-such-door'" in done.stderr
        assert f"{file}:9:25: spec.http[0].route[0].destination.host: no service is named" in done.stderr
        assert "add a Service or a ServiceEntry for it" in done.stderr
    mesh.weft("delete", "virtualservice", "vain")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("up", "--mesh", ABSENT, "--port-map", "nonsense"), USAGE, ("--port-map", "80=10080")),
        (("up", "--mesh", ABSENT, "/no/such/file.yaml"), USAGE, ("/no/such/file.yaml", "check the path")),
        (("up", "--mesh", ABSENT, "--certificate-lifetime", "5"), USAGE, ("duration", "250ms")),
        (("aply",), USAGE, ("aply", "did you mean 'apply'?")),
        (("ps", "--mesh", ABSENT), FAILED, ("no node runs", "weft up")),
        (("logs", "--mesh", ABSENT, "web"), FAILED, ("no node runs", "weft up")),
        (("call", "--mesh", ABSENT, "--from", "web", "http://x"), FAILED, ("no node", "weft up")),
        (("get", "vs", "--server", "/no/such/api.sock"), FAILED, ("/no/such/api.sock", "weft up")),
        (("get", "vs", "--server", "http://127.0.0.1:1"), USAGE, ("not encrypted", "https://")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_wrong_command_line(argv: Sequence[str], code: int, words: Sequence[str]) -> None:
    refused(weft(*argv), code, *words)
    assert leftovers(ABSENT) == []


def test_an_unknown_kind_or_object_of_a_running_mesh(mesh: Mesh) -> None:
    refused(mesh.run("get", "virtualservise"), USAGE, "virtualservise", "did you mean")
    refused(mesh.run("get", "service", "nobody"), FAILED, "nobody", "not found")
    refused(mesh.run("logs", "--mesh", mesh.name, "nobody"), FAILED, "nobody", "workloads of this node")


def test_a_second_mesh_of_the_same_name(mesh: Mesh) -> None:
    refused(weft("up", "--mesh", mesh.name), FAILED, "a mesh runs here already", "--mesh")
    assert mesh.run("get", "services").returncode == 0, "the first one was not harmed"


def server(mesh: Mesh) -> str:
    """The URL that hosts join at."""
    return mesh.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").strip()


def join(mesh: Mesh, token: str, *argv: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return weft(
        "node", "--mesh", ABSENT, "--ephemeral", "--name", "other", "--server", server(mesh), "--join", token,
        *argv, prefix=prefix,
    )  # fmt: skip


def test_a_token_that_is_expired_used_up_or_mistyped(mesh: Mesh) -> None:
    try:
        short = mesh.weft("token", "create", "--for", "1s").strip()
        wait_until(lambda: "expired" in mesh.weft("token", "list"), "the token expires")
        refused(join(mesh, short), FAILED, "expired", "weft token create")

        once = mesh.weft("token", "create", "--uses", "1").strip()
        first = subprocess.Popen(
            [*WEFT, "node", "--mesh", f"{ABSENT}-first", "--ephemeral", "--name", "first",
             "--capture", "none", "--server", server(mesh), "--join", once],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: "used" in mesh.weft("token", "list"), "the first node has joined with it")
            refused(join(mesh, once), FAILED, "used", "weft token create")
        finally:
            first.terminate()
            first.wait(20)
        refused(join(mesh, "weft1.nonsense"), FAILED, "not a join token", "weft token create")
    finally:
        weft("clean", "--mesh", ABSENT)
        weft("clean", "--mesh", f"{ABSENT}-first")
    assert leftovers(ABSENT) == []


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(workload("no-such-program"))
    with up(tmp_path / "it.yaml", ready=False) as mesh:
        assert mesh.process.wait(60) == FAILED
        mesh.output.wait_for("no-such-program")
    assert "Traceback" not in mesh.output.text
    assert leftovers(mesh.name) == []


def test_a_gateway_port_that_somebody_else_has(tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(GATEWAY)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with up(tmp_path / "it.yaml", "--port-map", f"81={port}") as mesh:
            mesh.weft("apply", "-", stdin=GATEWAY.replace("number: 80", "number: 81"))
            mesh.output.wait_for(f"{port}.*(taken|in use)")
    assert "Traceback" not in mesh.output.text
    assert leftovers(mesh.name) == []


def test_an_ordinary_user_may_not_capture_by_nft(tmp_path: Path) -> None:
    with ordinary_user() as user:
        file = user.write("it.yaml", ECHO)
        with up(
            file,
            "--capture",
            "nft",
            prefix=user.prefix,
            env=user.env,
            runtime_root=user.runtime_root,
            ready=False,
        ) as mesh:
            assert mesh.process.wait(30) == FAILED
            mesh.output.wait_for("root")
        assert "Traceback" not in mesh.output.text
        assert "seccomp" in mesh.output.text


# In a mount namespace of its own, where something of the host is hidden.
WITHOUT_NFT = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"')
WITHOUT_CGROUPS = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'umount --lazy --recursive /sys/fs/cgroup && exec "$@"',
    "sh",
)


def test_a_host_without_nft(tmp_path: Path) -> None:
    prefix = (*WITHOUT_NFT, os.path.realpath(str(shutil.which("nft"))))
    (tmp_path / "it.yaml").write_text(ECHO)
    with up(tmp_path / "it.yaml", "--capture", "nft", prefix=prefix, ready=False) as mesh:
        mesh.output.wait_for("nft")
        assert "Traceback" not in mesh.output.text
    with up(tmp_path / "it.yaml", prefix=prefix) as mesh:
        # By itself it takes the next best way, and says so.
        assert "nft" in mesh.output.text
        assert mesh.rows()["default/app-0"]["ready"]
    assert leftovers(mesh.name) == []


def test_a_host_without_cgroups(mesh: Mesh) -> None:
    try:
        token = mesh.weft("token", "create").strip()
        refused(join(mesh, token, "--capture", "nft", prefix=WITHOUT_CGROUPS), FAILED, "cgroup")
    finally:
        weft("clean", "--mesh", ABSENT)
    assert leftovers(ABSENT) == []
