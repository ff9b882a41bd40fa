"""Credentials at the doors of a real control plane: whose opens what, and what strangers try."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from tests.support.plane import eventually
from tests.support.ports import free_port

from weft.cli import weft as cli
from weft.client import ApiClient, RefusedError, Server
from weft.client.kubeconfig import read_kubeconfig
from weft.control.app import control_plane
from weft.control.options import ControlOptions, Listening
from weft.control.security import AUDIT_LOG
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.pem import write_key
from weft.identity.users import Audience, CredentialError, Users, check_groups, check_user
from weft.model.resource import Key
from weft.names import CONTROL_PLANE_HOST
from weft.node.enrolment import join
from weft.node.remote import trusting_context
from weft.spiffe import AdminId, SpiffeId, UserId
from weft.store.sqlite import SqliteStore

SPACES = "/api/v1/namespaces"


@dataclass
class Running:
    listening: Listening
    state: Path
    authority: Authority

    async def weft(self, *words: str, server: str = "", code: int = 0) -> str:
        """A command."""
        place = ["--server", server or str(self.listening.socket)] if words[0] != "audit" else []
        result = await asyncio.to_thread(CliRunner().invoke, cli, [*words, *place])
        assert (1 if result.exception else 0) == code, (words, result.output, result.exception)
        return result.stdout

    async def get(self, path: str = SPACES, *, key: str = "", certificate: str = "", token: str = "") -> int:
        """What somebody from outside is answered."""
        context = trusting_context(self.authority.bundle, key=key, certificate=certificate)
        headers = {"authorization": token if " " in token else f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as client,
            client.get(
                f"{self.listening.api}{path}",
                ssl=context,
                headers=headers,
                server_hostname=CONTROL_PLANE_HOST,
            ) as answer,
        ):
            await answer.read()
            return answer.status

    def issue(self, identity: Any, authority: Authority | None = None, **options: Any) -> tuple[str, str]:
        """A key and a certificate that the authority of the mesh (or another one) signs."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509 import CertificateSigningRequestBuilder, Name

        key = ec.generate_private_key(ec.SECP256R1())
        request = CertificateSigningRequestBuilder(Name([])).sign(key, hashes.SHA256())
        chain = (authority or self.authority).sign(
            request.public_bytes(Encoding.PEM).decode(), identity, **{"now": datetime.now(UTC), **options}
        )
        return write_key(key), chain

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / AUDIT_LOG).read_text().splitlines()]


async def _known(mesh: Running, name: str) -> bool:
    return name in await mesh.weft("user", "list")


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Running]:
    from weft.control.handover import OwnAuthority

    directory.mkdir(exist_ok=True)
    authority = Authority.create(datetime.now(UTC))
    (directory / "key.pem").write_text(write_key(authority.key))
    (directory / "key.pem").chmod(0o600)
    (directory / "root.pem").write_text(authority.bundle)
    own = OwnAuthority(key=directory / "key.pem", chain=directory / "root.pem", roots=directory / "root.pem")
    options = ControlOptions(
        runtime=directory / "run", state=directory / "state", listen="127.0.0.1", api_port=free_port(),
        xds_port=free_port(), monitoring_port=0, telemetry_port=0, own_authority=own,
    )  # fmt: skip
    stop = asyncio.Event()
    async with control_plane(options, stop) as listening:
        yield Running(listening, options.state, authority)
        stop.set()


