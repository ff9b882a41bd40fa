"""The authority's API and ``weft ca``, against a control plane that runs; nodes are in tests/e2e."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.intermediates import sign
from tests.unit.control.test_access import running

from weft.client import ApiClient, RefusedError, locate
from weft.client.kubeconfig import read_kubeconfig
from weft.identity.bundle import read_bundle
from weft.identity.ca import Authority
from weft.spiffe import AdminId


async def test_a_root_a_request_and_a_revocation(tmp_path: Path) -> None:
    """The whole life of an authority, without nodes: no step waits."""
    async with running(tmp_path / "a") as mesh:
        text = await mesh.weft("ca", "status")
        assert "trust domain  cluster.local" in text
        assert "rotation      none" in text
        first = json.loads(await mesh.weft("ca", "status", "-o", "json"))
        assert first["issuer"]["key"] == first["roots"][0]["key"]
        assert (await mesh.weft("ca", "export")) == mesh.authority.bundle

        old = mesh.issue(AdminId("cluster.local", "root"))
        assert await mesh.get(key=old[0], certificate=old[1]) == 200
        assert "signs now" in await mesh.weft("ca", "rotate")
        second = json.loads(await mesh.weft("ca", "status", "-o", "json"))
        assert second["issuer"]["key"] != first["issuer"]["key"]
        assert [root["key"] for root in second["roots"]] == [second["issuer"]["key"]]
        mesh.authority = elsewhere = Authority.create(datetime.now(UTC))

        chain, roots = tmp_path / "chain.pem", tmp_path / "roots.pem"
        chain.write_text(sign(elsewhere, await mesh.weft("ca", "request")))
        roots.write_text(elsewhere.bundle)
        await mesh.weft("ca", "install", str(chain), code=1)
        assert "signs now" in await mesh.weft("ca", "install", str(chain), "--roots", str(roots))
        # The request was used up.
        await mesh.weft("ca", "install", str(chain), "--roots", str(roots), code=1)
        published = await mesh.weft("ca", "export", "--spiffe")
        assert read_bundle(published.encode()).roots == elsewhere.bundle
        assert json.loads(published)["spiffe_sequence"] > 1

        # Whoever is not in the books can be revoked too.
        key, own = mesh.issue(AdminId("cluster.local", "root"))
        assert await mesh.get(key=key, certificate=own) == 200
        serial = f"{x509.load_pem_x509_certificate(own.encode()).serial_number:X}"
        assert "revoked" in await mesh.weft(
            "ca", "revoke", "--serial", f"serial={serial}", "--reason", "lost"
        )
        assert await mesh.get(key=key, certificate=own) == 401
        assert "SERIAL" in await mesh.weft("ca", "list")
        verbs = dict.fromkeys(line.get("verb") for line in mesh.audit() if line["event"] == "ca")
        assert [verb for verb in verbs if verb != "revoked"] == ["rotate", "request", "install", "revoke"]
        # The control plane's kubeconfig has one certificate of each signer, whatever else changes.
        made = [line for line in mesh.audit() if line["event"] == "certificate"]
        assert [line["identity"] for line in made if line["how"] == "itself"] == ["admin"] * 3
        async with ApiClient(read_kubeconfig(mesh.listening.kubeconfig)) as client:
            assert (await client.raw("GET", "/weft/v1/ca"))["issuer"]["key"]


async def test_what_makes_no_sense_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh, ApiClient(locate(str(mesh.listening.socket))) as client:
        for path, body, why in (
            ("rotation", {"skip": ["nobody"]}, "there is no node 'nobody'"),
            ("rotation", {"skip": "a"}, "skip is a list"),
            ("rotation", {"timeout": "5"}, "is not a duration"),
            ("rotation", {"key": "x"}, "chain: expected a text"),
            ("rotation", {"key": "x", "chain": "x", "roots": "x"}, "no private key"),
            ("rotation", [], "expected a JSON object"),
            ("revocations", {}, "name one of"),
            ("revocations", {"serial": "1", "node": "a"}, "name one of"),
            ("revocations", {"serial": "xyz"}, "is no serial number"),
            ("revocations", {"serial": "0"}, "is no serial number"),
            ("revocations", {"node": "a"}, "no valid certificate has node 'a'"),
            ("revocations", {"token": "a"}, "a"),
            ("intermediate", {"chain": "x"}, "no request waits"),
        ):
            with pytest.raises(RefusedError, match=why):
                await client.raw("POST", f"/weft/v1/ca/{path}", body)
        assert json.loads(await mesh.weft("ca", "status", "-o", "json"))["rotation"] is None


async def test_only_administrators_may(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as mesh:
        made = json.loads(await mesh.weft("user", "create", "ann", "--read-only", "-o", "json"))
        assert await mesh.get("/weft/v1/ca") == 401
        assert await mesh.get("/weft/v1/ca/certificates", token=made["token"]) in {200, 403}
        assert await mesh.get("/weft/v1/bundle") == 200
