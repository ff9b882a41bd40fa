"""Keys that are kept: fetched ahead, refreshed, the last good ones when their server fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.backend import serving
from tests.support.compiled import resources
from tests.support.key_server import IssuerServer
from tests.support.plane import eventually
from tests.support.tokens import ec_key, jwk, jwks

from weft.client import ApiClient, Server
from weft.compile.key_sets import DISCOVERY, KeySet, KeySets, KeySource
from weft.compile.world import World
from weft.control.app import control_plane
from weft.control.key_server import KeyServer
from weft.control.keysets import KeyFetcher
from weft.control.options import ControlOptions
from weft.store.sqlite import SqliteStore

ALLOWED = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {keyFetching: {allowedNetworks: [127.0.0.0/8], allowPlaintext: true}}
"""


def policy(**rule: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "users", "namespace": "default"},
            "spec": {"jwtRules": [rule]},
        }
    )


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with serving(IssuerServer()) as server:
        yield server


class Keeper:
    """A fetcher that runs, and what it has told."""

    def __init__(self, fetcher: KeyFetcher, told: list[KeySets], attempts: list[bool]) -> None:
        self.fetcher, self.told, self.attempts = fetcher, told, attempts

    def hear(self, *texts: str) -> None:
        self.fetcher.heard(World.build(resources(*texts)))

    async def until(self, source: KeySource, kid: str = "", failure: str = "") -> None:
        def there() -> bool:
            known = self.told[-1].get(source, KeySet())
            kids = [key["kid"] for key in json.loads(known.text)["keys"]] if known.text else []
            return (
                kids == ([kid] if kid else [])
                and failure in known.failure
                and bool(failure) == bool(known.failure)
            )

        await eventually(there)


