"""``weft validate``: the shapes of its output and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GOOD = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"
BAD = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec:\n  prots: [{port: 80}]\n"
OTHER = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c, namespace: shop}\n"


def validate(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from weft.cli import main; main()", "validate", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "in" / "bad.yml").write_text(f"{BAD}---\n{OTHER}")
    (tmp_path / "in" / "list.json").write_text('{"kind": "List", "apiVersion": "v1", "items": []}')
    (tmp_path / "notes.txt").write_text("not: [yaml")
    return tmp_path


def test_a_folder_as_json(folder: Path) -> None:
    done = validate(str(folder), "-o", "json")
    assert (done.returncode, done.stderr) == (1, "")
    results = json.loads(done.stdout)["results"]
    bad = str(folder / "in" / "bad.yml")
    assert [(item["file"], item["doc"], item["line"], item["valid"]) for item in results] == [
        (str(folder / "good.yaml"), 0, 1, True),
        (bad, 0, 1, False),
        (bad, 1, 7, True),
    ]
    assert results[0] == {
        "file": str(folder / "good.yaml"),
        "doc": 0,
        "line": 1,
        "apiVersion": "v1",
        "kind": "Service",
        "namespace": "default",
        "name": "a",
        "valid": True,
        "errors": [],
        "warnings": [],
    }
    (error,) = results[1]["errors"]
    assert (error["path"], error["line"], error["column"], error["code"]) == ("spec.prots", 5, 3, "WEFT0012")
    assert (error["message"], error["hint"]) == ("there is no field 'prots' here", "did you mean 'ports'?")
    assert results[2]["namespace"] == "shop"
    assert "does not know Deployment" in results[2]["warnings"][0]["message"]


def test_yaml_says_the_same(folder: Path) -> None:
    as_json, as_yaml = (validate(str(folder), "-o", form).stdout for form in ("json", "yaml"))
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


def test_for_people(folder: Path) -> None:
    done = validate(str(folder / "in" / "bad.yml"))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{folder}/in/bad.yml:5:3: error: spec.prots: there is no field 'prots' here (did you mean 'ports'?)",
        f"{folder}/in/bad.yml:8:1: warning: kind: weft does not know Deployment of apps/v1: it is skipped",
        "1 of 2 valid, 1 error, 1 warning",
    ]


def test_standard_input_and_namespace() -> None:
    done = validate("-", "-o", "json", "-n", "shop", stdin=GOOD)
    assert done.returncode == 0
    assert [item["namespace"] for item in json.loads(done.stdout)["results"]] == ["shop"]


def test_broken_yaml_is_a_result_of_its_own() -> None:
    done = validate("-", "-o", "json", stdin=f"{GOOD}---\na: [1\n---\n{GOOD}kind: Service\n")
    assert done.returncode == 1
    results = json.loads(done.stdout)["results"]
    assert [(item["doc"], item["valid"], item["kind"]) for item in results] == [
        (0, True, "Service"),
        (1, False, None),
        (2, False, "Service"),
    ]
    assert "the key 'kind' is there twice" in results[2]["errors"][0]["message"]


def test_warnings_alone_are_fine_unless_strict() -> None:
    assert validate("-", stdin=OTHER).returncode == 0
    assert validate("-", "--strict", stdin=OTHER).returncode == 1


def test_nothing_to_say_is_an_empty_list() -> None:
    done = validate("-", "-o", "json", stdin="---\n---\n")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"results": []})


@pytest.mark.parametrize("arguments", [(), ("missing.yaml",), ("-o", "xml", "-")])
def test_usage_errors_exit_with_two(arguments: tuple[str, ...]) -> None:
    done = validate(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


def test_what_is_not_utf8_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: cafés".encode("latin-1"))
    done = validate(str(tmp_path / "latin.yaml"))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path}/latin.yaml:2:7: error: this is not UTF-8")


PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata:
      annotations:
        traffic.sidecar.istio.io/includeInboundPorts: "80,web"
        proxy.istio.io/config: |
          concurrency: two
"""


def test_templates_of_pods_are_looked_into() -> None:
    done = validate("-", "-o", "json", stdin=PODS)
    assert done.returncode == 1
    (result,) = json.loads(done.stdout)["results"]
    assert result["valid"] is False
    where = "spec.template.metadata.annotations"
    assert [(error["path"], error["line"]) for error in result["errors"]] == [
        (f'{where}["traffic.sidecar.istio.io/includeInboundPorts"]', 9),
        (f'{where}["proxy.istio.io/config"]', 10),
    ]
    good = PODS.replace("80,web", "*").replace("two", "2")
    (result,) = json.loads(validate("-", "-o", "json", stdin=good).stdout)["results"]
    assert (result["valid"], [item["path"] for item in result["warnings"]]) == (True, ["kind"])


def test_a_rule_that_only_warns_leaves_the_document_valid() -> None:
    text = (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\n"
        'spec: {hosts: ["*a.com"], ports: [{number: 80, name: http, protocol: HTTP}]}\n'
    )
    done = validate("-", "-o", "json", stdin=text)
    assert done.returncode == 0
    (result,) = json.loads(done.stdout)["results"]
    assert (result["valid"], result["errors"]) == (True, [])
    assert [(item["path"], item["line"], item["code"]) for item in result["warnings"]] == [
        ("spec.hosts[0]", 4, "WEFT0016")
    ]
