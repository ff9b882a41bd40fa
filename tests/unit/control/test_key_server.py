"""One look at an issuer's keys: whom the control plane connects to, and what it believes of the answer."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.backend import serving
from tests.support.certificates import TestAuthority
from tests.support.key_server import IssuerServer
from tests.support.tokens import ec_key, jwk, jwks, rsa_key

from weft.compile.key_sets import DISCOVERY, KeySource
from weft.control.key_server import FetchError, KeyServer, Reach, public_keys
from weft.model.jwks import is_plain, usable

SOON = timedelta(seconds=20)
HERE = Reach((ip_network("127.0.0.0/8"), ip_network("::1/128")), plaintext=True)
RSA, EC = jwk(rsa_key(), "r"), jwk(ec_key(), "e")


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with serving(IssuerServer()) as server:
        yield server


async def fetch(source: KeySource | str, reach: Reach = HERE, timeout: timedelta = SOON) -> str:
    async with KeyServer(reach) as server:
        return await server.fetch(KeySource(source) if isinstance(source, str) else source, timeout)


async def refusal(source: KeySource | str, reach: Reach = HERE, timeout: timedelta = SOON) -> str:
    with pytest.raises(FetchError) as caught:
        await fetch(source, reach, timeout)
    return str(caught.value)


async def test_keys_are_had_and_in_one_form_whatever_their_order(issuer: IssuerServer) -> None:
    issuer.put("/a", jwks(RSA, EC))
    issuer.put("/b", json.dumps({"keys": [{"x5c": ["MII"], **EC}, RSA], "more": 1}, indent=2))
    first = await fetch(f"{issuer.url}/a")
    assert first == await fetch(f"{issuer.url}/b")
    assert sorted(key["kid"] for key in json.loads(first)["keys"]) == ["e", "r"]


async def test_the_issuers_configuration_says_where_its_keys_are(issuer: IssuerServer) -> None:
    issuer.put(DISCOVERY, json.dumps({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}))
    issuer.put("/keys", jwks(EC))
    assert json.loads(await fetch(KeySource(issuer.url + DISCOVERY, discover=True)))["keys"]
    issuer.put(DISCOVERY, json.dumps({"jwks_uri": "https://10.0.0.1/keys"}))
    said = await refusal(KeySource(issuer.url + DISCOVERY, discover=True))
    assert said == "10.0.0.1 is no public address, and keyFetching does not allow it"
    for body in (json.dumps({"jwks_uri": 5}), "[]", "{}"):
        issuer.put(DISCOVERY, body)
        assert "names no jwks_uri" in await refusal(KeySource(issuer.url + DISCOVERY, discover=True))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("\ud83d\ude00 {", "not JSON"),
        ("[]", "not a set of keys"),
        ("{}", "not a set of keys"),
        ('{"keys": {}}', "not a set of keys"),
        ('{"keys": []}', "no public key"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "no public key"),
        (jwks({**RSA, "use": "enc"}), "no public key"),
        (jwks({**RSA, "n": 7}, {"kty": ["RSA"]}, {"kty": "AKP", "pub": "x"}), "no public key"),
        (json.dumps({"keys": [1, None, "x"]}), "no public key"),
        (jwks(*([EC] * 201)), "more than 200"),
        (b'{"keys":[' + b" " * (1 << 20) + b"]}", "larger than 1 MiB"),
    ],
)
async def test_what_is_no_key_set_is_refused(issuer: IssuerServer, body: str | bytes, why: str) -> None:
    issuer.put("/", body if isinstance(body, bytes) else body.encode(errors="surrogatepass"))
    assert why in await refusal(f"{issuer.url}/")


def test_of_the_answer_only_public_keys_go_on() -> None:
    mixed = [{**RSA, "d": "AQAB", "p": "AQAB", "note": "secret"}, {"kty": "oct", "k": "c2VjcmV0"}, "x"]
    (only,) = json.loads(public_keys(json.dumps({"keys": mixed, "password": "hunter2"}).encode()))["keys"]
    assert only == RSA


async def test_redirects_are_not_followed(issuer: IssuerServer) -> None:
    issuer.put("/keys", jwks(EC))
    for status in (301, 302, 303, 307, 308):
        issuer.put("/old", "", status, {"location": f"{issuer.url}/keys"})
        assert await refusal(f"{issuer.url}/old") == f"status {status}: redirects are not followed"
    issuer.put("/meta", "", 302, {"location": "http://169.254.169.254/latest/meta-data/"})
    assert "redirects are not followed" in await refusal(f"{issuer.url}/meta")
    assert issuer.asked["/keys"] == 0


async def test_an_error_tells_nothing_of_what_the_server_said(issuer: IssuerServer) -> None:
    issuer.put("/", "the password is hunter2", 500)
    assert await refusal(f"{issuer.url}/") == "status 500"


async def test_compressed_answers_are_not_unpacked(issuer: IssuerServer) -> None:
    issuer.put("/", b"\x1f\x8b\x08" + b"\0" * 50, headers={"content-encoding": "gzip"})
    assert "not JSON" in await refusal(f"{issuer.url}/")


async def test_a_server_that_says_nothing_is_given_up(issuer: IssuerServer) -> None:
    issuer.gate.clear()
    assert await refusal(f"{issuer.url}/", timeout=timedelta(milliseconds=200)) == "no answer within 0.2s"
    issuer.gate.set()


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/") == "no connection to the host"


async def test_the_servers_certificate_must_be_for_its_name_and_from_somebody_trusted(tmp_path: Path) -> None:
    authority = TestAuthority()
    pair = authority.issue("localhost")
    file = tmp_path / "server.pem"
    file.write_text(pair.certificate + pair.key)
    server = IssuerServer()
    server.put("/", jwks(EC))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(file)
    server.socket = own.wrap_socket(server.socket, server_side=True)
    trusting = ssl.create_default_context(cadata=authority.pem)
    with serving(server):
        port = server.server_address[1]

        async def said(host: str, tls: ssl.SSLContext | None) -> str:
            async with KeyServer(HERE, tls=tls) as keys:
                try:
                    return await keys.fetch(KeySource(f"https://{host}:{port}/"), SOON)
                except FetchError as error:
                    return str(error)

        assert json.loads(await said("localhost", trusting))["keys"] == [EC]
        assert await said("127.0.0.1", trusting) == "the server's certificate is not accepted"
        assert await said("localhost", None) == "the server's certificate is not accepted"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    ],
)  # fmt: skip
async def test_no_name_for_this_machine_leads_to_it(issuer: IssuerServer, host: str) -> None:
    issuer.put("/", jwks(EC))
    port = issuer.server_address[1]
    said = await refusal(f"http://{host}:{port}/", Reach(plaintext=True))
    assert "is no public address" in said or said in {"the host has no address", "the URI cannot be read"}
    assert not issuer.asked


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://keys.example/", "plain HTTP is not allowed"),
        ("https://user:secret@keys.example/", "bears a password"),
        ("ftp://keys.example/", "not one of https"),
        ("https:///keys", "not one of https"),
        ("https://[::1/keys", "cannot be read"),
        ("https://keys.example:99999/", "cannot be read"),
    ],
)
async def test_uris_that_are_not_asked(uri: str, why: str) -> None:
    assert why in await refusal(uri, Reach())


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),  # metadata of a cloud
        ("169.254.169.254", False),
        ("127.0.0.53", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.240.0.1", False),  # virtual addresses of the mesh
        ("255.255.255.255", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),  # metadata of a cloud
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a9fe:a9fe", False),  # 169.254.169.254 through NAT64
        ("2002:a00:1::", False),  # 10.0.0.1 through 6to4
    ],
)
def test_public_addresses_only(address: str, allowed: bool) -> None:
    assert Reach().allows(address) is allowed


def test_allowed_networks_hold_whatever_an_address_is_written_as() -> None:
    reach = Reach((ip_network("10.0.0.0/8"),))
    assert [reach.allows(one) for one in ("10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1", "127.0.0.1")] == [
        True, True, True, False,
    ]  # fmt: skip


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_KEY = st.builds(
    lambda key, changes: {**key, **changes},
    st.sampled_from([RSA, EC, {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}, {"kty": "oct", "k": "YQ"}]),
    st.dictionaries(st.sampled_from([*RSA, *EC, "use", "d", "x5c"]), _JSON | st.just("AQAB"), max_size=3),
)


@given(
    st.binary(max_size=60)
    | st.lists(_KEY | _JSON, max_size=4).map(lambda keys: json.dumps({"keys": keys}).encode())
)
def test_whatever_an_issuer_answers_only_keys_that_envoy_takes_go_on(body: bytes) -> None:
    try:
        text = public_keys(body)
    except FetchError:
        return
    assert is_plain(text)
    keys = json.loads(text)["keys"]
    assert keys
    assert all(usable(key) and key["kty"] != "oct" and "d" not in key for key in keys)
