"""The Workload API with SPIFFE's own client, a real control plane's end and real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support import spiffe_client
from tests.support.plane import Plane, eventually, plane

from weft import ir
from weft.identity.ca import Authority
from weft.identity.jwt import SigningKey, issue
from weft.identity.scope import Scope
from weft.identity.trust import Trust
from weft.node.app import Node
from weft.node.capture import cgroup
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.choose import Choice, Mode
from weft.node.certificates import trust_all
from weft.node.enrolment import join
from weft.node.layout import Layout
from weft.node.process import Process
from weft.node.session import Session
from weft.node.spec import Placement, WorkloadSpec
from weft.node.workloadapi import serve as module
from weft.node.workloadapi import transport
from weft.node.workloadapi.callers import find
from weft.node.workloadapi.serve import serve
from weft.spiffe import SpiffeId

WEB = "spiffe://cluster.local/ns/shop/sa/web"
HEADER = [["workload.spiffe.io", "true"]]


def placed(**where: Any) -> Placement:
    choice = Choice(mode=Mode.NONE, covers="", limits=(), because="")
    return Placement(choice=choice, address="192.0.2.7", attachment=ir.Attachment(), **where)


@dataclass
class Member:
    """A workload as far as its callers are concerned."""

    spec: WorkloadSpec
    placement: Placement = field(default_factory=placed)
    first: tuple[Process, ...] = ()

    @property
    def id(self) -> str:
        return self.spec.id

    def processes(self) -> tuple[Process, ...]:
        return self.first


class Host:
    """A node whose workloads a test names."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.workloads: dict[str, Any] = {}
        self._changes = asyncio.Condition()
        self._revision = 0

    async def changes(self) -> AsyncIterator[None]:
        seen = -1
        while True:
            async with self._changes:
                await self._changes.wait_for(lambda: self._revision != seen)  # noqa: B023
                seen = self._revision
            yield

    async def set(self, *members: Member) -> None:
        self.workloads = {member.id: member for member in members}
        async with self._changes:
            self._revision += 1
            self._changes.notify_all()


