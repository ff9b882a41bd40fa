from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.support.plane import eventually

from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.trust import Trust
from weft.node.keys import (
    Credential,
    Keeper,
    Signed,
    make_key,
    read_secrets,
    request_for,
    write_secrets,
)
from weft.spiffe import SpiffeId

WEB = SpiffeId("cluster.local", "shop", "web")


def utc() -> datetime:
    return datetime.now(UTC)


@dataclass
class Signer:
    """A control plane without a network: it signs, or it does not."""

    lifetime: timedelta = timedelta(hours=24)
    authority: Authority = field(default_factory=lambda: Authority.create(utc()))
    offset: timedelta = timedelta(0)
    down: bool = False
    asked: int = 0

    async def __call__(self, csr: str) -> Signed:
        self.asked += 1
        if self.down:
            raise WeftError("the control plane does not answer")
        now = utc() + self.offset
        chain = self.authority.sign(csr, WEB, now=now, lifetime=self.lifetime)
        return Signed(chain, Trust(pem=self.authority.bundle))


@asynccontextmanager
async def kept(keeper: Keeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.keep())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def keeper(signer: Signer, deliver: Callable[[Credential], None] = lambda credential: None) -> Keeper:
    return Keeper("shop/web", signer, deliver)


async def credential(signer: Signer | None = None) -> Credential:
    return await keeper(signer or Signer()).start()


class TestKey:
    def test_p256(self) -> None:
        key = load_pem_private_key(make_key().encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)

    def test_a_request_asks_for_no_names(self) -> None:
        request = x509.load_pem_x509_csr(request_for(make_key()).encode())
        assert request.is_signature_valid
        assert not list(request.subject)
        assert not list(request.extensions)

    async def test_each_renewal_has_a_key_of_its_own(self) -> None:
        made = keeper(Signer())
        first, second = await made.start(), await made.renew()
        assert first.key != second.key

    async def test_a_certificate_for_another_key_is_refused(self) -> None:
        other = await credential()
        with pytest.raises(WeftError, match="certified another key"):
            Credential.of(make_key(), Signed(other.certificate, other.trust))

    @pytest.mark.parametrize(
        "text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
    )
    def test_what_is_no_certificate_is_refused(self, text: str) -> None:
        with pytest.raises(WeftError, match="holds no certificate"):
            Credential.of(make_key(), Signed(text, Trust(pem=text)))


