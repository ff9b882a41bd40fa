from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.plane import Plane, plane

from weft.identity.bundle import REFRESH_HINT, read_bundle
from weft.identity.join import JoinToken
from weft.names import CONTROL_PLANE_HOST
from weft.node.enrolment import Membership, join
from weft.node.keys import make_key, request_for
from weft.node.remote import trusting_context
from weft.spiffe import SpiffeId


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Plane]:
    async with plane(tmp_path / "control") as running:
        yield running


@pytest.fixture
async def member(control: Plane, tmp_path: Path) -> Membership:
    return await join(control.url, await control.token(), "host1", ["192.0.2.1"], tmp_path)


async def ask(
    control: Plane, method: str, path: str, body: Any = None, *, key: str = "", certificate: str = ""
) -> tuple[int, Any]:
    context = trusting_context(control.authority.bundle, key=key, certificate=certificate)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as http,
        http.request(
            method, control.url + path, data=data, ssl=context, server_hostname=CONTROL_PLANE_HOST
        ) as reply,
    ):
        return reply.status, await reply.json()


async def locally(control: Plane, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(str(control.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, f"http://weft{path}", json=body) as reply,
    ):
        return reply.status, await reply.json()


@asynccontextmanager
async def opened(
    control: Plane, member: Membership, name: str = "host1"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    own = member.credential
    context = trusting_context(own.bundle, key=own.key, certificate=own.certificate)
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(
            f"{control.url}/weft/v1/nodes/{name}/session", ssl=context, server_hostname=CONTROL_PLANE_HOST
        ) as socket,
    ):
        yield socket


async def told(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            message = await socket.receive_json()
            if message["type"] == kind:
                found: dict[str, Any] = message
                return found


class TestTokens:
    async def test_an_operator_makes_lists_and_revokes(self, control: Plane) -> None:
        status, made = await locally(
            control, "POST", "/weft/v1/tokens", {"allow": ["shop"], "lifetime": "5m", "uses": 2}
        )
        assert status == 201
        token = JoinToken.parse(made["token"])
        assert token.pin == control.authority.pin
        _, listed = await locally(control, "GET", "/weft/v1/tokens")
        assert [(row["id"], row["state"], row["allow"], row["uses"]) for row in listed["tokens"]] == [
            (token.id, "usable", ["shop/*"], 2)
        ]
        assert token.secret not in json.dumps(listed)
        status, revoked = await locally(control, "DELETE", f"/weft/v1/tokens/{token.id}")
        assert (status, revoked["state"]) == (200, "revoked")
        assert (await locally(control, "DELETE", "/weft/v1/tokens/none"))[0] == 404

    @pytest.mark.parametrize(
        "body",
        [
            {"lifetime": 5},
            {"lifetime": "90d"},
            {"uses": 0},
            {"uses": "many"},
            {"allow": "shop"},
            {"allow": ["a/b/c"]},
            [],
        ],
    )
    async def test_what_makes_no_sense(self, control: Plane, body: Any) -> None:
        status, answer = await locally(control, "POST", "/weft/v1/tokens", body)
        assert status == 400
        assert answer["message"]

    async def test_nobody_else_may(self, control: Plane, member: Membership) -> None:
        own = member.credential
        for method, path in (
            ("GET", "/weft/v1/tokens"),
            ("POST", "/weft/v1/tokens"),
            ("GET", "/weft/v1/nodes"),
            ("DELETE", "/weft/v1/nodes/host1"),
        ):
            status, _ = await ask(control, method, path, {})
            assert status == 401
            status, answer = await ask(control, method, path, {}, key=own.key, certificate=own.certificate)
            assert status == 403
            assert 'User "system:node:host1" cannot' in answer["message"]

    async def test_the_command(self, control: Plane) -> None:
        async def weft(*argv: str) -> tuple[int, str, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from weft.cli import main; main()", *argv,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "WEFT_SERVER": str(control.socket)},
            )  # fmt: skip
            out, err = await process.communicate()
            assert process.returncode is not None
            return process.returncode, out.decode(), err.decode()

        code, text, error = await weft("token", "create", "--allow", "shop/web", "--uses", "3")
        assert code == 0, error
        token = JoinToken.parse(text)
        code, text, _ = await weft("token", "list")
        assert code == 0
        assert text.splitlines()[1].split()[:3] == [token.id, "usable", "0/3"]
        assert (await weft("token", "revoke", token.id))[0] == 0
        code, _, text = await weft("token", "revoke", "none")
        assert code == 1
        assert "weft token list" in text
        code, _, text = await weft("token", "create", "--for", "5")
        assert code == 2
        assert "write a number and a unit" in text

    async def test_the_command_for_nodes(self, control: Plane, member: Membership, tmp_path: Path) -> None:
        async def weft(*argv: str) -> tuple[int, str, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from weft.cli import main; main()", *argv,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "WEFT_SERVER": str(control.socket)},
            )  # fmt: skip
            out, err = await process.communicate()
            assert process.returncode is not None
            return process.returncode, out.decode(), err.decode()

        code, text, error = await weft("nodes", "list")
        assert code == 0, error
        assert text.splitlines()[1].split()[:4] == [member.node, "no", "0", "*/*"]
        code, _, error = await weft("nodes", "remove", f"{member.node}x")
        assert (code, f"did you mean '{member.node}'?" in error) == (1, True)
        assert (await weft("nodes", "remove", member.node))[0] == 0
        code, _, error = await weft("nodes", "remove", member.node)
        assert (code, f"there is no node '{member.node}'" in error) == (1, True)
        assert "weft nodes list" in error
        own = member.credential
        body = {"csr": request_for(make_key()), "namespace": "shop", "serviceAccount": "web"}
        status, answer = await ask(
            control, "POST", "/weft/v1/certificates", body, key=own.key, certificate=own.certificate
        )
        assert (status, "is not part of this mesh" in answer["message"]) == (403, True)
        # It comes back with a token made for it.
        (tmp_path / "again").mkdir()
        again = await join(
            control.url, await control.token(node=member.node), member.node, [], tmp_path / "again"
        )
        assert again.credential.key != own.key


class TestDoors:
    async def test_the_bundle_is_public(self, control: Plane) -> None:
        status, answer = await ask(control, "GET", "/weft/v1/bundle")
        assert status == 200
        assert answer["bundle"] == control.authority.bundle
        assert answer["trustDomain"] == "cluster.local"
        # The same in SPIFFE's form, for other trust domains.
        published = read_bundle(json.dumps(answer).encode())
        assert (published.roots, published.refresh) == (control.authority.bundle, REFRESH_HINT)
        assert [key["use"] for key in answer["keys"]] == ["x509-svid", "jwt-svid"]
        _, tokens = await ask(control, "GET", "/weft/v1/jwks")
        assert [{**key, "use": "jwt-svid"} for key in tokens["keys"]] == answer["keys"][1:]
        assert list(published.token_keys) == tokens["keys"], "what another mesh reads verifies ours"
        # Whom this mesh trusts is for its nodes.
        assert (await ask(control, "GET", "/weft/v1/jwks/federated"))[0] == 401

    @pytest.mark.parametrize(
        "body",
        [b"", b"[]", b"{", b"null", b'{"token":1}', b'{"token":"x","csr":"y","node":"z"}', b"x" * 70_000],
    )
    async def test_malformed_enrolments(self, control: Plane, body: bytes) -> None:
        status, answer = await ask(control, "POST", "/weft/v1/enroll", body)
        assert status in {400, 413}
        assert answer["message"]

    @pytest.mark.parametrize("name", ["", "../x", "A", "a" * 64, "a b"])
    async def test_names_that_no_node_bears(self, control: Plane, name: str) -> None:
        body = {"token": await control.token(), "csr": request_for(make_key()), "node": name}
        assert (await ask(control, "POST", "/weft/v1/enroll", body))[0] == 400
        assert [token.used for token in await control.issuer.tokens.list()] == [0]

    async def test_a_workload_is_no_node(self, control: Plane) -> None:
        key = make_key()
        identity = SpiffeId("cluster.local", "shop", "web")
        chain = control.authority.sign(request_for(key), identity, now=control.clock())
        body = {"csr": request_for(key), "namespace": "shop", "serviceAccount": "db"}
        status, _ = await ask(control, "POST", "/weft/v1/certificates", body, key=key, certificate=chain)
        assert status == 401, "the gate knows nodes and administrators"

    async def test_a_node_may_not_read_resources(self, control: Plane, member: Membership) -> None:
        own = member.credential
        status, _ = await ask(control, "GET", "/api/v1/secrets", key=own.key, certificate=own.certificate)
        assert status == 403

    async def test_every_certificate_is_in_the_audit_log(self, control: Plane, member: Membership) -> None:
        own = member.credential
        body = {"csr": request_for(make_key()), "namespace": "shop", "serviceAccount": "web"}
        status, _ = await ask(
            control, "POST", "/weft/v1/certificates", body, key=own.key, certificate=own.certificate
        )
        assert status == 200
        assert [(line.identity, line.node) for line in control.audit] == [
            ("spiffe://cluster.local/weft/node/host1", "host1"),
            ("spiffe://cluster.local/ns/shop/sa/web", "host1"),
        ]
        assert control.audit[0].token
        assert control.audit[1].serial != control.audit[0].serial


class TestSession:
    async def test_another_nodes_session(self, control: Plane, member: Membership) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with opened(control, member, "host2"):
                pass
        assert refused.value.status == 403

    @pytest.mark.parametrize("text", ["", "{", "[]", '"hello"', "1"])
    async def test_what_is_no_message_ends_it(self, control: Plane, member: Membership, text: str) -> None:
        async with opened(control, member) as socket:
            await socket.send_str(text)
            async with asyncio.timeout(10):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
            assert socket.close_code == 4000

    async def test_unknown_messages_and_fields_are_for_newer_nodes(
        self, control: Plane, member: Membership
    ) -> None:
        async with opened(control, member) as socket:
            await socket.send_json({"type": "dance"})
            await socket.send_json({"type": "ping", "more": 1})
            assert await told(socket, "pong")

    @pytest.mark.parametrize(
        "fields",
        [
            {"address": "here"},
            {"ports": {"http": "8080"}},
            {"ports": {"http": 70000}},
            {"labels": {"a b": "c"}},
            {"labels": {"a": "x" * 64}},
            {"namespace": "../etc"},
            {"name": ""},
            {"kind": "ghost"},
            {"id": "other/name"},
        ],
        ids=lambda fields: json.dumps(fields)[:30],
    )
    async def test_malformed_instances_are_refused_by_field(
        self, control: Plane, member: Membership, fields: dict[str, Any]
    ) -> None:
        good = {"namespace": "shop", "name": "web-0", "address": "192.0.2.7"}
        async with opened(control, member) as socket:
            await socket.send_json({"type": "hello", "node": "host1", "workloads": []})
            await told(socket, "welcome")
            await socket.send_json({"type": "register", **good, **fields})
            refused = await told(socket, "refused")
            assert next(iter(fields)) in refused["message"]

    async def test_what_this_node_has_not_registered(self, control: Plane, member: Membership) -> None:
        async with opened(control, member) as socket:
            await socket.send_json({"type": "update", "id": "shop/web-0", "ready": True})
            assert (await told(socket, "refused"))["id"] == "shop/web-0"

    async def test_operators_see_nodes_and_remove_them(self, control: Plane, member: Membership) -> None:
        async with opened(control, member) as socket:
            await socket.send_json({"type": "hello", "node": "host1", "workloads": []})
            await told(socket, "welcome")
            _, listed = await locally(control, "GET", "/weft/v1/nodes")
            assert [(row["name"], row["connected"]) for row in listed["nodes"]] == [("host1", True)]
            assert (await locally(control, "DELETE", "/weft/v1/nodes/host1"))[0] == 200
            async with asyncio.timeout(10):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
            assert socket.close_code == 4003
