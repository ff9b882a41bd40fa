from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.support.joined import ENTRY, entry, healthy, instance, joined, session
from tests.support.plane import Plane, eventually, plane

from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.join import JoinToken, TokenError
from weft.identity.revocation import issuer_key
from weft.identity.scope import Scope
from weft.model.resource import Key
from weft.node.admin import Reply
from weft.node.enrolment import Membership, join
from weft.node.keys import make_key, request_for
from weft.node.remote import Denied, Unreachable
from weft.spiffe import SpiffeId
from weft.store.interface import Put


class TestJoining:
    async def test_a_token_makes_a_node(self, control: Plane, tmp_path: Path) -> None:
        state = tmp_path / "node"
        membership = await joined(control, state)
        assert membership.xds == "127.0.0.1:15012"
        assert Membership.load(state) == membership
        assert stat.S_IMODE((state / "node.json").stat().st_mode) == 0o600
        assert [(line.identity, line.node) for line in control.audit] == [
            ("spiffe://cluster.local/weft/node/host1", "host1")
        ]

    async def test_a_used_token_is_refused_with_the_remedy(self, control: Plane, tmp_path: Path) -> None:
        token = await control.token()
        await join(control.url, token, "host1", [], tmp_path)
        with pytest.raises(Denied, match="used once already") as refused:
            await join(control.url, token, "host2", [], tmp_path)
        assert "weft token create" in refused.value.hint

    async def test_an_expired_token_is_refused(self, control: Plane, tmp_path: Path) -> None:
        token = await control.token(lifetime=timedelta(minutes=5))
        control.clock.offset = timedelta(minutes=6)
        with pytest.raises(Denied, match="expired on"):
            await join(control.url, token, "host1", [], tmp_path)

    async def test_a_token_of_another_mesh_is_never_shown(self, control: Plane, tmp_path: Path) -> None:
        other = Authority.create(control.clock())
        text = JoinToken.parse(await control.token())
        wrong = str(JoinToken(text.id, text.secret, other.pin))
        with pytest.raises(WeftError, match="is not the control plane that join token"):
            await join(control.url, wrong, "host1", [], tmp_path)
        assert [token.used for token in await control.issuer.tokens.list()] == [0]

    async def test_a_bundle_from_the_wrong_hands_does_not_get_the_token(
        self, control: Plane, tmp_path: Path
    ) -> None:
        """Somebody in between may hand out the true bundle: TLS must still prove the control plane."""
        token = await control.token()
        true = control.authority
        control.authority = Authority.create(control.clock())
        control.credentials.renew()
        control.authority = true
        with pytest.raises(WeftError, match="is not this mesh's control plane"):
            await join(control.url, token, "host1", [], tmp_path)
        assert [token.used for token in await control.issuer.tokens.list()] == [0]

    async def test_a_workloads_certificate_does_not_pass_for_the_control_plane(
        self, control: Plane, tmp_path: Path
    ) -> None:
        token = await control.token()
        key = make_key()
        identity = SpiffeId("cluster.local", "shop", "evil")
        chain = control.authority.sign(request_for(key), identity, now=control.clock())
        (tmp_path / "evil.pem").write_text(key + chain)
        control.tls.sni_callback = None  # it would put the control plane's own certificate in again
        control.tls.load_cert_chain(tmp_path / "evil.pem")
        with pytest.raises(WeftError, match="is not this mesh's control plane"):
            await join(control.url, token, "host1", [], tmp_path)

    async def test_nobody_there(self, control: Plane, tmp_path: Path) -> None:
        token = await control.token()
        await control.stop()
        with pytest.raises(Unreachable, match="does not answer") as refused:
            await join(control.url, token, "host1", [], tmp_path)
        assert "weft control-plane" in refused.value.hint

    async def test_clocks_that_differ(self, control: Plane, tmp_path: Path) -> None:
        token = await control.token(lifetime=timedelta(days=3))
        control.clock.offset = timedelta(days=2)
        control.credentials.renew()
        with pytest.raises(WeftError, match="not valid yet by this host's clock") as refused:
            await join(control.url, token, "host1", [], tmp_path)
        assert "NTP" in refused.value.hint

    async def test_a_taken_name(self, control: Plane, tmp_path: Path) -> None:
        await joined(control, tmp_path / "one")
        with pytest.raises(Denied, match="another host has joined as 'host1'"):
            await joined(control, tmp_path / "two")
        again = await joined(control, tmp_path / "three", node="host1")
        assert again.node == "host1"

    async def test_not_a_token(self, control: Plane, tmp_path: Path) -> None:
        with pytest.raises(TokenError):
            await join(control.url, "weft1.abc", "host1", [], tmp_path)

    async def test_an_expired_node_certificate_says_how_to_come_back(
        self, control: Plane, tmp_path: Path
    ) -> None:
        membership = await joined(control, tmp_path)
        with pytest.raises(WeftError, match="expired on") as refused:
            membership.check(membership.credential.not_after)
        assert "weft token create --node host1" in refused.value.hint