async def test_what_opens_the_api_and_what_does_not(tmp_path: Path) -> None:
    """The attack table: each line is a credential of a kind that somebody may come by."""
    async with running(tmp_path / "a") as mesh:
        other = Authority.create(datetime.now(UTC))
        domain = mesh.authority.trust_domain
        made = json.loads(await mesh.weft("user", "create", "ann", "--read-only", "-o", "json"))
        token: str = made["token"]
        head, name, secret = token.split(".")
        narrow = json.loads(
            await mesh.weft("user", "create", "scraper", "--for", "monitoring", "-o", "json")
        )["token"]
        joining = (await mesh.weft("token", "create")).strip()
        day = timedelta(days=1)
        past: dict[str, Any] = {"now": datetime.now(UTC) - 2 * day, "lifetime": day}
        tokens = {
            "nothing": ("", 401),
            "a token": (token, 200),
            "a token twice": (f"{token} {token}", 401),
            "another scheme": (f"Basic {token}", 401),
            "a wrong secret": (f"{head}.{name}.{'A' * 43}", 401),
            "a secret that is a beginning": (f"{head}.{name}.{secret[:-1]}", 401),
            "a token of another mesh": (f"{head}.{'x' * 10}.{secret}", 401),
            "a token for another door": (narrow, 401),
            "a join token": (joining, 401),
            "a huge one": (f"{head}.{name}.{'A' * 30_000}", 401),
            "letters beyond ASCII": (f"{head}.{name}.\u00e4{'A' * 42}", 401),
        }
        for what, (text, status) in tokens.items():
            assert await mesh.get(token=text) == status, what
        certificates = {
            "an administrator's": (mesh.issue(AdminId(domain, "root")), 200),
            "a workload's": (mesh.issue(SpiffeId(domain, "default", "default")), 401),
            "a workload's that is called like the control plane": (
                mesh.issue(SpiffeId(domain, "istio-system", "istiod")),
                401,
            ),
            "a user's that nobody recorded": (mesh.issue(UserId(domain, "ann")), 401),
        }
        for what, ((key, chain), status) in certificates.items():
            assert await mesh.get(key=key, certificate=chain) == status, what
        for what, (key, chain) in {
            "an expired one": mesh.issue(AdminId(domain, "root"), **past),
            "of another authority": mesh.issue(AdminId(domain, "root"), other),
        }.items():
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await mesh.get(key=key, certificate=chain)
            assert what
        # A refused token is not made good by the certificate that comes with it.
        key, chain = certificates["an administrator's"][0]
        assert await mesh.get(key=key, certificate=chain, token=f"{token}x") == 401
        # Revoked: the next request already.
        await mesh.weft("user", "revoke", token)
        assert await mesh.get(token=token) == 401
        refused = [line for line in mesh.audit() if line["event"] == "refused"]
        assert any("was revoked" in line["why"] for line in refused)
        assert any("is not for the api" in line["why"] for line in refused)
        assert all(line["from"].startswith("127.0.0.1:") for line in refused)
        text = (mesh.state / AUDIT_LOG).read_text()
        assert not any(word in text for word in (secret, narrow, joining))


async def test_a_node_sees_its_own(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        joined = {}
        for name in ("one", "two"):
            token = (await mesh.weft("token", "create", "--allow", f"{name}/*")).strip()
            (tmp_path / name).mkdir()
            joined[name] = await join(mesh.listening.api, token, name, ["192.0.2.1"], tmp_path / name)
            # Used up: whoever comes by it later joins nothing.
            with pytest.raises(WeftError):
                await join(mesh.listening.api, token, f"{name}-again", ["192.0.2.1"], tmp_path)
        turned = [line["why"] for line in mesh.audit() if line["event"] == "refused"]
        assert len(turned) == 2
        assert all("has been used once already" in why for why in turned)
        issued = [line for line in mesh.audit() if line["event"] == "certificate" and line.get("token")]
        assert {line["node"] for line in issued} == {"one", "two"}
        own = joined["one"].credential
        context = trusting_context(own.bundle, key=own.key, certificate=own.certificate)
        url = mesh.listening.api
        options: dict[str, Any] = {"ssl": context, "server_hostname": CONTROL_PLANE_HOST}
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"{url}/weft/v1/nodes/two/session", **options)
            assert refused.value.status == 403
            async with client.ws_connect(f"{url}/weft/v1/nodes/one/session", **options):
                pass
            body = {"csr": own.certificate, "namespace": "two", "serviceAccount": "default"}
            for method, path, asked, status in (
                ("GET", SPACES, None, 403),
                ("GET", "/api/v1/secrets", None, 403),
                ("GET", "/weft/v1/nodes", None, 403),
                ("GET", "/weft/v1/users", None, 403),
                ("POST", "/weft/v1/users", {"name": "me", "groups": ["system:masters"]}, 403),
                ("POST", "/weft/v1/tokens", {}, 403),
                ("DELETE", "/weft/v1/nodes/two", None, 403),
                ("GET", "/weft/v1/proxies", None, 403),
                ("GET", "/weft/v1/ca", None, 403),
                ("POST", "/weft/v1/ca/rotation", {}, 403),
                ("GET", "/metrics", None, 403),
                ("POST", "/weft/v1/apply", {"objects": [{"apiVersion": "v1", "kind": "Secret"}]}, 403),
                ("POST", "/weft/v1/certificates", body, 400),
            ):
                async with client.request(method, f"{url}{path}", json=asked, **options) as answer:
                    assert answer.status == status, (method, path, await answer.text())


