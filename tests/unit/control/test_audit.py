"""Who changed what: a line each; and a control plane under an authority of the operator's own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.ports import free_port

from weft.client import ApiClient, Server
from weft.control.api.app import create_app, same_user
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.app import ControlOptions, control_plane
from weft.control.audit import AuditLog
from weft.control.handover import OwnAuthority
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.pem import write_key
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
