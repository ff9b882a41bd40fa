from __future__ import annotations

import datetime as dt
import subprocess
from base64 import encodebytes
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from weft.identity.ca import Authority
from weft.identity.pem import (
    AuthorityError,
    RequestError,
    read_certificates,
    write_certificates,
    write_key,
)
from weft.spiffe import NodeId, SpiffeId

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
WEB = SpiffeId("cluster.local", "shop", "web")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(NOW)


def request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    *names: x509.GeneralName,
) -> x509.CertificateSigningRequest:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def wrapped(body: bytes) -> str:
    text = encodebytes(body).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def leaf_of(chain: str) -> x509.Certificate:
    return read_certificates(chain.encode())[0]


def test_a_workloads_certificate(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = leaf_of(authority.sign(pem(request(key)), WEB, now=NOW))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/web")]
    assert names.critical, "it is the only name: the subject is empty"
    assert not list(leaf.subject)
    assert leaf.public_key() == key.public_key()
    assert leaf.not_valid_before_utc == NOW - dt.timedelta(minutes=1)
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(hours=24)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    leaf.verify_directly_issued_by(authority.roots[0])


def test_of_a_request_only_the_key_is_taken(authority: Authority) -> None:
    greedy = request(
        None,
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/istiod"),
        x509.DNSName("istiod.istio-system.svc"),
    )
    leaf = leaf_of(authority.sign(pem(greedy), WEB, now=NOW))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(WEB))]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_nodes_certificate(authority: Authority) -> None:
    node = NodeId("cluster.local", "host1")
    leaf = leaf_of(authority.sign(pem(request()), node, now=NOW, lifetime=dt.timedelta(days=30)))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # The DNS name is every node's: Prometheus verifies nothing else of what it scrapes.
    assert list(names) == [
        x509.UniformResourceIdentifier("spiffe://cluster.local/weft/node/host1"),
        x509.DNSName("weft-node.istio-system.svc"),
    ]


def test_serial_numbers_differ(authority: Authority) -> None:
    csr = pem(request())
    serials = {leaf_of(authority.sign(csr, WEB, now=NOW)).serial_number for _ in range(20)}
    assert len(serials) == 20


def test_nothing_outlives_its_issuer(authority: Authority) -> None:
    end = authority.issuer.not_valid_after_utc
    leaf = leaf_of(authority.sign(pem(request()), WEB, now=end - dt.timedelta(hours=1)))
    assert leaf.not_valid_after_utc == end
    with pytest.raises(AuthorityError, match="signing certificate expired"):
        authority.sign(pem(request()), WEB, now=end)


def test_another_trust_domain_is_refused(authority: Authority) -> None:
    with pytest.raises(AuthorityError, match=r"not of the trust domain cluster\.local"):
        authority.sign(pem(request()), SpiffeId("evil.test", "shop", "web"), now=NOW)


class TestHostileRequests:
    @pytest.mark.parametrize(
        "key",
        [
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
            ec.generate_private_key(ec.SECP384R1()),
            ec.generate_private_key(ec.SECP256K1()),
        ],
        ids=["rsa", "ed25519", "p384", "k256"],
    )
    def test_another_kind_of_key(
        self,
        authority: Authority,
        key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    ) -> None:
        with pytest.raises(RequestError, match="not P-256"):
            authority.sign(pem(request(key)), WEB, now=NOW)

    def test_somebody_elses_key(self, authority: Authority) -> None:
        """The signature does not match: a replayed key with a signature of another."""
        mine, other = request(), request()
        body = bytearray(mine.public_bytes(Encoding.DER))
        info = mine.tbs_certrequest_bytes
        at = bytes(body).index(info)
        changed = other.tbs_certrequest_bytes
        assert len(changed) == len(info)
        body[at : at + len(info)] = changed
        forged = x509.load_der_x509_csr(bytes(body))
        with pytest.raises(RequestError, match="signature"):
            authority.sign(pem(forged), WEB, now=NOW)

    def test_a_huge_one(self, authority: Authority) -> None:
        names = [x509.DNSName(f"n{number}.test") for number in range(5000)]
        with pytest.raises(RequestError, match="more than 16384"):
            authority.sign(pem(request(None, *names)), WEB, now=NOW)

    @given(st.one_of(st.text(max_size=200), st.binary(max_size=300).map(lambda b: b.decode("latin-1"))))
    def test_anything_else(self, text: str) -> None:
        with pytest.raises(RequestError):
            _AUTHORITY.sign(text, WEB, now=NOW)

    @given(st.binary(min_size=1, max_size=400))
    def test_anything_in_pem(self, body: bytes) -> None:
        with pytest.raises(RequestError):
            _AUTHORITY.sign(wrapped(body), WEB, now=NOW)

    @given(st.integers(0, 10_000), st.integers(1, 255))
    def test_a_flipped_byte(self, at: int, flip: int) -> None:
        """Whatever byte is changed, nothing but the key that signed is ever certified."""
        body = bytearray(_REQUEST.public_bytes(Encoding.DER))
        body[at % len(body)] ^= flip
        try:
            leaf = leaf_of(_AUTHORITY.sign(wrapped(bytes(body)), WEB, now=NOW))
        except RequestError:
            return
        assert leaf.public_key() == _REQUEST.public_key()


