"""Our few messages against the real protobuf's reading and writing of them."""

from __future__ import annotations

import contextlib
from typing import Any

from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from tests.support import spiffe_client  # noqa: F401 - what it does before spiffe is imported

from weft.node.workloadapi import messages

from spiffe._proto import workload_pb2 as real  # isort: skip

TEXTS = st.text(max_size=40)
BYTES = st.binary(max_size=300)
MAPS = st.dictionaries(TEXTS, BYTES, max_size=3)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(TEXTS, BYTES, BYTES, BYTES, MAPS, st.lists(st.binary(min_size=1, max_size=50), max_size=2))
def test_certificates(
    name: str, chain: bytes, key: bytes, bundle: bytes, federated: dict[str, bytes], revoked: list[bytes]
) -> None:
    svid = messages.X509Svid(spiffe_id=name, chain=chain, key=key, bundle=bundle)
    read = real.X509SVIDResponse.FromString(messages.x509_svids([svid], federated, revoked))
    assert list(read.svids) == [
        real.X509SVID(spiffe_id=name, x509_svid=chain, x509_svid_key=key, bundle=bundle)
    ]
    assert (dict(read.federated_bundles), list(read.crl)) == (federated, revoked)
    bundles = real.X509BundlesResponse.FromString(messages.x509_bundles(federated, revoked))
    assert (dict(bundles.bundles), list(bundles.crl)) == (federated, revoked)


@given(TEXTS, st.lists(TEXTS, max_size=3), MAPS, st.dictionaries(TEXTS, VALUES, max_size=4))
def test_tokens(name: str, tokens: list[str], bundles: dict[str, bytes], claims: dict[str, Any]) -> None:
    read = real.JWTSVIDResponse.FromString(messages.jwt_svids(name, tokens))
    assert [(svid.spiffe_id, svid.svid) for svid in read.svids] == [(name, token) for token in tokens]
    assert dict(real.JWTBundlesResponse.FromString(messages.jwt_bundles(bundles)).bundles) == bundles
    told = real.ValidateJWTSVIDResponse.FromString(messages.validated(name, claims))
    assert told.spiffe_id == name
    wanted = real.ValidateJWTSVIDResponse()
    wanted.claims.update(claims)
    assert MessageToDict(told.claims) == MessageToDict(wanted.claims)


@given(st.lists(TEXTS, max_size=4), TEXTS)
def test_requests(audience: list[str], wanted: str) -> None:
    body = real.JWTSVIDRequest(audience=audience, spiffe_id=wanted).SerializeToString()
    assert messages.read_jwt_request(body) == (tuple(audience), wanted)
    body = real.ValidateJWTSVIDRequest(audience=wanted, svid="t").SerializeToString()
    assert messages.read_validate_request(body) == (wanted, "t")


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_as_the_real_one_does(body: bytes) -> None:
    try:
        ours: Any = messages.read_jwt_request(body)
    except ValueError:
        ours = None
    with contextlib.suppress(Exception):
        read = real.JWTSVIDRequest.FromString(body)
        if ours is not None:
            assert ours == (tuple(read.audience), read.spiffe_id)
