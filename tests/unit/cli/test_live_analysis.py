"""analyze and describe against a real API: what it has, and what files would change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.api_server import api_server

from weft.cli.analyze import analyze
from weft.cli.apply import apply
from weft.cli.describe import describe

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-1}
spec:
  address: 10.0.0.7
  labels: {app: reviews, version: v1}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with api_server(tmp_path):
        socket = str(tmp_path / "api.sock")
        text = "---".join((SERVICE, ROUTE, ENTRY))
        done = CliRunner().invoke(apply, ["-", "--server", socket], input=text, standalone_mode=False)
        assert done.exception is None, done.output
        yield socket


def rows(*arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    done = CliRunner().invoke(analyze, [*arguments, "-o", "json"], input=stdin, standalone_mode=False)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_the_mesh_and_what_a_file_would_change(server: str) -> None:
    (found,) = rows("--server", server)
    assert (found["code"], found["origin"], found["reference"]) == (
        "IST0101",
        "VirtualService default/reviews",
        "",
    )
    assert rows("-", "--live", "--server", server, stdin=RULE) == []
    # By itself the file knows of no service.
    assert [item["code"] for item in rows("-", stdin=RULE)] == ["IST0174"]


def test_a_service_of_the_mesh(server: str) -> None:
    arguments = ["reviews", "-", "--live", "--server", server, "-o", "json"]
    done = CliRunner().invoke(describe, arguments, input=RULE, standalone_mode=False)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert found["resource"]["file"] == ""
    assert (found["destinationRules"][0]["file"], found["destinationRules"][0]["line"]) == ("-", 2)
    (endpoint,) = found["endpoints"]
    assert (endpoint["workload"]["name"], endpoint["address"], endpoint["subsets"]) == (
        "reviews-1",
        "10.0.0.7",
        ["v1"],
    )
    assert found["findings"] == []


def test_a_namespace_with_nothing_in_it(server: str) -> None:
    said = {
        name: CliRunner().invoke(analyze, ["--server", server, "-n", name], standalone_mode=False).output
        for name in ("default", "defualt")
    }
    assert "nothing here is in the namespace" not in said["default"]
    assert "note: nothing here is in the namespace defualt" in said["defualt"]
