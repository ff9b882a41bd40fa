"""Who changed what: a line each; and a control plane under an authority of the operator's own."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port

from weft.client import ApiClient, RefusedError, Server
from weft.control.api.app import create_app, same_user
from weft.control.api.metadata import encode
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.api.writes import Options, Write
from weft.control.app import control_plane
from weft.control.audit import AuditLog
from weft.control.chain import files, raw_lines, verify
from weft.control.handover import OwnAuthority
from weft.control.options import ControlOptions
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.pem import write_key
from weft.model.resource import Key
from weft.store.interface import Put, Stored
from weft.store.sqlite import SqliteStore

PATH = "/api/v1/namespaces/shop/secrets"


def config(value: str) -> dict[str, object]:
    about = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}}
    return {**about, "stringData": {"password": f"plain-{value}"}}


async def test_changes_through_the_api_are_recorded_without_their_secrets(tmp_path: Path) -> None:
    log, stop, socket = tmp_path / "audit.log", asyncio.Event(), tmp_path / "api.sock"
    audit = AuditLog(log)
    async with SqliteStore.open(tmp_path / "store") as store:
        objects = Objects(store, committed=audit.changes)
        app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
        async with (
            serve_api(app, socket_path=socket, stop=stop),
            ApiClient(Server(socket_path=socket)) as api,
        ):
            await api.raw("POST", PATH, config("one"))
            await api.raw("POST", f"{PATH}?dryRun=All", {**config("dry"), "metadata": {"name": "dry"}})
            await api.apply([config("two")], namespace="shop")
            await api.apply([config("two")], namespace="shop")
            await api.raw("DELETE", f"{PATH}/c")
        revision = store.revision
    audit.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(line["verb"], line["kind"], line["namespace"], line["name"]) for line in lines]
    assert told == [
        ("create", "/Namespace", "", "shop"),
        ("create", "/Secret", "shop", "c"),
        ("update", "/Secret", "shop", "c"),
        ("delete", "/Secret", "shop", "c"),
    ]
    assert {line["event"] for line in lines} == {"change"}
    assert all(line["actor"] and datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    revisions = [line["revision"] for line in lines]
    assert revisions == sorted(revisions)
    assert revisions[-1] == revision
    words = [f"plain-{value}" for value in ("one", "two", "dry")]
    words += [base64.b64encode(word.encode()).decode() for word in words]
    assert not any(word in log.read_text() for word in words)
    created, updated = lines[1]["new"]["data"]["password"], lines[2]["new"]["data"]["password"]
    assert created != updated
    assert lines[2]["old"]["data"] == {"password": created}
    assert lines[3]["old"]["data"] == {"password": updated}
    assert {line["from"] for line in lines} == {f"uid {os.getuid()}, pid {os.getpid()}"}
    assert all(line["request"] and line["groups"] for line in lines)
    assert log.stat().st_mode & 0o777 == 0o600


async def test_an_authority_of_ones_own_signs(tmp_path: Path) -> None:
    mine = Authority.create(datetime.now(UTC))
    (tmp_path / "key.pem").write_text(write_key(mine.key))
    (tmp_path / "root.pem").write_text(mine.bundle)
    root = tmp_path / "root.pem"

    def options(authority: OwnAuthority | None) -> ControlOptions:
        return ControlOptions(
            runtime=tmp_path / "run", state=tmp_path / "state", listen="127.0.0.1", xds_port=free_port(),
            api_port=0, monitoring_port=0, telemetry_port=0, own_authority=authority,
        )  # fmt: skip

    async def bundle(own: OwnAuthority | None) -> str:
        stop = asyncio.Event()
        async with (
            control_plane(options(own), stop) as listening,
            ApiClient(Server(socket_path=listening.socket)) as client,
        ):
            found: str = (await client.raw("GET", "/weft/v1/bundle"))["bundle"]
            stop.set()
            return found

    assert await bundle(OwnAuthority(key=tmp_path / "key.pem", chain=root, roots=root)) == mine.bundle
    assert await bundle(None) == mine.bundle
    with pytest.raises(WeftError, match="cannot be read"):
        await bundle(OwnAuthority(key=tmp_path / "no.pem", chain=root, roots=root))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for _, _, text in raw_lines(path)]


def test_the_chain_holds_over_files_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(3):
        log = AuditLog(path, max_bytes=500, keep=100)
        for number in range(5):
            log.write("event", {"number": number})
        log.close()
    assert len(files(path)) > 2
    assert [line["seq"] for line in lines_of(path)] == list(range(1, 16))
    verdict = verify(path)
    assert (verdict.fault, verdict.lines, verdict.first, verdict.last) == ("", 15, 1, log.end)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files(path))
    assert verify(path, known=lines_of(path)[7]["prev"]).found
    assert not verify(path, known="0" * 63 + "1").found


def test_the_oldest_files_go_and_the_rest_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, max_bytes=300, keep=2)
    for number in range(20):
        log.write("event", {"number": number})
    log.close()
    assert len(files(path)) <= 3
    verdict = verify(path)
    assert verdict.fault == ""
    assert verdict.first > 1
    assert verdict.last.seq == 20


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda lines: [*lines[:3], lines[3].replace(b'"number":3', b'"number":7'), *lines[4:]], 5),
        (lambda lines: [*lines[:3], *lines[4:]], 4),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 2),
        (lambda lines: [*lines[:3], b"nonsense", *lines[4:]], 4),
    ],
)
def test_a_line_that_was_touched_is_found(tmp_path: Path, harm: Any, line: int) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    for number in range(8):
        log.write("event", {"number": number})
    log.close()
    noted = log.end.hash
    path.write_bytes(b"\n".join(harm(path.read_bytes().splitlines())) + b"\n")
    assert verify(path).fault.startswith(f"{path}:{line}")
    # What was cut at the end is seen by who noted the newest hash.
    path.unlink()
    log = AuditLog(path)
    log.write("event", {})
    log.close()
    verdict = verify(path, known=noted)
    assert (verdict.fault, verdict.found) == ("", False)


def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    log.write("event", {"a": 1})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"seq":2,"ti')
    log = AuditLog(path)
    log.write("event", {"a": 2})
    log.close()
    assert [line["seq"] for line in lines_of(path)] == [1, 2]
    assert verify(path).fault == ""


def test_a_log_that_is_none_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("something else\n")
    with pytest.raises(WeftError, match="no line of an audit log"):
        AuditLog(path)


async def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of a line: the change is refused, and the log stays whole."""
    log, stop, socket = tmp_path / "audit.log", asyncio.Event(), tmp_path / "api.sock"
    audit = AuditLog(log)
    full = False
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if full and descriptor == audit._descriptor:
            if len(data) > 20:
                return real(descriptor, data[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    async with SqliteStore.open(tmp_path / "store") as store:
        objects = Objects(store, committed=audit.changes, undone=audit.undone)
        app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
        async with (
            serve_api(app, socket_path=socket, stop=stop),
            ApiClient(Server(socket_path=socket)) as api,
        ):
            await api.raw("POST", PATH, config("one"))
            before = store.revision
            full = True
            monkeypatch.setattr("weft.control.audit.os.write", write)
            body = {**config("two"), "metadata": {"name": "other"}}
            with pytest.raises(RefusedError, match="nothing was done") as refused:
                await api.raw("POST", PATH, body)
            assert refused.value.code == 503
            assert "make room" in refused.value.hint
            assert store.revision == before
            with pytest.raises(RefusedError):
                await api.apply([config("three")], namespace="shop")
            with pytest.raises(RefusedError):
                await api.raw("DELETE", f"{PATH}/c")
            # Reading goes on, and writing too once there is room.
            await api.raw("GET", f"{PATH}/c")
            full = False
            await api.raw("POST", PATH, body)
    audit.close()
    assert verify(log).fault == ""
    assert [line["name"] for line in lines_of(log)] == ["shop", "c", "other"]


def test_refusals_cannot_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    for number in range(5000):
        log.refused(f"198.51.100.{number % 256}:{number}", "this token is not known here")
    log.close()
    told = lines_of(path)
    assert 50 <= len(told) < 200
    assert {line["event"] for line in told} == {"refused"}


def test_values_that_are_secret_are_told_apart_and_not_told(tmp_path: Path) -> None:
    def change(kind: str, before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
        key = Key(kind, "shop", "x")
        old = encode({"metadata": {"name": "x"}, **before}) if before is not None else b""
        stored = Stored(key=key, uid="u", revision=1, body=old) if before is not None else None
        put = Put(key=key, uid="u", body=encode({"metadata": {"name": "x"}, **after}))
        log.changes([Write(operation=put, resource=None, before=stored)], Options(actor="me"), 2)
        return lines_of(path)[-1]

    path = tmp_path / "audit.log"
    log = AuditLog(path, key=b"k" * 32)
    env = [{"name": "PASSWORD", "value": "plain-text"}]
    line = change("weft.dev/Workload", None, {"spec": {"env": env}})
    assert line["new"]["spec"]["env"][0]["name"] == "PASSWORD"
    noted = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"a":"plain-text"}}', "b": "c"}
    line = change(
        "/Secret", {"data": {"a": "b"}}, {"metadata": {"annotations": noted}, "data": {"a": "plain-text"}}
    )
    assert line["old"]["data"]["a"] != line["new"]["data"]["a"]
    jwks = {"jwtRules": [{"issuer": "a", "jwks": "plain-text"}]}
    change("security.istio.io/RequestAuthentication", {}, {"spec": jwks})
    line = change("/ConfigMap", {"data": {"a": "1", "b": "2"}}, {"data": {"a": "3"}})
    assert (line["new"], line["old"]) == ({"data": {"a": "3", "b": None}}, {"data": {"a": "1", "b": "2"}})
    line = change("/ConfigMap", {}, {"data": {"a": "x" * 200_000}})
    assert set(line["new"]) == {"bytes", "sha256"}
    log.close()
    assert "plain-text" not in path.read_text()