class TestRegistration:
    async def test_an_instance_becomes_an_entry(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance())
            body = await entry(control)
            assert body is not None
            assert body["metadata"]["labels"] == {
                "app": "web",
                "security.istio.io/tlsMode": "istio",
                "weft.dev/node": "host1",
            }
            assert body["spec"]["address"] == "192.0.2.7"
            assert healthy(body) == "False"
            await node.update("shop/web-0", ready=True)
            await eventually(lambda: _is(control, "True"))
            await node.deregister("shop/web-0", patience_s=0)
            await eventually(lambda: _gone(control))

    async def test_the_same_again_writes_nothing(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance())
            before = control.store.revision
            await node.register(instance())
            await node.update("shop/web-0", ready=False)
            assert control.store.revision == before

    async def test_draining_waits_for_the_peers(self, control: Plane, tmp_path: Path) -> None:
        asked: asyncio.Future[tuple[Key, int]] = asyncio.get_running_loop().create_future()
        release = asyncio.Event()

        async def acknowledged(key: Key, revision: int) -> None:
            asked.set_result((key, revision))
            await release.wait()

        control.acknowledged = acknowledged
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance(ready=True))
            await node.update("shop/web-0", ready=True)
            drain = asyncio.create_task(node.deregister("shop/web-0", patience_s=10))
            key, revision = await asked
            stored = await control.store.get(key)
            assert stored is not None
            assert stored.revision == revision
            body = json.loads(stored.body)
            assert ("Draining", "True") in [
                (condition["type"], condition["status"]) for condition in body["status"]["conditions"]
            ]
            assert not drain.done()
            release.set()
            assert await drain is True

    async def test_peers_that_do_not_answer_do_not_hold_it_for_ever(
        self, control: Plane, tmp_path: Path
    ) -> None:
        async def never(key: Key, revision: int) -> None:
            await asyncio.Event().wait()

        control.acknowledged = never
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance())
            assert await node.deregister("shop/web-0", patience_s=0.1) is False

    async def test_outside_the_scope(self, control: Plane, tmp_path: Path) -> None:
        membership = await joined(control, tmp_path, scope=Scope.of(["shop/web"]))
        async with session(membership, tmp_path) as node:
            await node.register(instance())
            with pytest.raises(Denied, match="may not host shop/db, only shop/web"):
                await node.register(instance("db-0", serviceAccount="db"))
            with pytest.raises(Denied, match="may not host shop/db"):
                await node.certify("shop", "db", tmp_path, None)

    async def test_no_scope_includes_the_control_plane(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            with pytest.raises(Denied, match="no node may host the control plane's identity"):
                await node.certify("istio-system", "istiod", tmp_path, None)

    async def test_two_nodes_claim_one_name(self, control: Plane, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        async with (
            session(await joined(control, one, "host1"), one) as first,
            session(await joined(control, two, "host2"), two) as second,
        ):
            await first.register(instance())
            with pytest.raises(Denied, match="shop/web-0 is taken: node 'host1' runs it"):
                await second.register(instance())
            assert (await entry(control) or {})["metadata"]["labels"]["weft.dev/node"] == "host1"

    async def test_a_service_comes_with_it(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance(service="web"))
            stored = await control.store.get(Key("/Service", "shop", "web"))
            assert stored is not None
            assert json.loads(stored.body)["spec"] == {
                "selector": {"weft.dev/service": "web"},
                "ports": [{"name": "http", "port": 8080, "targetPort": "http"}],
            }

    async def test_a_group_fills_in(self, control: Plane, tmp_path: Path) -> None:
        group = {
            "spec": {
                "metadata": {"labels": {"app": "web", "version": "v2"}},
                "template": {"serviceAccount": "website", "ports": {"http": 9090}},
            }
        }
        async with session(await joined(control, tmp_path), tmp_path) as node:
            about = instance(group="webs", ports={}, serviceAccount="default")
            with pytest.raises(Denied, match="no WorkloadGroup shop/webs"):
                await node.register(about)
            key = Key("networking.istio.io/WorkloadGroup", "shop", "webs")
            await control.store.create(Put(key=key, uid="u", body=json.dumps(group).encode()))
            await node.register(about)
            body = await entry(control)
            assert body is not None
            assert body["spec"]["serviceAccount"] == "website"
            assert body["spec"]["ports"] == {"http": 9090}
            assert body["metadata"]["labels"]["version"] == "v2"

    async def test_what_a_person_wrote_is_not_taken_over(self, control: Plane, tmp_path: Path) -> None:
        await control.store.create(Put(key=Key(ENTRY, "shop", "web-0"), uid="u", body=b'{"spec":{}}'))
        async with session(await joined(control, tmp_path), tmp_path) as node:
            with pytest.raises(Denied, match="written by hand"):
                await node.register(instance())


class TestSurviving:
    async def test_a_restart_of_the_control_plane(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance())
            await node.update("shop/web-0", ready=True)
            await eventually(lambda: _is(control, "True"))
            revision = control.store.revision
            await control.stop()
            await eventually(lambda: not node.connected, what="the loss to be seen")
            await control.start()
            assert await node.wait_connected(10)
            await eventually(lambda: control.registry.instances("host1") == ("shop/web-0",))
            assert control.store.revision == revision, "nothing has changed, so nothing is written"

    async def test_changes_without_a_control_plane_are_told_later(
        self, control: Plane, tmp_path: Path
    ) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance("web-0"))
            await node.register(instance("web-1"))
            await control.stop()
            await eventually(lambda: not node.connected)
            await node.update("shop/web-0", ready=True)
            await node.deregister("shop/web-1", patience_s=0)
            await node.register(instance("web-2"))
            await control.start()
            await eventually(lambda: _is(control, "True"))
            await eventually(lambda: _gone(control, "web-1"))
            await eventually(lambda: entry(control, "web-2"))

    async def test_who_does_not_come_back_lapses(self, tmp_path: Path) -> None:
        async with plane(tmp_path / "control", lease_s=1.2) as control:
            async with session(await joined(control, tmp_path), tmp_path) as node:
                await node.register(instance())
                # Longer than a lease: heartbeats hold it.
                await asyncio.sleep(1.0)
                assert await entry(control) is not None
            assert await entry(control) is not None, "a lost session leaves a lease"
            await eventually(lambda: _gone(control), 5)

    async def test_a_newer_session_replaces_the_older(self, control: Plane, tmp_path: Path) -> None:
        membership = await joined(control, tmp_path)
        async with session(membership, tmp_path) as older:
            await older.register(instance())
            async with session(membership, tmp_path) as newer:
                await newer.register(instance())
                assert await entry(control) is not None

    async def test_a_removed_node_is_out_at_once(self, control: Plane, tmp_path: Path) -> None:
        async with session(await joined(control, tmp_path), tmp_path) as node:
            assert await control.issuer.nodes.remove("host1")
            with pytest.raises(Denied, match="not part of this mesh") as refused:
                await node.certify("shop", "web", tmp_path, None)
            assert "join again" in refused.value.hint
            with pytest.raises(Denied, match="not part of this mesh"):
                await node.register(instance())

    async def test_a_host_that_another_one_replaced_is_out(self, control: Plane, tmp_path: Path) -> None:
        """Its certificate is good for days, its name is known: only the key tells them apart."""
        old = await joined(control, tmp_path / "old")
        assert await control.issuer.nodes.remove("host1")
        new = await joined(control, tmp_path / "new")
        async with session(new, tmp_path / "new"), session(old, tmp_path / "old", connect=False) as out:
            with pytest.raises(Denied, match="not part of this mesh"):
                await out.certify("shop", "web", tmp_path, None)
            await eventually(lambda: out.error)
            assert not out.connected

    async def test_a_renewal_whose_answer_was_lost_locks_nobody_out(
        self, control: Plane, tmp_path: Path
    ) -> None:
        member = await joined(control, tmp_path)
        async with session(member, tmp_path) as node:
            await node._sign({"csr": request_for(make_key())})  # and the node forgets it
            await node._sign({"csr": request_for(make_key())})
            await node.certify("shop", "web", tmp_path, None)

    async def test_certificates_serve_on_without_a_control_plane(
        self, control: Plane, tmp_path: Path
    ) -> None:
        directory = tmp_path / "workload"
        directory.mkdir()
        membership = await joined(control, tmp_path)
        async with session(membership, tmp_path) as node:
            until = await node.certify("shop", "web", directory, None)
        before = (directory / "sds.json").read_bytes()
        await control.stop()
        async with session(membership, tmp_path, connect=False) as adopting:
            assert await adopting.certify("shop", "web", directory, None) == until
            assert (directory / "sds.json").read_bytes() == before
            with pytest.raises(WeftError, match="does not answer"):
                await adopting.certify("shop", "other", directory, None)

    async def test_the_nodes_own_certificate_is_renewed(self, tmp_path: Path) -> None:
        options = {"node_lifetime": timedelta(seconds=2)}
        async with plane(tmp_path / "control", **options) as control:
            membership = await joined(control, tmp_path)
            async with session(membership, tmp_path) as node:
                first = membership.credential.certificate
                await eventually(lambda: node.membership.credential.certificate != first)
                kept = Membership.load(tmp_path)
                assert kept is not None
                assert kept.credential.certificate != first
                second = kept.credential.certificate
                await eventually(lambda: node.membership.credential.certificate != second)
                await node.certify("shop", "web", tmp_path, None)


class Cable:
    """Carries TCP to a port, until it is pulled: then nothing arrives and nobody is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = asyncio.Event()
        self._whole.set()
        self.carried = 0

    def pull(self) -> None:
        self._whole.clear()

    def plug_in(self) -> None:
        self._whole.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        await self._whole.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        except OSError:
            pass
        finally:
            for end in (writer, far_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
            self.carried -= 1

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            await self._whole.wait()
            writer.write(part)
            await writer.drain()
        writer.close()


async def test_a_partition_lapses_and_heals(tmp_path: Path) -> None:
    async with plane(tmp_path / "control", lease_s=0.6) as control:
        cable = Cable(control.port)
        server = await asyncio.start_server(cable.carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        membership = replace(await joined(control, tmp_path), api=f"https://127.0.0.1:{port}")
        try:
            async with session(membership, tmp_path) as node:
                await node.register(instance())
                await node.update("shop/web-0", ready=True)
                await eventually(lambda: _is(control, "True"))
                cable.pull()
                # Deadlines for a machine that is busy; each condition comes true within some leases.
                await eventually(lambda: _gone(control), 60, "the lease to lapse")
                await eventually(lambda: not node.connected, 60, "the node to notice")
                cable.plug_in()
                await eventually(lambda: _is(control, "True"), 60, "the instance to be back")
            await eventually(lambda: not cable.carried, 60, "the last connection to be closed")
        finally:
            server.close()


class TestTold:
    async def test_names_come_whole_and_then_by_what_changes(self, control: Plane, tmp_path: Path) -> None:
        control.names.set({"a.shop.svc.cluster.local": ("240.240.0.1",)})
        async with session(await joined(control, tmp_path), tmp_path) as node:
            heard: list[dict[str, tuple[str, ...]]] = []
            node.on_names(lambda table: heard.append(dict(table)))
            await eventually(lambda: node.names)
            control.names.set({"b.shop.svc.cluster.local": ("240.240.0.2", "::1")})
            await eventually(lambda: "b.shop.svc.cluster.local" in node.names)
            assert heard[-1] == {"b.shop.svc.cluster.local": ("240.240.0.2", "::1")}

    async def test_a_new_trust_bundle_reaches_every_envoy(self, control: Plane, tmp_path: Path) -> None:
        directory = tmp_path / "workload"
        directory.mkdir()
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.certify("shop", "web", directory, None)
            own = (directory / "sds.json").read_bytes()
            control.authority = control.authority.trust(*Authority.create(control.clock()).roots)
            await control.service.announce_bundle()
            await eventually(lambda: _roots(directory) == 2)
            assert (directory / "sds.json").read_bytes() == own
            assert len(x509.load_pem_x509_certificates(node.membership.credential.bundle.encode())) == 2

    async def test_what_the_proxies_loaded_is_reported(self, control: Plane, tmp_path: Path) -> None:
        """By Envoy's own words: not before it says so, and again when that changes."""
        said: dict[str, str] = {}

        async def ask(name: str, method: str, path: str) -> Reply:
            rows = [{"name": secret, "version_info": version} for secret, version in said.items()]
            return Reply(200, json.dumps({"configs": rows}).encode())

        def told() -> dict[str, Any]:
            return control.loaded[-1][1]["loaded"] if control.loaded else {}

        directory = tmp_path / "workload"
        directory.mkdir()
        async with session(await joined(control, tmp_path), tmp_path) as node:
            node.on_admin(ask)
            await node.certify("shop", "web", directory, None)
            await node.register(instance())
            mine = node.membership.credential
            agent = {"trust": mine.trust.version, "issuer": mine.issuer, "serial": f"{mine.serial:x}"}
            await eventually(lambda: told() == {"": agent})
            for file, name in (("sds.json", "default"), ("sds-rootca.json", "ROOTCA")):
                said[name] = json.loads((directory / file).read_bytes())["version_info"]
            issuer, _, serial = said["default"].partition(".")
            proxy = {"trust": mine.trust.version, "issuer": issuer, "serial": serial}
            await eventually(lambda: told() == {"": agent, "shop/web-0": proxy})
            assert issuer == mine.issuer == issuer_key(control.authority)


def _roots(directory: Path) -> int:
    found = json.loads((directory / "sds-rootca.json").read_bytes())["resources"][0]
    return str(found["validation_context"]["trusted_ca"]["inline_string"]).count("BEGIN CERTIFICATE")


async def _is(control: Plane, status: str, name: str = "web-0") -> bool:
    return healthy(await entry(control, name)) == status


async def _gone(control: Plane, name: str = "web-0") -> bool:
    return await entry(control, name) is None
