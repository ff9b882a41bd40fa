"""Whom a sidecar believes: each trust domain by its own roots, nobody who is revoked; both change live."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import Pair, TestAuthority
from tests.support.compiled import world
from tests.support.edge_backends import pem_file
from tests.support.envoy import Envoy, wait_until
from tests.support.identities import SERVICE, sidecar_of
from tests.support.intermediates import intermediate
from tests.support.ports import free_ports
from weft.identity.ca import Authority
from weft.identity.revocation import Revoked, issuer_key, sign_list
from weft.identity.trust import Trust
from weft.node.keys import Credential, Signed, make_key, read_secrets, request_for, write_secrets
from weft.spiffe import SpiffeId

REFUSED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)
OWN, PARTNER, STRANGER = "cluster.local", "partner.example", "stranger.example"
MESH = (
    SERVICE
    + """apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec:
  caCertificates: [{{spiffeBundleUrl: "https://partner.example/", trustDomains: [partner.example]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
"""
)


def now() -> datetime:
    return datetime.now(UTC)


def issue(authority: Authority, domain: str) -> Pair:
    """A certificate for a workload of ``domain``, whoever signs it."""
    key = make_key()
    signer = Authority(domain, authority.key, authority.chain, authority.roots)
    chain = signer.sign(request_for(key), SpiffeId(domain, "default", "client"), now=now())
    return Pair(chain, key)


def revoked(authority: Authority, *pairs: Pair) -> str:
    """The list of an authority, PEM."""
    found = [Credential.of(pair.key, Signed(pair.certificate, Trust(pem=authority.bundle))) for pair in pairs]
    entries = [
        Revoked(
            issuer=issuer_key(authority),
            serial=f"{credential.serial:x}",
            identity="",
            node="",
            time=now(),
            until=now() + timedelta(days=1),
        )
        for credential in found
    ]
    return sign_list(authority, entries, number=1, now=now())


@dataclass
class Door:
    """A sidecar that demands mutual TLS. Its own identity is of ``own``."""

    envoy: Envoy
    port: int
    own: Authority
    partner: Authority

    def trust(self, trust: Trust) -> None:
        """Deliver it as a node does, and wait until Envoy says that it is loaded."""
        key = make_key()
        chain = self.own.sign(request_for(key), SpiffeId(OWN, "default", "web"), now=now())
        mine = Credential.of(key, Signed(chain, trust))
        write_secrets(self.envoy.directory, mine)
        found = read_secrets(self.envoy.directory, f"spiffe://{OWN}/ns/default/sa/web")
        assert found is not None
        assert found.trust == trust

        def loaded() -> bool:
            dump = json.loads(self.envoy.admin("/config_dump?resource=dynamic_active_secrets"))
            versions = {row["name"]: row["version_info"] for row in dump["configs"]}
            return versions == {"ROOTCA": trust.version, "default": mine.version}

        wait_until(loaded, 20, "Envoy to load the files")

    def knock(self, pair: Pair) -> int:
        """The status that who shows this certificate gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.own.bundle)
        context.set_alpn_protocols(["istio-http/1.1"])
        with pem_file(pair) as path:
            context.load_cert_chain(path)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.connect()
            connection.sock = context.wrap_socket(connection.sock, server_hostname="web")
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    def refuses(self, pair: Pair) -> bool:
        try:
            self.knock(pair)
        except REFUSED:
            return True
        return False


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "web")))
        app = int(backend.server_address[1])
        outbound, inbound = free_ports(2)
        web = sidecar_of("web", app, inbound, outbound)
        envoy = stack.enter_context(run_compiled(world(MESH.format(app=app)), web, TestAuthority()))
        yield Door(envoy, inbound, Authority.create(now(), OWN), Authority.create(now(), PARTNER))


def test_each_domain_is_vouched_for_by_its_own_authority(door: Door) -> None:
    own, partner = door.own.bundle, door.partner.bundle
    # One domain: its roots take whatever they have signed for it, and the partner is nobody.
    door.trust(Trust(pem=own))
    assert door.knock(issue(door.own, OWN)) == 200
    assert door.refuses(issue(door.partner, PARTNER))
    door.trust(Trust(pem=own, domains=((OWN, own), (PARTNER, partner))))
    assert door.knock(issue(door.own, OWN)) == 200
    assert door.knock(issue(door.partner, PARTNER)) == 200
    assert door.refuses(issue(door.partner, OWN))
    assert door.refuses(issue(door.own, PARTNER))
    assert door.refuses(issue(door.own, STRANGER))
    assert door.refuses(issue(Authority.create(now(), PARTNER), PARTNER))


def test_the_revoked_are_refused_and_nobody_else(door: Door) -> None:
    """Old and new root at once, as while the root is replaced; then with another domain beside it."""
    successor = Authority.create(now(), OWN)
    good, bad = issue(door.own, OWN), issue(door.own, OWN)
    newer, worse = issue(successor, OWN), issue(successor, OWN)
    roots = door.own.bundle + successor.bundle
    door.trust(Trust(pem=roots))
    for pair in (good, bad, newer, worse):
        assert door.knock(pair) == 200
    lists = revoked(door.own, bad) + revoked(successor, worse)
    for trust in (
        Trust(pem=roots + lists),
        Trust(pem=roots + lists, domains=((OWN, roots + lists), (PARTNER, door.partner.bundle))),
    ):
        door.trust(trust)
        assert door.knock(good) == 200
        assert door.knock(newer) == 200
        assert door.refuses(bad)
        assert door.refuses(worse)
    assert door.knock(issue(door.partner, PARTNER)) == 200


def test_a_root_without_a_list_is_why_each_signer_has_one(door: Door) -> None:
    """Envoy's rule that the ledger follows: with one list there must be one for every issuer."""
    successor = Authority.create(now(), OWN)
    roots = door.own.bundle + successor.bundle
    door.trust(Trust(pem=roots + revoked(door.own)))
    assert door.knock(issue(door.own, OWN)) == 200
    assert door.refuses(issue(successor, OWN))


def test_an_intermediate_needs_no_list_of_its_root(door: Door) -> None:
    """The root's key is elsewhere."""
    below = intermediate(door.own)
    bad = issue(below, OWN)
    door.trust(Trust(pem=door.own.bundle + revoked(below, bad)))
    assert door.refuses(bad)
    assert door.knock(issue(below, OWN)) == 200
