"""apply, get, delete and diff as commands of their own process against a real API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.api_server import api_server

Weft = Callable[..., subprocess.CompletedProcess[str]]

ROUTE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {name}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {{host: reviews, subset: {subset}}}
"""
BROKEN = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: broken
spec:
  hostss: [reviews]
  http:
  - timeout: 3
    route: []
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "api"
    directory.mkdir()
    with api_server(directory):
        yield directory


@pytest.fixture
def weft(home: Path, tmp_path: Path) -> Weft:
    environ = {
        **os.environ, "WEFT_SERVER": str(home / "api.sock"), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip

    def run(*argv: str, stdin: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", "from weft.cli import main; main()", *argv],
            input=stdin, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_apply_says_what_became_of_each_object(weft: Weft, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUTE.format(name="reviews", subset="v1"))
    name = "virtualservice.networking.istio.io/reviews"
    assert weft("apply", "-f", "a.yaml").stdout == f"{name} created\n"
    assert weft("apply", "a.yaml").stdout == f"{name} unchanged\n"
    changed = ROUTE.format(name="reviews", subset="v2")
    assert weft("apply", "-", "--dry-run", stdin=changed).stdout == f"{name} configured (server dry run)\n"
    assert weft("apply", "-", stdin=changed).stdout == f"{name} configured\n"
    assert weft("apply", "-", "-o", "name", stdin=changed).stdout == f"{name}\n"


def test_all_errors_of_all_files_and_nothing_half_applied(weft: Weft, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh"
    mesh.mkdir()
    (mesh / "a.yaml").write_text(ROUTE.format(name="fine", subset="v1"))
    (mesh / "b.yaml").write_text(BROKEN)
    (mesh / "c.yaml").write_text("a: [\n")
    refused = weft("apply", "mesh", code=1).stderr
    assert "mesh/b.yaml:6:3: spec.hostss" in refused
    assert "did you mean 'hosts'" in refused
    assert "mesh/b.yaml:8:5: spec.http[0].timeout" in refused
    assert "mesh/c.yaml:" in refused
    assert (
        weft("get", "vs", "-o", "json").stdout
        == json.dumps({"apiVersion": "v1", "kind": "List", "items": []}, indent=2) + "\n"
    )


def test_what_only_the_server_finds_has_its_place_too(weft: Weft) -> None:
    twice = ROUTE.format(name="same", subset="v1") + "---\n" + ROUTE.format(name="same", subset="v2")
    refused = weft("apply", "-", stdin=twice, code=1).stderr
    assert "-:14:3: metadata.name" in refused
    assert "given twice" in refused


def test_apply_takes_back_what_it_gave_and_leaves_what_others_set(weft: Weft) -> None:
    service = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "1"},
    }  # fmt: skip
    weft("apply", "-", stdin=yaml.safe_dump(service))
    weft("apply", "-", stdin=yaml.safe_dump({**service, "data": {"a": "2"}}))
    assert yaml.safe_load(weft("get", "cm/c", "-o", "yaml").stdout)["data"] == {"a": "2"}


def test_other_kinds_are_skipped_with_a_warning(weft: Weft) -> None:
    deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"
    skipped = weft("apply", "-", stdin=deployment)
    assert skipped.stdout == ""
    assert "-:2:1: kind" in skipped.stderr
    weft("apply", "-", "--strict", stdin=deployment, code=1)
    weft("apply", "-", stdin="---\n# nothing\n")


WORKLOAD = """apiVersion: weft.dev/v1alpha1
kind: Workload
metadata:
  name: web
spec:
  workingDir: web
  command: [{program}, "-c", "true"]
"""


def test_apply_says_where_a_workload_is_from_its_file(weft: Weft, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "web").mkdir(parents=True)
    (folder / "a.yaml").write_text(WORKLOAD.format(program="sh"))
    weft("apply", "shop/a.yaml")
    spec = json.loads(weft("get", "workload/web", "-o", "json").stdout)["spec"]
    assert spec["workingDir"] == str(folder / "web")
    assert spec["command"] == [shutil.which("sh"), "-c", "true"]


def test_a_program_that_is_nowhere_is_refused_at_its_line(weft: Weft) -> None:
    refused = weft("apply", "-", stdin=WORKLOAD.format(program="no-such-program"), code=1).stderr
    assert "-:7:13: spec.command[0]: 'no-such-program' is no absolute path" in refused


def test_what_is_not_translated_is_said_once(weft: Weft) -> None:
    spec = "{ports: [{port: 80}], type: NodePort, externalTrafficPolicy: Local}"
    service = f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n"
    assert weft("apply", "-", stdin=service).stderr.count("spec.externalTrafficPolicy") == 1


def test_wait_reports_convergence(weft: Weft) -> None:
    done = weft("apply", "-", "--wait", "--timeout", "5s", stdin=ROUTE.format(name="a", subset="v1"))
    assert "live on 0 proxies" in done.stderr
    weft("apply", "-", "--wait", "--timeout", "5", stdin="", code=2)


def test_get(weft: Weft, tmp_path: Path) -> None:
    labels = ROUTE.replace("name: {name}", "name: {name}\n  labels: {{app: a}}")
    text = labels.format(name="a", subset="v1") + "---\n" + ROUTE.format(name="b", subset="v1")
    weft("apply", "-", stdin=text)
    lines = weft("get", "vs").stdout.splitlines()
    assert lines[0].split() == ["NAME", "GATEWAYS", "HOSTS", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "b"]
    assert len(weft("get", "virtualservices", "-l", "app=a").stdout.splitlines()) == 2
    assert "NAMESPACE" in weft("get", "vs", "-A").stdout
    assert weft("get", "vs/a", "-o", "name").stdout == "virtualservice.networking.istio.io/a\n"
    assert "namespace/default" in weft("get", "all", "-A").stdout
    assert "nothing found" in weft("get", "vs", "-n", "elsewhere").stderr
    assert "not found" in weft("get", "vs", "nope", code=1).stderr
    assert "did you mean" in weft("get", "virtualservise", code=2).stderr


def test_delete(weft: Weft, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUTE.format(name="a", subset="v1"))
    name = "virtualservice.networking.istio.io/a"
    weft("apply", "a.yaml")
    assert weft("delete", "-f", "a.yaml", "--dry-run").stdout == f"{name} deleted (server dry run)\n"
    assert weft("delete", "-f", "a.yaml").stdout == f"{name} deleted\n"
    assert weft("delete", "-f", "a.yaml").stdout == ""
    assert weft("delete", "vs", "a").stdout == f"{name} not there\n"
    weft("delete", code=2)
    weft("delete", "vs", code=2)


def test_delete_of_a_file_with_a_namespace_and_what_is_in_it(weft: Weft, tmp_path: Path) -> None:
    space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
    inside = ROUTE.format(name="a", subset="v1").replace("  name: a", "  name: a\n  namespace: shop")
    (tmp_path / "a.yaml").write_text(space + inside)
    weft("apply", "a.yaml")
    assert weft("delete", "-f", "a.yaml").stdout.splitlines() == [
        "namespace/shop deleted",
        "virtualservice.networking.istio.io/a deleted",
    ]
    assert "nothing found" in weft("get", "vs", "-A").stderr
    assert "forbidden" in weft("delete", "ns", "default", code=1).stderr


def test_diff(weft: Weft) -> None:
    first, second = (ROUTE.format(name="a", subset=subset) for subset in ("v1", "v2"))
    assert "+  name: a" in weft("diff", "-f", "-", stdin=first, code=1).stdout
    weft("apply", "-", stdin=first)
    assert weft("diff", "-", stdin=first).stdout == ""
    changed = weft("diff", "-", stdin=second, code=1).stdout.splitlines()
    assert [line for line in changed if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-        subset: v1",
        "+        subset: v2",
    ]


def test_diff_shows_that_a_secret_changes_but_not_to_what(weft: Weft) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "aHVudGVyMg=="}}
    weft("apply", "-", stdin=yaml.safe_dump(secret))
    changed = weft("diff", "-", stdin=yaml.safe_dump({**secret, "data": {"p": "b3RoZXI="}}), code=1).stdout
    assert "*** (" in changed
    assert "aHVudGVyMg" not in changed
    assert "b3RoZXI" not in changed


def test_no_control_plane_is_told_with_a_remedy(weft: Weft, tmp_path: Path) -> None:
    refused = weft("get", "vs", "--server", str(tmp_path / "nothing.sock"), code=1).stderr
    assert "no control plane" in refused
    assert "weft up" in refused


def test_no_files_is_a_mistake_of_usage(weft: Weft) -> None:
    assert "no files" in weft("apply", code=2).stderr
    assert "nowhere.yaml" in weft("apply", "nowhere.yaml", code=2).stderr