class TestFiles:
    async def test_one_secret_a_file_for_its_owner_alone(self, tmp_path: Path) -> None:
        made = await credential()
        write_secrets(tmp_path, made)
        own = json.loads((tmp_path / "sds.json").read_text())["resources"]
        trust = json.loads((tmp_path / "sds-rootca.json").read_text())["resources"]
        assert [secret["name"] for secret in own] == ["default"]
        assert [secret["name"] for secret in trust] == ["ROOTCA"]
        assert own[0]["tls_certificate"]["private_key"] == {"inline_string": made.key}
        assert own[0]["tls_certificate"]["certificate_chain"] == {"inline_string": made.certificate}
        assert trust[0]["validation_context"]["trusted_ca"] == {"inline_string": made.bundle}
        for name in ("sds.json", "sds-rootca.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == ["sds-rootca.json", "sds.json"]

    @pytest.mark.root
    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
    async def test_it_belongs_to_envoys_uid(self, tmp_path: Path) -> None:
        write_secrets(tmp_path, await credential(), owner=61001)
        assert (tmp_path / "sds.json").stat().st_uid == 61001

    async def test_the_same_again_is_not_written(self, tmp_path: Path) -> None:
        made = await credential()
        write_secrets(tmp_path, made)
        before = [(path.name, path.stat().st_ino) for path in sorted(tmp_path.iterdir())]
        write_secrets(tmp_path, made)
        assert [(path.name, path.stat().st_ino) for path in sorted(tmp_path.iterdir())] == before

    async def test_an_adopting_agent_reads_them(self, tmp_path: Path) -> None:
        made = await credential()
        write_secrets(tmp_path, made)
        found = read_secrets(tmp_path, str(WEB))
        assert found is not None
        assert (found.key, found.certificate, found.bundle) == (made.key, made.certificate, made.bundle)
        assert read_secrets(tmp_path, "spiffe://cluster.local/ns/shop/sa/other") is None

    @pytest.mark.parametrize("body", ["", "{}", "[]", '{"resources":[]}', '{"resources":[{}]}', "\0"])
    async def test_damaged_files_are_no_credential(self, tmp_path: Path, body: str) -> None:
        write_secrets(tmp_path, await credential())
        (tmp_path / "sds.json").write_text(body)
        assert read_secrets(tmp_path, str(WEB)) is None


class TestKeeping:
    async def test_it_renews_at_half_of_each_life(self) -> None:
        signer = Signer(timedelta(seconds=2))
        given: list[Credential] = []
        made = keeper(signer, given.append)
        await made.start()
        async with kept(made):
            await eventually(lambda: len(given) == 3)
        for one, successor in pairwise(given):
            assert (successor.since - one.since).total_seconds() >= 0.4
            assert successor.since < one.not_after

    async def test_it_does_not_renew_before(self) -> None:
        signer = Signer(timedelta(seconds=60))
        made = keeper(signer)
        await made.start()
        async with kept(made):
            with pytest.raises(TimeoutError):
                await eventually(lambda: signer.asked > 1, 0.5)

    async def test_an_outage_is_survived(self) -> None:
        signer = Signer(timedelta(seconds=2))
        made = keeper(signer)
        first = await made.start()
        signer.down = True
        async with kept(made):
            await eventually(lambda: made.error)
            assert made.credential == first, "the old one serves on"
            signer.down = False
            made.hurry()
            await eventually(lambda: made.credential != first)
            assert made.error is None

    async def test_a_disk_that_is_full_is_no_end(self) -> None:
        full = True

        def deliver(credential: Credential) -> None:
            if full:
                raise OSError(28, "No space left on device")

        signer = Signer(timedelta(seconds=2))
        made = keeper(signer, deliver)
        with pytest.raises(WeftError, match="No space left on device"):
            await made.start()
        full = False
        await made.start()
        full = True
        async with kept(made):
            await eventually(lambda: made.error)
            full = False
            made.hurry()
            await eventually(lambda: made.error is None)

    @pytest.mark.parametrize("offset", [timedelta(hours=1), timedelta(days=-2)], ids=["ahead", "behind"])
    async def test_clocks_that_differ_are_said(self, offset: timedelta) -> None:
        with pytest.raises(WeftError, match="valid from") as refused:
            await keeper(Signer(offset=offset)).start()
        assert "NTP" in refused.value.hint

    async def test_a_little_skew_is_allowed(self) -> None:
        await keeper(Signer(offset=timedelta(seconds=50))).start()

    async def test_what_was_found_is_used_without_asking(self) -> None:
        signer = Signer()
        found = await credential(signer)
        signer.down = True
        assert await keeper(signer).start(found) == found

    async def test_what_was_found_old_is_renewed_if_it_can_be(self) -> None:
        signer = Signer(timedelta(hours=2), offset=timedelta(hours=-1.5))
        made = keeper(signer)
        found = Credential.of(key := make_key(), await signer(request_for(key)))
        signer.offset = timedelta(0)
        assert await made.start(found) != found
        signer.down = True
        assert await keeper(signer).start(found) == found, "valid for half an hour more"

    async def test_what_was_found_expired_is_not_used(self) -> None:
        signer = Signer(timedelta(hours=1), offset=timedelta(hours=-2))
        found = Credential.of(key := make_key(), await signer(request_for(key)))
        signer.down = True
        with pytest.raises(WeftError, match="does not answer"):
            await keeper(signer).start(found)

    async def test_another_bundle_keeps_the_certificate(self) -> None:
        signer = Signer()
        given: list[Credential] = []
        made = keeper(signer, given.append)
        first = await made.start()
        both = signer.authority.trust(*Authority.create(utc()).roots)
        made.trust(Trust(pem=both.bundle))
        made.trust(Trust(pem=both.bundle))
        assert [one.bundle for one in given] == [first.bundle, both.bundle]
        assert {one.certificate for one in given} == {first.certificate}
        with pytest.raises(WeftError):
            made.trust(Trust(pem="nothing"))

    async def test_another_signing_root_brings_another_certificate(self) -> None:
        signer = Signer()
        made = keeper(signer)
        first = await made.start()
        successor = Authority.create(utc())
        signer.authority = signer.authority.trust(*successor.roots).succeed(successor)
        async with kept(made):
            made.trust(Trust(pem=signer.authority.bundle))
            await eventually(lambda: made.credential and made.credential.certificate != first.certificate)
