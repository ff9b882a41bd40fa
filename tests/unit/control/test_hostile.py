"""What strangers and broken clients send: refused in words, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.plane import Plane, plane

from weft.control.api.app import create_app, same_user
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.errors import Severity
from weft.model.parse import parse_object
from weft.names import CONTROL_PLANE_HOST
from weft.node.enrolment import Membership, join
from weft.node.remote import trusting_context

SERVICES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
DEEP = b'{"a":' * 100_000
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
async def door(objects: Objects, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """The API as a client without manners sees it."""
    stop = asyncio.Event()
    app = create_app(objects, authenticate=same_user(os.getuid()), stop=stop)
    path = tmp_path / "api.sock"
    async with (
        serve_api(app, socket_path=path, stop=stop),
        aiohttp.ClientSession("http://weft", connector=aiohttp.UnixConnector(str(path))) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("method", "path", "form", "body"),
    [
        ("POST", SERVICES, "application/json", DEEP),
        ("POST", SERVICES, "application/json", b"[" * 100_000),
        ("POST", SERVICES, "application/json", b'{"a":"\xff"}'),
        ("POST", SERVICES, "application/json", b'{"metadata":{"name":"\\ud800"}}'),
        ("POST", SERVICES, "application/json", b"NaN"),
        ("POST", SERVICES, "application/vnd.kubernetes.protobuf", b"k8s\0" + b"\xff" * 64),
        ("PATCH", f"{SERVICES}/x", "application/merge-patch+json", DEEP),
        ("PATCH", f"{SERVICES}/x", "application/json-patch+json", DEEP),
        ("PATCH", f"{SERVICES}/x", "application/strategic-merge-patch+json", DEEP),
        ("POST", "/weft/v1/apply", "application/json", DEEP),
        ("POST", REVIEW, "application/json", DEEP),
        ("POST", REVIEW, "application/json", b'{"spec":5}'),
        ("POST", REVIEW, "application/json", b'{"metadata":[1]}'),
        ("POST", REVIEW, "application/json", b'{"spec":{"resourceAttributes":"all"}}'),
    ],
)
async def test_a_hostile_body_is_a_bad_request(
    door: aiohttp.ClientSession, method: str, path: str, form: str, body: bytes
) -> None:
    async with door.request(method, path, data=body, headers={"content-type": form}) as answer:
        told = await answer.json()
    assert answer.status in {400, 404}, told
    assert told["kind"] == "Status"
    async with door.get(SERVICES) as after:
        assert after.status == 200


async def test_watches_that_nobody_reads_hold_up_neither_writers_nor_readers(
    door: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def watch() -> None:
        async with door.get(f"{SERVICES}?watch=1") as answer:
            seen = b""
            while b'"name":"last"' not in seen:
                seen = (await answer.content.readline()) or pytest.fail("the watch ended")

    silent = [await door.get(f"{SERVICES}?watch=1") for _ in range(20)]
    readers = [asyncio.create_task(watch()) for _ in range(20)]
    spec = {"hosts": ["a"], "http": [{"match": [{"uri": {"prefix": "/" + "x" * 50_000}}]}]}
    spec["http"][0]["route"] = [{"destination": {"host": "a"}}]  # type: ignore[index]
    async with asyncio.timeout(60):
        for name in (*(f"large-{number}" for number in range(30)), "last"):
            wire = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
            body = {**wire, "metadata": {"name": name}, "spec": spec}
            async with door.post(SERVICES, json=body) as answer:
                assert answer.status == 201
        await asyncio.gather(*readers)
    for answer in silent:
        answer.close()


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Plane]:
    async with plane(tmp_path / "control") as running:
        yield running


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"token":"\\ud800","csr":"\\ud800","node":"a"}', b"\xff"])
async def test_anybody_may_knock_at_enrolment_and_leaves_no_trace(
    control: Plane, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    context = trusting_context(control.authority.bundle)
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{control.url}/weft/v1/enroll", data=body, ssl=context, server_hostname=CONTROL_PLANE_HOST
        ) as answer,
    ):
        assert answer.status == 400
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_token_for_no_nodes_name_is_refused(control: Plane) -> None:
    connector = aiohttp.UnixConnector(str(control.socket))
    async with aiohttp.ClientSession("http://weft", connector=connector) as http:
        for body in (b'{"node":"\\ud800"}', b'{"node":"../x"}', b'{"lifetime":"99999999999999999h"}'):
            async with http.post("/weft/v1/tokens", data=body) as answer:
                assert answer.status == 400


@pytest.mark.parametrize(
    "frame",
    [
        "[" * 100_000,
        "null",
        '{"type":"register","id":"\\ud800"}',
        '{"type":"register","attachment":{"inboundPorts":[1]},"name":"a","namespace":"b","address":"::1"}',
        '{"type":"hello","workloads":5}',
        '{"type":"hello","workloads":[[],{},5],"gone":[{}]}',
        '{"type":"update","id":{},"draining":true}',
        '{"type":{}}',
        b"\xff\x00",
    ],
)
async def test_a_hostile_frame_ends_at_most_its_own_session(
    control: Plane, tmp_path: Path, frame: str | bytes
) -> None:
    async def session(member: Membership, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        own = member.credential
        return await http.ws_connect(
            f"{control.url}/weft/v1/nodes/{member.node}/session",
            ssl=trusting_context(own.bundle, key=own.key, certificate=own.certificate),
            server_hostname=CONTROL_PLANE_HOST,
        )

    members = []
    for name in ("hostile", "decent"):
        (tmp_path / name).mkdir()
        members.append(await join(control.url, await control.token(), name, ["192.0.2.1"], tmp_path / name))
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        hostile, decent = [await session(member, http) for member in members]
        await (hostile.send_str(frame) if isinstance(frame, str) else hostile.send_bytes(frame))
        await decent.send_json({"type": "ping"})
        while (await decent.receive_json())["type"] != "pong":
            pass
        again = await session(members[0], http)
        await again.send_json({"type": "ping"})
        while (await again.receive_json())["type"] != "pong":
            pass


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "*", "."]),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["VirtualService", "DestinationRule", "ServiceEntry", "Gateway", "WorkloadEntry"]),
    st.dictionaries(
        st.sampled_from(["hosts", "http", "tcp", "host", "trafficPolicy", "ports", "servers", "address"]),
        _TREES,
    ),
)
def test_whatever_is_in_a_spec_it_is_taken_or_refused(kind: str, spec: dict[str, Any]) -> None:
    wire = {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    resource, problems = parse_object(wire)
    assert resource is not None or [one for one in problems if one.severity is Severity.ERROR]
    json.dumps([str(problem) for problem in problems]).encode()
