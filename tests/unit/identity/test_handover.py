"""Intermediates: asked for, signed elsewhere, handed over in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.intermediates import intermediate, now, sign

from weft.identity import handover
from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError, write_certificates, write_key
from weft.node.keys import make_key, request_for
from weft.spiffe import SpiffeId


def test_a_request_becomes_an_authority() -> None:
    root = Authority.create(now())
    made = intermediate(root)
    assert made.roots == root.roots
    handover.check_trusted(made, root)
    chain = made.sign(request_for(make_key()), SpiffeId("cluster.local", "shop", "web"), now=now())
    assert chain.count("BEGIN CERTIFICATE") == 2


def test_a_chain_for_another_request_is_refused() -> None:
    root = Authority.create(now())
    (key, _), (_, request) = handover.ask(), handover.ask()
    with pytest.raises(AuthorityError, match="not made for the last request"):
        handover.install(
            key.encode(),
            sign(root, request).encode(),
            root.bundle.encode(),
            now=now(),
            trust_domain="cluster.local",
        )


def test_a_chain_that_leads_elsewhere_is_refused() -> None:
    root, other = Authority.create(now()), Authority.create(now())
    key, request = handover.ask()
    chain = sign(root, request)
    with pytest.raises(AuthorityError, match="no given root signed"):
        handover.install(
            key.encode(), chain.encode(), other.bundle.encode(), now=now(), trust_domain="cluster.local"
        )
    below = intermediate(root)
    with pytest.raises(AuthorityError, match="does not lead to a root that this mesh trusts"):
        handover.check_trusted(below, other)


@pytest.mark.parametrize(
    "names",
    [
        ("tls.key", "tls.crt", "ca.crt"),
        ("ca-key.pem", "cert-chain.pem", "root-cert.pem"),
        ("ca-key.pem", "ca-cert.pem", "root-cert.pem"),
    ],
)
def test_files_of_cert_manager_and_of_istio_are_found(names: tuple[str, ...], tmp_path: Path) -> None:
    made = intermediate(Authority.create(now()))
    bodies = (write_key(made.key), write_certificates(made.chain), made.bundle)
    for name, body in zip(names, bodies, strict=True):
        (tmp_path / name).write_text(body)
    found = handover.find_files(tmp_path)
    assert [path.name for path in found] == list(names)


def test_a_directory_without_an_authority_says_what_belongs_there(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("")
    with pytest.raises(AuthorityError, match="holds no authority"):
        handover.find_files(tmp_path)
