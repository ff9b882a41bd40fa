from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from weft.identity.ca import Authority
from weft.identity.custody import Custody, read_authority
from weft.identity.pem import AuthorityError, write_certificates, write_key
from weft.identity.rotation import State
from weft.store.interface import Store

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)


def intermediate(root: Authority, directory: Path, *, days: int = 30) -> Authority:
    """A signing certificate under ``root``, brought in files."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root.roots[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        .sign(root.key, hashes.SHA256())
    )
    (directory / "key.pem").write_text(write_key(key))
    (directory / "chain.pem").write_text(write_certificates([certificate]))
    (directory / "roots.pem").write_text(root.bundle)
    return read_authority(directory / "key.pem", directory / "chain.pem", directory / "roots.pem", now=NOW)


async def test_it_is_made_once(store: Store) -> None:
    table = store.private("authority")
    made = await Custody(table, lambda: NOW).open()
    assert await Custody(table, lambda: NOW).open() == made


async def test_a_given_one_is_kept(store: Store, tmp_path: Path) -> None:
    custody = Custody(store.private("authority"), lambda: NOW)
    given = intermediate(Authority.create(NOW), tmp_path)
    assert await custody.open(given) == State(given)
    assert await custody.open() == State(given)
    assert await custody.open(given) == State(given)


async def test_a_new_intermediate_begins_to_take_over(store: Store, tmp_path: Path) -> None:
    custody = Custody(store.private("authority"), lambda: NOW)
    root = Authority.create(NOW)
    first = intermediate(root, tmp_path)
    await custody.open(first)
    renewed = intermediate(root, tmp_path)
    begun = await custody.open(renewed)
    assert begun.authority.issuer == first.issuer
    assert begun.rotation is not None
    assert begun.rotation.successor == renewed
    assert await custody.open(renewed) == begun
    assert await custody.open() == begun


async def test_a_new_intermediate_replaces_an_expired_one_at_once(store: Store, tmp_path: Path) -> None:
    table, root = store.private("authority"), Authority.create(NOW)
    await Custody(table, lambda: NOW).open(intermediate(root, tmp_path, days=1))
    renewed = intermediate(root, tmp_path)
    later = Custody(table, lambda: NOW + dt.timedelta(days=2))
    assert await later.open(renewed) == State(renewed)


async def test_one_that_was_replaced_is_no_reason_to_stay_down(store: Store, tmp_path: Path) -> None:
    """The command line still names it; what has taken over since goes on."""
    custody = Custody(store.private("authority"), lambda: NOW)
    given = intermediate(Authority.create(NOW), tmp_path)
    state = await custody.open(given)
    begun = state.begin(Authority.create(NOW), NOW)
    await custody.replace(begun, expect=state)
    while begun.rotation is not None:
        after = begun.advance(NOW)
        await custody.replace(after, expect=begun)
        begun = after
        assert await custody.open(given) == begun


async def test_another_root_is_refused(store: Store, tmp_path: Path) -> None:
    custody = Custody(store.private("authority"), lambda: NOW)
    made = await custody.open()
    with pytest.raises(AuthorityError, match="has another root already"):
        await custody.open(intermediate(Authority.create(NOW), tmp_path))
    assert await custody.open() == made


async def test_an_expired_one_says_what_to_do(store: Store, tmp_path: Path) -> None:
    table = store.private("authority")
    await Custody(table, lambda: NOW).open(intermediate(Authority.create(NOW), tmp_path, days=1))
    with pytest.raises(AuthorityError, match="expired on 2026-05-02"):
        await Custody(table, lambda: NOW + dt.timedelta(days=2)).open()


async def test_replacing_notices_another_hand(store: Store) -> None:
    custody = Custody(store.private("authority"), lambda: NOW)
    made = await custody.open()
    begun = made.begin(Authority.create(NOW), NOW)
    await custody.replace(begun, expect=made)
    assert await custody.open() == begun
    with pytest.raises(AuthorityError, match="somebody else"):
        await custody.replace(begun, expect=made)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="cannot be read"):
        read_authority(tmp_path / "k", tmp_path / "c", tmp_path / "r", now=NOW)
