"""Calls through a sidecar that stands in: what reaches it, and what is said of the answers."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.captured import Sidecar

from weft.app.call import Reply, Request, answered_by, read_names, summary
from weft.cli.call import call
from weft.errors import UsageError, WeftError


class NodeStandIn:
    """Answers what ``weft call`` asks a node."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        self.rows = [
            {"id": "shop/web-0", "name": "web-0", "namespace": "shop", "service": "web", "labels": {}}
            | {"capture": "seccomp", "pid": 1, "proxyPid": 1}
        ]
        at = sidecar.listener.getsockname()
        weft = {"outboundAddress": at[0], "outboundPort": at[1]}
        info = json.dumps({"node": {"metadata": {"WEFT": weft}}})
        self._answers: dict[str, dict[str, Any]] = {
            "list": {"event": "workloads", "workloads": self.rows},
            "admin": {"event": "reply", "status": 200, "body": info},
            "names": {"event": "names", "hosts": "240.240.0.7 catalog catalog.shop # the catalogue\n"},
        }
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                asked = json.loads(stream.readline())
                connection.sendall(json.dumps(self._answers[asked["op"]]).encode() + b"\n")


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NodeStandIn, Sidecar]]:
    with tempfile.TemporaryDirectory(prefix="weft-call-") as made:
        sidecar = Sidecar("127.0.0.1")
        path = Path(made) / "node.sock"
        node = NodeStandIn(path, sidecar)
        monkeypatch.setenv("WEFT_NODE_SOCKET", str(path))
        yield node, sidecar
        node.server.close()
        sidecar.close()


def invoke(*argv: str) -> Any:
    return CliRunner().invoke(call, argv, standalone_mode=False)


def test_it_goes_through_the_sidecar_to_the_service(mesh: tuple[NodeStandIn, Sidecar]) -> None:
    for name in ("web-0", "shop/web-0", "web-0.shop", "web"):
        done = invoke("--from", name, "http://catalog:8080/products")
        assert done.exception is None
        assert "240.240.0.7:8080" in done.output
    assert mesh[1].seen == ["240.240.0.7:8080"] * 4


def test_many_calls_are_counted(mesh: tuple[NodeStandIn, Sidecar]) -> None:
    done = invoke("--from", "web-0", "--count", "5", "-o", "json", "-H", "x-a: 1", "catalog.shop:81/")
    found = json.loads(done.stdout)
    assert [reply["status"] for reply in found["replies"]] == [200] * 5
    assert found["replies"][0]["body"] == "240.240.0.7:81"
    assert found["summary"]["statuses"] == {"200": 5}
    assert 0 < found["summary"]["p50Ms"] <= found["summary"]["p99Ms"]
    assert done.return_value == 0


def test_no_answer_is_a_finding(mesh: tuple[NodeStandIn, Sidecar]) -> None:
    mesh[1].listener.shutdown(socket.SHUT_RDWR)
    mesh[1].close()
    done = invoke("--from", "web-0", "-o", "json", "http://catalog/")
    assert done.return_value == 1
    reply = json.loads(done.stdout)["replies"][0]
    assert reply["status"] == 0
    assert "Refused" in reply["error"]


def test_an_unknown_workload_gets_a_suggestion(mesh: tuple[NodeStandIn, Sidecar]) -> None:
    done = invoke("--from", "shop/web-9", "http://catalog/")
    assert isinstance(done.exception, WeftError)
    assert "did you mean 'shop/web-0'" in done.exception.hint


def test_nothing_captured_is_said(mesh: tuple[NodeStandIn, Sidecar]) -> None:
    mesh[0].rows[0]["capture"] = "none"
    done = invoke("--from", "web-0", "http://catalog/")
    assert isinstance(done.exception, WeftError)
    assert mesh[1].seen == []


@pytest.mark.parametrize(
    ("url", "header"),
    [("ftp://x/", "a: b"), ("http://", "a: b"), ("http://x:99999/", "a: b"), ("http://x/", "a")],
)
def test_what_cannot_be_sent(url: str, header: str) -> None:
    with pytest.raises(UsageError):
        Request.of(url, None, [header], None)


def test_requests() -> None:
    request = Request.of("catalog:81/a?b=c", None, ["Host: other"], "body")
    assert (request.host, request.port, request.target) == ("catalog", 81, "/a?b=c")
    assert (request.method, request.body, request.headers) == ("POST", b"body", [("Host", "other")])


def test_who_answered() -> None:
    assert answered_by({"x-served-by": "a v1"}, "") == "a v1"
    assert answered_by({}, '{"servedBy": {"instance": "a-0", "version": "v2"}}') == "a-0 v2"
    assert answered_by({}, '{"pod": "echo-0"}') == "echo-0"
    assert answered_by({}, "[1]") == answered_by({}, "no json") == ""


def test_summary_takes_the_nearest_rank() -> None:
    replies = [Reply(status=200, ms=float(ms), headers={}) for ms in range(1, 101)]
    found = summary([*replies, Reply(status=0, ms=9999, headers={}, error="x")])
    assert (found["p50Ms"], found["p99Ms"], found["failed"], found["count"]) == (50, 99, 1, 101)
    assert summary([])["p50Ms"] is None


def test_names() -> None:
    text = "1.1.1.1 a b # c\n\n# x\n2.2.2.2 B d\n"
    assert read_names(text) == {"a": "1.1.1.1", "b": "1.1.1.1", "d": "2.2.2.2"}