class Application:
    """A process that speaks to the Workload API."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child

    @property
    def process(self) -> Process:
        found = Process.of(self.child.pid)
        assert found is not None
        return found

    async def ask(self, **asked: Any) -> dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(asked).encode() + b"\n")
        return await self.read()

    async def read(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        async with asyncio.timeout(60):
            told: dict[str, Any] = json.loads(await self.child.stdout.readline())
        return told


@asynccontextmanager
async def application(socket: Path) -> AsyncIterator[Application]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, spiffe_client.__file__, str(socket)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Application(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@dataclass
class Setting:
    control: Plane
    host: Host
    session: Session

    @property
    def socket(self) -> Path:
        return self.host.layout.workload_socket

    async def become(self, app: Application, account: str = "web", namespace: str = "shop") -> Member:
        spec = WorkloadSpec(name=f"{account}-0", namespace=namespace, service_account=account)
        member = Member(spec, first=(app.process,))
        await self.host.set(*self.host.workloads.values(), member)
        return member


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with plane(tmp_path / "control", lifetime=timedelta(hours=1)) as control:
        with tempfile.TemporaryDirectory(prefix="weft-t") as base:
            layout = Layout("t", Path(base) / "run" / "t", Path(base) / "state" / "t")
            layout.prepare()
            token = await control.token(scope=Scope.of(["shop"]))
            member = await join(control.url, token, "host1", ["192.0.2.1"], layout.state)
            session = Session(member, layout.state)
            running = asyncio.create_task(session.run())
            host = Host(layout)
            try:
                assert await session.wait_connected(20), session.error
                async with serve(cast(Node, host), session):
                    yield Setting(control, host, session)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await session.close()


async def test_an_application_fetches_who_it_is(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        first = await app.ask(x509=True)
        assert (first["id"], first["roots"]) == (WEB, {"cluster.local": 1})
        # The same at the next call: one certificate, in the audit log with all others.
        assert (await app.ask(x509=True))["serial"] == first["serial"]
        assert [line.identity for line in setting.control.audit if line.serial == first["serial"]] == [WEB]
        assert (await app.ask(bundles=True))["roots"] == {"cluster.local": 1}


async def test_a_renewed_certificate_and_a_new_root_reach_whoever_watches(setting: Setting) -> None:
    async with application(setting.socket) as app, application(setting.socket) as watcher:
        member = await setting.become(app)
        member.first = (app.process, watcher.process)
        first = await app.ask(x509=True)
        assert (await watcher.ask(follow="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER))["bytes"]
        (keeper,) = setting.session._certificates.keepers()
        keeper.hurry()
        assert (await watcher.read())["bytes"]
        assert (await app.ask(x509=True))["serial"] != first["serial"]
        other = setting.control.authority.create(setting.control.clock())
        setting.control.authority = setting.control.authority.trust(*other.roots)
        await setting.control.service.announce_bundle()
        assert (await watcher.read())["bytes"]
        assert (await app.ask(x509=True))["roots"] == {"cluster.local": 2}
        assert (await app.ask(bundles=True))["roots"] == {"cluster.local": 2}


async def test_federated_domains_and_what_is_revoked_come_along(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        before = await app.ask(raw="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER)
        own, partner = setting.control.authority, Authority.create(setting.control.clock(), "partner.example")
        now = setting.control.clock()
        revoked = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(own.issuer.subject)
            .last_update(now)
            .next_update(now + timedelta(hours=1))
            .sign(own.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )
        domains = (("cluster.local", own.bundle + revoked), ("partner.example", partner.bundle))
        session = setting.session
        trust_all(
            Trust(pem=own.bundle + revoked, domains=domains),
            (session._keeper, *session._certificates.keepers()),
        )
        roots = {"cluster.local": 1, "partner.example": 1}
        assert (await app.ask(x509=True))["roots"] == roots
        assert (await app.ask(bundles=True))["roots"] == roots
        after = await app.ask(raw="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER)
        list_bytes = len(x509.load_pem_x509_crl(revoked.encode()).public_bytes(Encoding.DER))
        root_bytes = len(partner.roots[0].public_bytes(Encoding.DER))
        assert after["bytes"] > before["bytes"] + list_bytes + root_bytes


async def test_a_stranger_gets_nothing(setting: Setting) -> None:
    async with application(setting.socket) as stranger, application(setting.socket) as app:
        await setting.become(app)
        for asked in ({"jwt": ["bank"]}, {"validate": "a.b.c", "audience": "bank"}):
            assert "no identity issued" in (await stranger.ask(**asked))["error"]
        for method in ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"):
            told = await stranger.ask(raw=f"/SpiffeWorkloadAPI/{method}", metadata=HEADER)
            assert told["code"] == "PERMISSION_DENIED", told
        assert not [line for line in setting.control.audit if line.identity == WEB]


async def test_a_call_without_the_header_is_refused(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        for metadata in ([], [["workload.spiffe.io", "false"]], [["workload.spiffe.io", "True"]]):
            for method in ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "FetchJWTSVID"):
                told = await app.ask(raw=f"/SpiffeWorkloadAPI/{method}", metadata=metadata)
                assert told["code"] == "INVALID_ARGUMENT", (method, metadata, told)
        unknown = await app.ask(raw="/SpiffeWorkloadAPI/MintSVID", metadata=HEADER)
        assert unknown["code"] == "UNIMPLEMENTED"


async def test_an_identity_outside_the_nodes_scope_is_refused(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app, account="teller", namespace="bank")
        told = await app.ask(raw="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER)
        assert told["code"] == "PERMISSION_DENIED"
        assert "may not host bank/teller" in told["error"]
        assert "may not host bank/teller" in (await app.ask(jwt=["bank"]))["error"]


async def test_a_token_is_issued_and_believed_by_another_workload(setting: Setting) -> None:
    async with application(setting.socket) as app, application(setting.socket) as bank:
        await setting.become(app)
        await setting.become(bank, account="bank")
        made = await app.ask(jwt=["bank", "audit"])
        assert (made["id"], made["audience"]) == (WEB, ["audit", "bank"])
        header = jwt.get_unverified_header(made["token"])
        keys = (await bank.ask(keys=True))["keys"]
        assert header["alg"] == "ES256"
        assert keys == {"cluster.local": [header["kid"]]}
        believed = await bank.ask(validate=made["token"], audience="bank")
        assert (believed["id"], believed["audience"]) == (WEB, ["audit", "bank"])
        refused = await bank.ask(validate=made["token"], audience="other")
        assert "audience" in refused["error"].lower()
        (line,) = setting.control.jwt_audit
        claims = jwt.decode(made["token"], options={"verify_signature": False})
        assert (line.identity, line.id, line.node, line.audience) == (
            WEB,
            claims["jti"],
            "host1",
            tuple(claims["aud"]),
        )


async def test_tokens_of_another_trust_domain_are_verified_by_its_own_keys(setting: Setting) -> None:
    key = SigningKey.create(setting.control.clock())
    setting.control.service.foreign_keys = lambda: {"partner.example": (key.public(),)}

    def token(subject: str) -> str:
        now = setting.control.clock()
        return issue(key, SpiffeId.parse(subject), ["web"], now=now, token_id="t")[0]

    partner = "spiffe://partner.example/ns/shop/sa/cart"
    async with application(setting.socket) as app:
        await setting.become(app)
        assert (await app.ask(keys=True))["keys"]["partner.example"] == [key.id]
        assert (await app.ask(validate=token(partner), audience="web"))["id"] == partner
        for subject in (WEB, "spiffe://third.example/ns/shop/sa/cart"):
            assert "error" in await app.ask(validate=token(subject), audience="web"), subject


async def test_a_token_is_issued_once_for_half_of_its_life(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        first = (await app.ask(jwt=["bank", "audit"]))["token"]
        assert (await app.ask(jwt=["audit", "bank"]))["token"] == first
        assert (await app.ask(jwt=["bank"]))["token"] != first
        setting.session._clock = lambda: setting.control.clock() + timedelta(minutes=3)
        assert (await app.ask(jwt=["bank", "audit"]))["token"] != first
        assert len(setting.control.jwt_audit) == 3


async def test_a_token_for_another_subject_is_refused(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        told = await app.ask(jwt=["bank"], subject="spiffe://cluster.local/ns/shop/sa/bank")
        assert "the caller is not spiffe://cluster.local/ns/shop/sa/bank" in told["error"]
        assert setting.control.jwt_audit == []


async def test_what_ends_with_its_workload(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        assert (await app.ask(follow="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER))["bytes"] > 0
        await setting.host.set()
        assert (await app.read())["code"] == "PERMISSION_DENIED"
        told = await app.ask(raw="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER)
        assert told["code"] == "PERMISSION_DENIED"
        await eventually(lambda: setting.session._certificates.keepers() == (), what="nothing to be renewed")


async def test_another_workload_of_the_same_name_inherits_no_connection(setting: Setting) -> None:
    async with application(setting.socket) as app, application(setting.socket) as heir:
        await setting.become(app)
        first = await app.ask(x509=True)
        await setting.host.set()
        await eventually(lambda: setting.session._certificates.keepers() == ())
        await setting.become(heir)
        told = await app.ask(raw="/SpiffeWorkloadAPI/FetchX509SVID", metadata=HEADER)
        assert told["code"] == "PERMISSION_DENIED"
        assert (await heir.ask(x509=True))["serial"] != first["serial"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\0" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff",
    ],
)
async def test_what_is_no_grpc_ends_its_own_connection_only(
    setting: Setting, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_FIRST_CALL_S", 0.2)
    reader, writer = await asyncio.open_unix_connection(str(setting.socket))
    writer.write(sent)
    async with asyncio.timeout(20):
        while await reader.read(4096):
            pass
    writer.close()
    monkeypatch.undo()
    async with application(setting.socket) as app:
        await setting.become(app)
        assert (await app.ask(x509=True))["id"] == WEB


async def test_a_huge_request_is_refused_and_the_next_one_answered(setting: Setting) -> None:
    async with application(setting.socket) as app:
        await setting.become(app)
        for size in (20_000, 33_000, 500_000):
            told = await app.ask(validate="x" * size, audience="bank")
            assert "INVALID_ARGUMENT" in told["error"] or "RESOURCE_EXHAUSTED" in told["error"], told
            assert ("RESOURCE_EXHAUSTED" in told["error"]) is (size > 32 * 1024)
        assert (await app.ask(x509=True))["id"] == WEB


async def test_who_connects_without_end_keeps_nobody_else_out(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS_MAX", 3)
    held = [await asyncio.open_unix_connection(str(setting.socket)) for _ in range(5)]
    async with asyncio.timeout(20):
        while await held[-1][0].read(4096):
            pass
    async with application(setting.socket) as app:
        await setting.become(app)
        assert (await app.ask(x509=True))["id"] == WEB
    for _, writer in held:
        writer.close()


class TestCallers:
    def test_a_process_is_known_by_its_ancestors(self) -> None:
        child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        try:
            shell = Process.of(child.pid)
            assert shell is not None
            web = Member(WorkloadSpec(name="web"), first=(shell,))
            other = Member(WorkloadSpec(name="other"))
            assert find(child.pid, [other, web]) is web
            assert find(grandchild, [other, web]) is web
            assert find(os.getpid(), [other, web]) is None
            assert find(0, [other, web]) is None
            # The pid of a process that ended belongs to whoever has it now: its start time tells.
            late = Member(
                WorkloadSpec(name="late"), first=(Process(shell.pid, shell.started - 1, shell.boot),)
            )
            assert find(grandchild, [late]) is None
        finally:
            os.kill(grandchild, 9)
            child.wait()
            child.stdout.close()

    @pytest.mark.root
    @pytest.mark.skipif(os.getuid() != 0, reason="needs root")
    def test_a_process_is_known_by_its_network(self) -> None:
        child = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            web = Member(WorkloadSpec(name="web"), placed(netns=Path(f"/proc/{child.pid}/ns/net")))
            gone = Member(WorkloadSpec(name="gone"), placed(netns=Path("/run/netns/there-is-none")))
            assert find(child.pid, [gone, web]) is web
            assert find(os.getpid(), [gone, web]) is None
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

    @pytest.mark.root
    @pytest.mark.skipif(os.getuid() != 0 or Hierarchy.find() is None, reason="needs root and cgroup2")
    def test_a_process_is_known_by_its_group(self) -> None:
        hierarchy = Hierarchy.find()
        assert hierarchy is not None
        outer = hierarchy.mount / f"weft-t{uuid.uuid4().hex[:6]}"
        app, proxy = cgroup.make(outer / "app"), cgroup.make(outer / "app2")
        inner = cgroup.make(app / "made-by-itself")
        child = subprocess.Popen(["sleep", "60"])
        web = Member(WorkloadSpec(name="web"), placed(app_cgroup=app))
        try:
            assert find(child.pid, [web]) is None
            for group, found in ((app, web), (inner, web), (proxy, None)):
                cgroup.enter(group, child.pid)
                assert find(child.pid, [web]) is found
        finally:
            child.kill()
            child.wait()
            cgroup.remove(outer, kill=True)