async def test_a_kubeconfig_of_each_kind_lets_somebody_in_until_it_is_revoked(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        for kind in ("token", "certificate"):
            file = tmp_path / kind
            making = ("user", "create", kind, "--read-only", f"--{kind}", "--ttl", "1h")
            await mesh.weft(*making, "--kubeconfig", str(file))
            assert file.stat().st_mode & 0o777 == 0o600
            async with ApiClient(read_kubeconfig(file)) as client:
                await client.raw("GET", SPACES)
                with pytest.raises(RefusedError) as refused:
                    await client.raw("POST", SPACES, {"metadata": {"name": "mine"}})
                assert refused.value.code == 403
                assert f'User "{kind}" cannot create' in refused.value.message
            shown = await mesh.weft("get", "namespaces", server=str(file))
            assert "istio-system" in shown
            # Commands that look at everything do without what is not shown to this one.
            for words in (("get", "all", "-A"), ("analyze", "-A")):
                await mesh.weft(*words, server=str(file))
            kubectl = ("kubectl", f"--kubeconfig={file}", f"--cache-dir={tmp_path / 'cache'}", "get", "ns")
            done = await asyncio.to_thread(subprocess.run, kubectl, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            listed = await mesh.weft("user", "list")
            assert kind in listed
            await mesh.weft("user", "revoke", kind)
            async with ApiClient(read_kubeconfig(file)) as client:
                with pytest.raises(RefusedError) as refused:
                    await client.raw("GET", SPACES)
                assert refused.value.code == 401
            file.chmod(0o644)
            with pytest.raises(WeftError, match="read by others"):
                read_kubeconfig(file)
        await mesh.weft("user", "revoke", "nobody", code=1)
        own = read_kubeconfig(mesh.listening.kubeconfig)
        async with ApiClient(own) as client:
            await client.raw("GET", SPACES)
            await eventually(lambda: _known(mesh, "admin"), 30)
            await mesh.weft("user", "revoke", "admin")
            with pytest.raises(RefusedError) as refused:
                await client.raw("GET", SPACES)
            assert refused.value.code == 401


async def test_who_may_look_at_one_namespace_gets_answers_about_it(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        file = str(tmp_path / "team")
        await mesh.weft("user", "create", "bob", "--group", "team", "--kubeconfig", file)
        await mesh.weft("analyze", "-n", "shop", server=file, code=1)
        group = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "team", "namespace": "shop"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "Group", "name": "team"}],
        }
        port = {"name": "http", "port": 80}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"}}
        async with ApiClient(Server(socket_path=mesh.listening.socket)) as client:
            await client.apply([binding, {**service, "spec": {"ports": [port]}}])
        await mesh.weft("analyze", "-n", "shop", server=file)
        assert "cart" in await mesh.weft("describe", "cart", "-n", "shop", server=file)
        assert "cart" in await mesh.weft("get", "all", "-n", "shop", server=file)
        assert "NAMESPACE" in await mesh.weft("proxy", "status", server=file)


