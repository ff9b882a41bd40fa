"""``weft explain`` as a process: requests in, answers out, in order; exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from weft.cli.explain import proxy_asked

FILE = Path(__file__).parents[2] / "golden" / "virtual-service" / "in.yaml"


def _run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weft", "explain", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SIMPLE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken}
spec: {hosts: web}
"""


@pytest.fixture
def mesh(tmp_path: Path) -> str:
    path = tmp_path / "mesh.yaml"
    path.write_text(SIMPLE)
    return str(path)


def test_a_line_for_each_request_in_order(mesh: str) -> None:
    asked = [
        {"id": 1, "from": {"workload": "default/a"}, "http": {"host": "web"}},
        {"id": 2, "from": {"workload": "default/a"}, "http": {"host": 3}},
        {"id": 3, "from": {"workload": "default/a"}, "http": {"host": "elsewhere.org"}},
    ]
    done = _run(mesh, "--requests", "-", stdin="\n".join([*map(json.dumps, asked), "", "nonsense"]))
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = (json.loads(line) for line in done.stdout.splitlines())
    assert [first["id"], second["id"], third["id"], fourth["id"]] == [1, 2, 3, None]
    assert [first["action"], second["action"], third["action"]] == ["forward", "error", "passthrough"]
    assert "http.host" in second["error"]
    assert "left out: " in done.stderr  # the broken resource
    assert "spec.hosts" in done.stderr


def test_one_request_for_people_and_for_machines(mesh: str) -> None:
    ask = ("--from", "workload:default/a", "POST", "http://web/x", "-H", "X-A: 1", "-H", "x-a: 2")
    shown = _run(mesh, *ask, "-o", "text")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == "forward to web.default:80: 200"
    answer = json.loads(_run(mesh, *ask).stdout)
    sent = answer["upstream"]["request"]
    assert (sent["method"], sent["path"], sent["headers"]["x-a"]) == ("POST", "/x", ["1", "2"])
    assert yaml.safe_load(_run(mesh, *ask, "-o", "yaml").stdout) == answer
    as_curl = [word for word in ask if word != "POST"]
    assert json.loads(_run(mesh, *as_curl, "-X", "POST").stdout) == answer


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("workload:shop/web", ("workload", "shop/web")),
        ("inbound:web", ("inbound", "team/web")),
        ("gateway:door.edge", ("gateway", "edge/door")),
        ("web", ("workload", "team/web")),
        ("web.shop", ("workload", "shop/web")),
        ("shop/web", ("workload", "shop/web")),
        ("pod/web-0.shop", ("workload", "shop/web-0")),
        ("Deploy/web", ("workload", "team/web")),
        ("gtw/door", ("gateway", "team/door")),
    ],
)
def test_names_of_the_proxy_that_is_asked(text: str, who: tuple[str, str]) -> None:
    assert proxy_asked(text, "team") == who


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "there is nothing to explain"),
        (("MESH",), "there is no URL"),
        (("MESH", "http://web"), "say which proxy is asked"),
        (("--from", "workload:a/b", "http://web"), "there are no files"),
        (("MESH", "--from", "pilot:web", "http://web"), "--from pilot:web: this is no proxy"),
        (("MESH", "--from", "workload:a/b", "gopher://web"), "is no URL"),
        (("MESH", "--from", "workload:a/b", "http://web:x"), "is no URL"),
        (("MESH", "--from", "workload:a/b", "http://web", "-H", "x"), "is no header"),
        (("MESH", "--from", "workload:a/b", "http://web", "--jwt", "{"), "--jwt is no JSON"),
        (("MESH", "--requests", "-", "--from", "workload:a/b"), "--from goes with one URL"),
        (("-", "--requests", "-"), "standard input cannot be both"),
        (("MESH", "--requests", "/no/such/file"), "cannot read /no/such/file"),
        (("/no/such/file", "--requests", "-"), "cannot read /no/such/file"),
    ],
)
def test_what_is_no_question_exits_2(mesh: str, arguments: tuple[str, ...], words: str) -> None:
    done = _run(*(mesh if word == "MESH" else word for word in arguments))
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_the_service_does_not_have(mesh: str) -> None:
    details = [
        next(step["detail"] for step in json.loads(answer.stdout)["trace"] if step["step"] == "address")
        for answer in (_run(mesh, "--from", "a", url) for url in ("http://web/", "http://web:81/"))
    ]
    assert not details[0].endswith("only 80")
    assert details[1].endswith(", which has no port 81, only 80")


def test_a_replica_of_a_workload(tmp_path: Path) -> None:
    workload = """
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: front, labels: {app: front}}
spec: {command: [front]}
"""
    path = tmp_path / "mesh.yaml"
    path.write_text(SIMPLE + workload)
    answer = json.loads(_run(str(path), "--from", "front-0", "http://web/").stdout)
    assert answer["trace"][0]["detail"] == "the sidecar of Workload default/front"


def test_a_golden_mesh() -> None:
    done = _run(str(FILE), "--from", "workload:default/web", "http://reviews:9080/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] in {"forward", "passthrough"}
