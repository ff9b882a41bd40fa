"""The trustee: every step is stored before it is told, and a crash in any of them is gone on from."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.intermediates import intermediate
from tests.support.plane import eventually

from weft.control.handover import Handover, OwnAuthority
from weft.control.rotation import Trustee
from weft.identity.ca import Authority
from weft.identity.custody import Custody
from weft.identity.ledger import Issued, Ledger
from weft.identity.pem import AuthorityError, write_certificates, write_key
from weft.identity.revocation import issuer_key, read_lists
from weft.identity.rotation import AGENT, Loaded, Member, Phase
from weft.identity.trust import split
from weft.node.keys import make_key, request_for
from weft.spiffe import SpiffeId
from weft.store.sqlite import SqliteStore


def now() -> datetime:
    return datetime.now(UTC)


async def open_trustee(store: SqliteStore, given: Authority | None = None) -> Trustee:
    ledger = await Ledger(store.private("issued"), store.private("revoked"), now).open()
    return await Trustee.open(Custody(store.private("authority"), now), ledger, now, given)


class Host:
    """A node that loads what it is told, once it may."""

    def __init__(self, trustee: Trustee) -> None:
        self.trustee = trustee
        self.willing = True
        trustee.members = self.members
        trustee.told.append(self.hear)

    def hear(self) -> None:
        if self.willing:
            trust = self.trustee.trust
            self.trustee.hear("a", {"loaded": {"": {"trust": trust.version, "issuer": trust.issuer}}})

    async def members(self, reports: Mapping[str, Mapping[str, Loaded]]) -> Mapping[str, Member]:
        return {"a": Member(connected=True, parts=frozenset({AGENT}), loaded=reports.get("a", {}))}


@asynccontextmanager
async def running(trustee: Trustee) -> AsyncIterator[None]:
    task = asyncio.create_task(trustee.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "store") as opened:
        yield opened


async def issue(trustee: Trustee, node: str = "a", account: str = "web") -> Issued:
    """A certificate, as the issuer records it."""
    identity = SpiffeId("cluster.local", "shop", account)
    chain = trustee.authority.sign(request_for(make_key()), identity, now=now())
    leaf = x509.load_pem_x509_certificate(chain.encode())
    issued = Issued(
        time=now(),
        identity=str(identity),
        serial=f"{leaf.serial_number:x}",
        not_after=leaf.not_valid_after_utc,
        key="",
        node=node,
        issuer=issuer_key(trustee.authority),
    )
    await trustee.ledger.add(issued)
    return issued


async def test_it_takes_each_step_as_soon_as_it_may(store: SqliteStore) -> None:
    trustee = await open_trustee(store)
    host, old = Host(trustee), trustee.authority
    async with running(trustee):
        host.willing = False
        await trustee.rotate(None)
        assert [one.node for one in await trustee.missing()] == ["a"]
        host.willing = True
        host.hear()
        await eventually(lambda: trustee.state.rotation is None)
    assert trustee.authority.issuer != old.issuer
    assert trustee.authority.roots == trustee.authority.roots[:1]


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_crash_in_any_step_is_gone_on_from(store: SqliteStore, phase: Phase) -> None:
    """The same new root takes over in the end; it was never made twice."""
    first = await open_trustee(store)
    await first.rotate(None)
    while first.state.rotation is not None and first.state.rotation.phase is not phase:
        Host(first).hear()
        await first._step()
    assert first.state.rotation is not None
    successor = first.state.rotation.successor
    second = await open_trustee(store)
    assert second.state == first.state
    Host(second)
    async with running(second):
        await eventually(lambda: second.state.rotation is None)
    assert second.authority.issuer == successor.issuer
    assert (await open_trustee(store)).state == second.state


async def test_asking_again_goes_on_and_another_one_is_refused(store: SqliteStore) -> None:
    trustee = await open_trustee(store)
    await trustee.rotate(None)
    begun = trustee.state.rotation
    await trustee.rotate(None, skip=["b"])
    await trustee.rotate(None, skip=["a"])
    assert begun is not None
    assert trustee.state.rotation is not None
    assert trustee.state.rotation.successor == begun.successor
    assert trustee.state.rotation.skip == ("a", "b")
    with pytest.raises(AuthorityError, match="by another one already"):
        await trustee.rotate(Authority.create(now()))


async def test_what_is_revoked_is_listed_by_whoever_signed_it(store: SqliteStore) -> None:
    trustee = await open_trustee(store)
    assert split(trustee.trust.pem)[1] == ""
    bad, good = await issue(trustee), await issue(trustee, account="db")
    before = trustee.trust.version
    (entry,) = await trustee.revoke(lambda one: one.identity == bad.identity)
    assert trustee.trust.version != before
    assert trustee.ledger.is_revoked(bad.serial)
    assert not trustee.ledger.is_revoked(good.serial)
    assert entry.serial == bad.serial
    assert set(read_lists(split(trustee.trust.pem)[1]).values()) == {frozenset({bad.serial})}
    # The same list again after a restart: nobody has to load it once more.
    again = await open_trustee(store)
    assert again.trust == trustee.trust
    # While the root is replaced both have one, or the certificates of one of them would be refused.
    await again.rotate(None)
    assert len(read_lists(split(again.trust.pem)[1])) == 2
    # What was said before, or of nobody, costs nobody a connection.
    told: list[str] = []
    again.told.append(lambda: told.append("again"))
    assert await again.revoke(lambda one: one.identity == bad.identity) == ()
    assert await again.revoke(lambda one: one.identity == "nobody") == ()
    assert told == []


async def test_connections_are_ended_once_everybody_looks_at_the_list(store: SqliteStore) -> None:
    trustee = await open_trustee(store)
    host = Host(trustee)
    bad = await issue(trustee)
    async with running(trustee):
        host.willing = False
        await trustee.revoke(lambda one: one.serial == bad.serial)
        await trustee._step()
        assert (trustee.ledger.epoch, trustee.ledger.pending) == (0, True)
        host.willing = True
        host.hear()
        await eventually(lambda: not trustee.ledger.pending)
    assert trustee.ledger.epoch == 1
    assert (await open_trustee(store)).ledger.epoch == 1


async def test_another_root_in_the_bundle_forbids_lists(store: SqliteStore) -> None:
    stranger = Authority.create(now())
    trustee = await open_trustee(store, Authority.create(now()).trust(*stranger.roots))
    bad = await issue(trustee)
    with pytest.raises(AuthorityError, match="would refuse whatever"):
        await trustee.revoke(lambda one: one.serial == bad.serial)
    assert not trustee.ledger.is_revoked(bad.serial)


async def test_several_domains_are_each_verified_by_their_own_roots(store: SqliteStore) -> None:
    trustee, partner = await open_trustee(store), Authority.create(now()).bundle
    assert trustee.trust.domains == ()
    await trustee.federate({"partner.example": partner}, "", ("old.example",))
    own = trustee.authority.bundle
    assert dict(trustee.trust.domains) == {
        "cluster.local": own,
        "old.example": own,
        "partner.example": partner,
    }
    # Whose bundle has not come yet, nobody vouches for: this authority neither.
    await trustee.federate({"partner.example": ""}, "", ())
    assert dict(trustee.trust.domains) == {"cluster.local": own}
    # Roots that are given for the own domain do not speak for nodes and administrators.
    await trustee.federate({"cluster.local": partner}, "", ())
    assert dict(trustee.trust.domains) == {"cluster.local": own + partner}
    assert trustee.trust.pem == own


async def test_a_new_intermediate_in_its_files_takes_over(store: SqliteStore, tmp_path: Path) -> None:
    """Under the same root; what leads elsewhere, or is half written, does not."""
    files = OwnAuthority(directory=tmp_path)
    root = Authority.create(now())

    def write(made: Authority) -> None:
        (tmp_path / "tls.key").write_text(write_key(made.key))
        (tmp_path / "tls.crt").write_text(write_certificates(made.chain))
        (tmp_path / "ca.crt").write_text(made.bundle)

    first, second = intermediate(root), intermediate(root)
    write(first)
    trustee = await open_trustee(store, files.read(now(), "cluster.local"))
    handover = Handover(trustee, files)
    await handover.look()
    assert trustee.state.rotation is None
    write(intermediate(Authority.create(now())))
    await handover.look()
    assert "does not lead to a root that this mesh trusts" in str(handover.error)
    (tmp_path / "tls.key").write_text("half")
    await handover.look()
    assert "no private key" in str(handover.error)
    assert trustee.state.rotation is None
    write(second)
    await handover.look()
    assert handover.error is None
    Host(trustee)
    async with running(trustee):
        await eventually(lambda: trustee.state.rotation is None)
    assert trustee.authority.issuer == second.issuer
    assert trustee.authority.roots == root.roots