@asynccontextmanager
async def keeping(directory: Path, refresh: float = 600.0, clock: Any = None) -> AsyncIterator[Keeper]:
    async with SqliteStore.open(directory) as store:
        told: list[KeySets] = []
        attempts: list[bool] = []
        more = {"clock": clock} if clock else {}
        fetcher = KeyFetcher(
            KeyServer(), store.private("key-sets"), told.append, counted=attempts.append,
            refresh=timedelta(seconds=refresh), retry=0.02, **more,
        )  # fmt: skip
        told.append(await fetcher.load())
        running = asyncio.create_task(fetcher.run())
        try:
            yield Keeper(fetcher, told, attempts)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_keys_are_fetched_when_a_policy_needs_them_and_forgotten_with_it(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    source = KeySource(f"{issuer.url}/keys")
    async with keeping(tmp_path) as keeper:
        keeper.hear(ALLOWED, policy(issuer="i", jwksUri=source.uri))
        await keeper.until(source, "a")
        keeper.hear(ALLOWED, policy(issuer="i", jwks=jwks(jwk(ec_key(), "b"))))
        await eventually(lambda: keeper.told[-1] == {})
        assert keeper.attempts == [True]


async def test_an_issuer_without_a_uri_is_asked_where_its_keys_are(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    issuer.put(f"/realm{DISCOVERY}", json.dumps({"jwks_uri": f"{issuer.url}/keys"}))
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    async with keeping(tmp_path) as keeper:
        keeper.hear(ALLOWED, policy(issuer=f"{issuer.url}/realm/"))
        await keeper.until(KeySource(f"{issuer.url}/realm{DISCOVERY}", discover=True), "a")


async def test_rotated_keys_are_found_and_what_is_the_same_is_not_told_again(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    first, second = jwk(ec_key(), "a"), jwk(ec_key(), "b")
    issuer.put("/keys", jwks(first))
    source = KeySource(f"{issuer.url}/keys")
    async with keeping(tmp_path, refresh=0.02) as keeper:
        keeper.hear(ALLOWED, policy(issuer="i", jwksUri=source.uri))
        await keeper.until(source, "a")
        before = len(keeper.told)
        await eventually(lambda: len(keeper.attempts) > 3)
        assert len(keeper.told) == before
        issuer.put("/keys", jwks(second))
        await keeper.until(source, "b")


async def test_the_last_good_keys_stay_when_the_server_fails_and_over_a_restart(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    source = KeySource(f"{issuer.url}/keys")
    texts = (ALLOWED, policy(issuer="i", jwksUri=source.uri))
    async with keeping(tmp_path, refresh=0.02) as keeper:
        keeper.hear(*texts)
        await keeper.until(source, "a")
        for body, status, why in (("oops", 200, "not JSON"), ("", 503, "status 503")):
            issuer.put("/keys", body, status)
            await keeper.until(source, "a", why)
    async with keeping(tmp_path) as keeper:
        assert json.loads(keeper.told[0][source].text)["keys"][0]["kid"] == "a"
        keeper.hear(*texts)
        await keeper.until(source, "a", "status 503")
        assert not any(keeper.attempts)


async def test_keys_of_an_issuer_that_was_not_reached_for_a_week_are_dropped(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    now = [1_000_000.0]
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    source = KeySource(f"{issuer.url}/keys")
    async with keeping(tmp_path, refresh=0.02, clock=lambda: now[0]) as keeper:
        keeper.hear(ALLOWED, policy(issuer="i", jwksUri=source.uri))
        await keeper.until(source, "a")
        issuer.put("/keys", "", 500)
        await keeper.until(source, "a", "status 500")
        now[0] += 8 * 24 * 3600
        await keeper.until(source, "", "status 500")
    async with keeping(tmp_path, clock=lambda: now[0]) as keeper:
        assert keeper.told == [{}]


async def test_addresses_that_are_allowed_later_are_tried_at_once(
    issuer: IssuerServer, tmp_path: Path
) -> None:
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    source = KeySource(f"{issuer.url}/keys")
    text = policy(issuer="i", jwksUri=source.uri)
    async with keeping(tmp_path) as keeper:
        keeper.hear(text)
        await keeper.until(source, "", "plain HTTP is not allowed")
        keeper.hear(ALLOWED.replace("127.0.0.0/8", "10.0.0.0/8"), text)
        await keeper.until(source, "", "127.0.0.1 is no public address")
        assert not issuer.asked
        keeper.hear(ALLOWED, text)
        await keeper.until(source, "a")


async def test_a_slow_issuer_holds_up_nobody_else(issuer: IssuerServer, tmp_path: Path) -> None:
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    with serving(IssuerServer()) as slow:
        slow.gate.clear()
        source = KeySource(f"{issuer.url}/keys")
        async with keeping(tmp_path) as keeper:
            both = [{"issuer": "s", "jwksUri": f"{slow.url}/keys"}, {"issuer": "i", "jwksUri": source.uri}]
            made = json.loads(policy())
            made["spec"]["jwtRules"] = both
            keeper.hear(ALLOWED, json.dumps(made))
            await keeper.until(source, "a")
        slow.gate.set()


@pytest.mark.timeout(60)
async def test_the_control_plane_fetches_what_its_policies_need(issuer: IssuerServer, tmp_path: Path) -> None:
    issuer.put("/keys", jwks(jwk(ec_key(), "a")))
    options = ControlOptions(
        runtime=tmp_path / "run", state=tmp_path / "state", listen="127.0.0.1", xds_port=0, api_port=0,
        monitoring_port=0, telemetry_port=0,
    )  # fmt: skip
    stop = asyncio.Event()
    async with (
        control_plane(options, stop) as listening,
        ApiClient(Server(socket_path=listening.socket)) as client,
    ):
        for text, path in (
            (ALLOWED, "weft.dev/v1alpha1/namespaces/istio-system/meshconfigs"),
            (
                policy(issuer="i", jwksUri=f"{issuer.url}/keys"),
                "security.istio.io/v1/namespaces/default/requestauthentications",
            ),
        ):
            await client.raw("POST", f"/apis/{path}", body=yaml.safe_load(text))

        async def fetched() -> bool:
            found = await client.raw("GET", f"/apis/{path}/users")
            said = [(one["type"], one["status"]) for one in found.get("status", {}).get("conditions", ())]
            return said == [("KeysFetched", "True")]

        await eventually(fetched, 30)
        assert issuer.asked["/keys"] == 1
        stop.set()