async def test_the_log_tells_the_whole_story_and_holds(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        log = str(mesh.state / AUDIT_LOG)
        made = json.loads(await mesh.weft("user", "create", "ann", "--read-only", "-o", "json"))
        server = Server(socket_path=mesh.listening.socket)
        async with ApiClient(server) as client:
            body = {"metadata": {"name": "c"}, "data": {"a": "b"}}
            await client.raw("POST", f"{SPACES}/default/configmaps", body)
            path = f"{SPACES}/default/configmaps/c"
            headers = {"content-type": "application/merge-patch+json"}
            await client.raw("PATCH", path, {"data": {"a": "c"}}, headers=headers)
        assert await mesh.get("/api/v1/secrets", token=made["token"]) == 403
        lines = mesh.audit()
        (denied,) = [line for line in lines if line["event"] == "denied"]
        assert (denied["actor"], denied["verb"], denied["kind"]) == ("ann", "list", "/secrets")
        assert denied["how"] == "token"
        assert denied["credential"] == made["id"]
        changed = [line for line in lines if line.get("verb") == "update" and line["kind"] == "/ConfigMap"]
        assert [(line["old"], line["new"]) for line in changed] == [
            ({"data": {"a": "b"}}, {"data": {"a": "c"}})
        ]
        assert await mesh.weft("get", "secrets", "-A") == ""
        (seen,) = [line for line in mesh.audit() if line["event"] == "read"]
        assert (seen["verb"], seen["kind"], seen["how"]) == ("list", "/secrets", "socket")
        assert "denied" in await mesh.weft("audit", "--file", log, "--who", "ann")
        assert "ConfigMap" not in await mesh.weft("audit", "--file", log, "--event", "denied")
        assert "lines hold" in await mesh.weft("audit", "verify", "--file", log)
        assert len((await mesh.weft("audit", "--file", log, "-o", "json")).splitlines()) >= len(lines)


async def test_users(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with SqliteStore.open(tmp_path) as store:
        users = Users(store.private("users"), lambda: now)
        text, made = await users.token("ann", groups=["b", "a", "b"], audiences=[Audience.API])
        assert made.groups == ("a", "b")
        assert text not in repr(made)
        assert text.split(".")[2].encode() not in (await store.private("users").list())[made.id]
        assert (await users.by_token(text)).user == "ann"
        again, _ = await users.token("ann")
        await users.certificate("bob", 0xABC)
        assert (await users.by_serial(0xABC)) is not None
        assert await users.by_serial(0xABD) is None
        with pytest.raises(CredentialError):  # a serial number is no token
            await users.by_token(f"weftuser.{'abc':>010}.{'A' * 43}")
        now += timedelta(days=31)
        with pytest.raises(CredentialError, match="expired"):
            await users.by_token(text)
        with pytest.raises(CredentialError, match="expired"):
            await users.by_serial(0xABC)
        now -= timedelta(days=31)
        assert {one.revoked for one in await users.revoke("ann")} == {True}
        for token in (text, again):
            with pytest.raises(CredentialError, match="revoked"):
                await users.by_token(token)
        with pytest.raises(WeftError):
            await users.token("eve", lifetime=timedelta(days=400))
        now += timedelta(days=100)
        await users.token("late")
        assert [one.user for one in await users.list()] == ["late"]
        assert store.revision == 0
        assert await store.get(Key("", "", "")) is None


@pytest.mark.parametrize("name", ["", "system:x", "a b", "a/b", "a" * 200, "system:serviceaccount:a", "é"])
def test_names_that_nobody_can_bear(name: str) -> None:
    with pytest.raises(WeftError):
        check_user(name)


@pytest.mark.parametrize("group", ["", "system:nodes", "system:authenticated", "a\nb", "system:x"])
def test_groups_that_no_credential_gives(group: str) -> None:
    with pytest.raises(WeftError):
        check_groups([group])