_AUTHORITY = Authority.create(NOW)
_REQUEST = request()


class TestServing:
    def test_the_control_planes_own(self, authority: Authority) -> None:
        chain, key = authority.serve(["mesh.test", "192.0.2.1"], now=NOW, lifetime=dt.timedelta(hours=1))
        names = leaf_of(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc", "mesh.test"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
            "spiffe://cluster.local/ns/istio-system/sa/istiod"
        ]
        assert "PRIVATE KEY" in key


def _signed_by(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    days: int = 365,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )


class TestBringingOnesOwn:
    def setup_method(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.root = _signed_by("root", self.root_key, None)
        self.middle = _signed_by("middle", self.key, (self.root, self.root_key), path_length=0)

    def bring(
        self,
        key: ec.EllipticCurvePrivateKey,
        chain: list[x509.Certificate],
        roots: list[x509.Certificate],
    ) -> Authority:
        return Authority.bring(
            write_key(key).encode(),
            write_certificates(chain).encode(),
            write_certificates(roots).encode(),
            now=NOW,
        )

    def test_a_root(self) -> None:
        authority = self.bring(self.root_key, [self.root], [self.root])
        assert len(read_certificates(authority.sign(pem(request()), WEB, now=NOW).encode())) == 1

    def test_an_intermediate(self, tmp_path: Path) -> None:
        for chain in ([self.middle], [self.middle, self.root]):
            authority = self.bring(self.key, chain, [self.root])
            signed = authority.sign(pem(request()), WEB, now=NOW)
            assert read_certificates(signed.encode())[1:] == (self.middle,)
            assert authority.roots == (self.root,)
        assert Authority.from_pem(authority.to_pem()) == authority

    def test_the_wrong_key(self) -> None:
        with pytest.raises(AuthorityError, match="does not belong"):
            self.bring(self.root_key, [self.middle], [self.root])

    def test_a_root_that_did_not_sign(self) -> None:
        other = _signed_by("root", ec.generate_private_key(ec.SECP256R1()), None)
        with pytest.raises(AuthorityError, match="no given root signed CN=middle"):
            self.bring(self.key, [self.middle], [other])

    def test_a_leaf_is_no_authority(self) -> None:
        leaf = _signed_by("leaf", self.key, (self.root, self.root_key), ca=False)
        with pytest.raises(AuthorityError, match="may not sign"):
            self.bring(self.key, [leaf], [self.root])

    def test_a_path_that_is_too_long(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        low = _signed_by("low", key, (self.middle, self.key))
        with pytest.raises(AuthorityError, match="CN=middle allows 0 authorities below it, there are 1"):
            self.bring(key, [low, self.middle], [self.root])

    def test_an_expired_one(self) -> None:
        old = _signed_by("old", self.key, (self.root, self.root_key), days=0)
        with pytest.raises(AuthorityError, match="not now"):
            self.bring(self.key, [old], [self.root])

    def test_no_certificates(self) -> None:
        with pytest.raises(AuthorityError, match="no certificates"):
            Authority.bring(write_key(self.key).encode(), b"x", b"y", now=NOW)


class TestReplacingTheRoot:
    def test_step_by_step(self, authority: Authority) -> None:
        new = Authority.create(NOW)
        with pytest.raises(AuthorityError, match="not trusted by the mesh yet"):
            authority.succeed(new)
        both = authority.trust(*new.roots)
        assert both.pin == authority.pin
        switched = both.succeed(new)
        assert switched.pin == new.pin
        assert set(switched.roots) == {*authority.roots, *new.roots}
        leaf_of(switched.sign(pem(request()), WEB, now=NOW)).verify_directly_issued_by(new.roots[0])
        with pytest.raises(AuthorityError, match="still signs"):
            switched.distrust(new.roots[0])
        assert switched.distrust(authority.roots[0]).roots == new.roots

    def test_it_is_stored_whole(self, authority: Authority) -> None:
        both = authority.trust(*Authority.create(NOW).roots)
        assert Authority.from_pem(both.to_pem()) == both


def test_openssl_agrees(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    authority = Authority.create(now)
    chain, _ = authority.serve(["mesh.test"], now=now, lifetime=dt.timedelta(hours=1))
    (tmp_path / "server.pem").write_text(chain)
    (tmp_path / "leaf.pem").write_text(authority.sign(pem(request()), WEB, now=now))
    (tmp_path / "root.pem").write_text(authority.bundle)
    for file, options in {
        "leaf.pem": ["-purpose", "sslclient"],
        "server.pem": ["-purpose", "sslserver", "-verify_hostname", "istiod.istio-system.svc"],
    }.items():
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", *options, "-CAfile", "root.pem", file],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
