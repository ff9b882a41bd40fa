"""A workload's card: its text, and where it stands in a certificate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from weft.card import FORM, Card
from weft.identity.ca import Authority
from weft.identity.card import card_of, other_name
from weft.node.keys import make_key, request_for
from weft.spiffe import SpiffeId

NOW = datetime(2026, 11, 21, tzinfo=UTC)
WEB = SpiffeId("cluster.local", "shop", "web")


def test_it_has_the_names_of_istios_labels() -> None:
    labels = {"weft.dev/workload": "web", "app": "shop-web", "version": "v7"}
    made = Card.of("web-0", labels)
    assert made == Card("web", "shop-web", "v7", "weft", "shop-web", "v7")
    assert str(made) == "weft1/web/shop-web/v7/weft/shop-web/v7"
    assert Card.parse(str(made)) == made


def test_what_is_not_known_is_the_word_unknown() -> None:
    assert Card.of("web", {}) == Card("web", "unknown", "unknown", "weft", "web", "latest")


@pytest.mark.parametrize("odd", ["a/b", "a,b", "ä", " ", "a\n", '"', "x" * 254, "%CEL(1)%"])
def test_an_odd_label_says_nothing(odd: str) -> None:
    made = Card.of("web", {"app": odd, "version": "v1"})
    assert (made.app, made.canonical_service, made.version) == ("unknown", "unknown", "v1")
    assert Card.parse(str(made)) == made


@pytest.mark.parametrize("text", ["", FORM, "weft1/a/b/c", "weft2/a/b/c/d/e/f", "weft1/a/b/c/d/e/"])
def test_what_is_no_card_is_none(text: str) -> None:
    assert Card.parse(text) is None


def test_a_later_form_may_say_more() -> None:
    assert Card.parse("weft1/a/b/c/d/e/f/more") == Card("a", "b", "c", "d", "e", "f")


@given(st.text())
def test_any_text_is_read_as_nothing_or_as_itself(text: str) -> None:
    read = Card.parse(text)
    assert read is None or text.startswith(str(read))


def _leaf(card: str) -> x509.Certificate:
    chain = Authority.create(NOW).sign(request_for(make_key()), WEB, now=NOW, card=card)
    return x509.load_pem_x509_certificate(chain.encode())


@pytest.mark.parametrize("length", [1, 100, 127, 128, 255, 256, 5000])
def test_a_certificate_bears_it_beside_its_one_uri(length: int) -> None:
    leaf = _leaf("x" * length)
    assert card_of(leaf) == "x" * length
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]


def test_no_name_that_a_policy_or_a_client_compares_is_made_of_it() -> None:
    leaf = _leaf("weft1/istiod.istio-system.svc/a/b/c/d/e")
    assert not list(leaf.subject), "Envoy compares principals with it, OpenSSL host names"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    assert names.get_values_for_type(x509.RFC822Name) == []


def test_a_certificate_may_have_none() -> None:
    assert card_of(_leaf("")) == ""


@pytest.mark.parametrize("value", [b"\x05\x00", b"\x0c\x05ab", b"\x0c\x81\x01a", b"\x0c\x00z", b"\x0c"])
def test_another_value_under_its_name_says_nothing(value: bytes) -> None:
    odd = x509.OtherName(other_name("x").type_id, value)
    authority = Authority.create(NOW)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.issuer.subject)
        .public_key(authority.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW.replace(year=2027))
        .add_extension(x509.SubjectAlternativeName([odd]), critical=True)
    )
    try:
        certificate = builder.sign(authority.key, SHA256())
        said = card_of(certificate)
    except ValueError:  # the library reads no value that is no DER
        said = ""
    assert said == ""
