"""The roots of other trust domains: given in the MeshConfig, or fetched where their owners publish them.

With fetched ones come the keys of their tokens, which workloads here verify theirs by.

What was good once stays while its server fails, over a restart as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec
from cryptography import x509

from weft.compile.settings import ForeignTrust
from weft.compile.world import World
from weft.control.key_server import FetchError, KeyServer, Reach
from weft.identity.bundle import read_bundle
from weft.identity.pem import AuthorityError, read_certificates, write_certificates
from weft.store.interface import Private

_log = logging.getLogger(__name__)

_TIMEOUT: Final = timedelta(seconds=10)
_REFRESH_LEAST_S: Final = 60.0
_REFRESH_MOST_S: Final = 3600.0
_RETRY_FIRST_S: Final = 1.0
_PEM: Final = "pem of "


class _Good(msgspec.Struct, frozen=True):
    """What was fetched last, as it is kept."""

    pem: str
    token_keys: tuple[Mapping[str, Any], ...] = ()


class Federation:
    """Keeps them. Give it every world (``heard``) and let ``run`` run.

    Args:
        server: fetches, within the bounds that hold for keys of issuers (``keyFetching``).
        table: the last good bundles, by URL.
        changed: is given the roots (PEM) by trust domain, none for one whose bundle has not come yet; those
            that were added to the own one, and the own one's other names.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        server: KeyServer,
        table: Private,
        changed: Callable[[Mapping[str, str], str, tuple[str, ...]], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.errors: dict[str, str] = {}
        """Why a bundle could not be had or used, by its URL or by ``pem`` of its trust domains."""
        self._server = server
        self._table = table
        self._changed = changed
        self._clock = clock
        self._wanted: tuple[ForeignTrust, ...] = ()
        self._aliases: tuple[str, ...] = ()
        self.token_keys: dict[str, tuple[Mapping[str, Any], ...]] = {}
        """JWKs of the tokens of other trust domains."""
        self._good: dict[str, _Good] = {}
        self._due: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._woken = asyncio.Event()

    def doubts(self) -> Iterable[str]:
        """For whoever looks at the authority."""
        for where, why in sorted(self.errors.items()):
            yield f"the trust bundle, {where}: {why}"

    def heard(self, world: World) -> None:
        """The mesh's settings may have changed."""
        settings = world.settings
        self._server.reach = Reach(settings.key_networks, settings.key_plaintext)
        wanted, aliases = world.settings.foreign, world.settings.trust_domains
        if (wanted, aliases) != (self._wanted, self._aliases):
            self._wanted, self._aliases = wanted, aliases
            self._woken.set()

    async def run(self) -> None:
        """Fetch, and say what changed, for ever."""
        kept = await self._table.list()
        self._good = {url: msgspec.json.decode(body, type=_Good) for url, body in kept.items()}
        async with self._server:
            await self._keep()

    async def _keep(self) -> None:
        while True:
            self._woken.clear()
            await self._tell()
            urls = {one.url for one in self._wanted if one.url}
            for url in urls:
                if self._due.get(url, 0.0) <= self._clock():
                    await self._fetch(url)
            await self._tell()
            waits = [self._due[url] - self._clock() for url in urls]
            try:
                async with asyncio.timeout(max(0.0, min(waits)) if waits else None):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _fetch(self, url: str) -> None:
        try:
            bundle = read_bundle(await self._server.read(url, _TIMEOUT))
        except (FetchError, AuthorityError) as error:
            if self.errors.get(url) != str(error):
                _log.warning("the trust bundle at %s cannot be had: %s; the last good one stays", url, error)
            self.errors[url] = str(error)
            pause = self._pause[url] = min(self._pause.get(url, _RETRY_FIRST_S / 2) * 2, _REFRESH_LEAST_S)
            self._due[url] = self._clock() + pause
            return
        self.errors.pop(url, None)
        self._pause.pop(url, None)
        self._due[url] = self._clock() + min(
            max(bundle.refresh.total_seconds(), _REFRESH_LEAST_S), _REFRESH_MOST_S
        )
        good = _Good(bundle.roots, bundle.token_keys)
        if self._good.get(url) != good:
            self._good[url] = good
            await self._table.put(url, msgspec.json.encode(good))
            _log.info("the trust bundle at %s has changed", url)

    async def _tell(self) -> None:
        """Several sources for one domain are joined (Istio's ``caCertificates``)."""
        found: dict[str, list[x509.Certificate]] = {}
        keys: dict[str, tuple[Mapping[str, Any], ...]] = {}
        self.errors = {where: why for where, why in self.errors.items() if not where.startswith(_PEM)}
        for one in self._wanted:
            try:
                good = self._good.get(one.url) if one.url else _Good(one.pem)
                pem = good.pem if good else ""
                roots = read_certificates(pem.encode()) if pem else ()
            except AuthorityError as error:
                self.errors[f"{_PEM}{', '.join(one.domains) or 'the own trust domain'}"] = str(error)
                continue
            for domain in one.domains or ("",):
                known = found.setdefault(domain, [])
                known += [root for root in roots if root not in known]
                if domain and good is not None and good.token_keys:
                    keys[domain] = keys.get(domain, ()) + good.token_keys
        self.token_keys = keys
        domains = {name: write_certificates(roots) for name, roots in found.items() if name}
        await self._changed(domains, write_certificates(found.get("", ())), self._aliases)
