"""Bundles of other trust domains: fetched, joined, and kept while their server is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.compiled import world
from tests.support.plane import eventually

from weft.control.federation import Federation
from weft.control.key_server import KeyServer
from weft.identity.bundle import REFRESH_HINT, read_bundle, write_bundle
from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError
from weft.store.sqlite import SqliteStore

TEXT = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec:
  trustDomainAliases: [old.example]
  keyFetching: {keys}
  caCertificates:
  - {{spiffeBundleUrl: "{url}", trustDomains: [partner.example]}}
  - {{pem: {pem}, trustDomains: [partner.example, third.example]}}
  - {{pem: {pem}}}
"""
KEY = {"kid": "k", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}
LOOPBACK = "{allowedNetworks: [127.0.0.0/8], allowPlaintext: true}"


class Publisher:
    """Serves one bundle. ``body`` None: it answers 503."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.url = ""
        self.asked = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Publisher]:
        async def answer(_: web.Request) -> web.Response:
            self.asked += 1
            return web.Response(body=self.body) if self.body is not None else web.Response(status=503)

        app = web.Application()
        app.router.add_get("/bundle", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/bundle"
        try:
            yield self
        finally:
            await runner.cleanup()


class Heard:
    """What a trustee is told."""

    def __init__(self) -> None:
        self.domains: dict[str, str] = {}
        self.added = ""
        self.aliases: tuple[str, ...] = ()

    async def __call__(self, domains: Mapping[str, str], added: str, aliases: tuple[str, ...]) -> None:
        self.domains, self.added, self.aliases = dict(domains), added, aliases


@asynccontextmanager
async def federation(directory: Path, text: str) -> AsyncIterator[tuple[Federation, Heard]]:
    heard = Heard()
    async with SqliteStore.open(directory) as store:
        made = Federation(KeyServer(), store.private("federation"), heard)
        made.heard(world(text))
        running = asyncio.create_task(made.run())
        try:
            yield made, heard
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def bundle(authority: Authority, *keys: Mapping[str, str]) -> bytes:
    written = write_bundle(authority.roots, sequence=1)
    written["keys"] += [{**key, "use": "jwt-svid"} for key in keys]
    return json.dumps(written).encode()


async def test_given_and_fetched_roots_are_joined_by_domain_and_kept(tmp_path: Path) -> None:
    partner, third = Authority.create(datetime.now(UTC)), Authority.create(datetime.now(UTC))
    async with Publisher().serving() as publisher:
        text = TEXT.format(url=publisher.url, pem=json.dumps(third.bundle), keys=LOOPBACK)
        async with federation(tmp_path, text) as (made, heard):
            await eventually(lambda: publisher.url in made.errors)
            assert heard.domains == {"partner.example": third.bundle, "third.example": third.bundle}
            assert (heard.added, heard.aliases) == (third.bundle, ("old.example",))
            publisher.body, both = bundle(partner, KEY), partner.bundle + third.bundle
            await eventually(lambda: heard.domains.get("partner.example") == both, 30)
            assert made.errors == {}
            assert made.token_keys == {"partner.example": (KEY,)}
        # Another control plane has it at once, though nobody answers.
        publisher.body = None
        async with federation(tmp_path, text) as (made, heard):
            await eventually(lambda: publisher.url in made.errors)
            assert heard.domains["partner.example"] == both
            assert made.token_keys == {"partner.example": (KEY,)}


async def test_no_private_address_unless_it_is_allowed(tmp_path: Path) -> None:
    partner = Authority.create(datetime.now(UTC))
    async with Publisher().serving() as publisher:
        publisher.body = bundle(partner)
        text = TEXT.format(url=publisher.url, pem=json.dumps(partner.bundle), keys="{allowPlaintext: true}")
        async with federation(tmp_path, text) as (made, _):
            await eventually(lambda: publisher.url in made.errors)
            assert "no public address" in made.errors[publisher.url]
            assert publisher.asked == 0


def test_a_bundle_is_read_as_it_was_written() -> None:
    first, second = Authority.create(datetime.now(UTC)), Authority.create(datetime.now(UTC))
    written = write_bundle((*first.roots, *second.roots), sequence=7)
    assert (written["spiffe_sequence"], written["keys"][0]["kty"]) == (7, "EC")
    read = read_bundle(json.dumps(written).encode())
    assert (read.roots, read.token_keys, read.refresh) == (first.bundle + second.bundle, (), REFRESH_HINT)
    # Keys for tokens stand in the same set. What is private in one is not passed on, nor one without a name.
    key = {"kty": "EC", "use": "jwt-svid", "kid": "a", "d": "secret", "x": 1}
    written["keys"] += [key, {"kty": "EC", "use": "jwt-svid"}]
    read = read_bundle(json.dumps(written).encode())
    assert (read.roots, read.token_keys) == (first.bundle + second.bundle, ({"kty": "EC", "kid": "a"},))
    written["keys"] += [key] * 101
    with pytest.raises(AuthorityError, match="keys of tokens"):
        read_bundle(json.dumps(written).encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys":[]}', b'{"keys":[{"use":"x509-svid","x5c":["AAAA"]}]}', b"[" * 9999]
)
def test_what_is_no_bundle_is_refused(body: bytes) -> None:
    with pytest.raises(AuthorityError):
        read_bundle(body)
