"""One look at an issuer's keys, over HTTP: what is asked, of whom, and what of the answer is believed.

Whoever may write a RequestAuthentication chooses where the control plane connects to. So it connects to
public addresses only, or to those that the mesh's administrator allows; the address that counts is the one
that is dialled, whatever a name stood for a moment ago. Nothing is followed, little is read, and of the
answer only public keys go on: nothing else that stands there can be read back from a proxy.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from weft.compile.key_sets import KeySource
from weft.model.jwks import slim, usable

Network = IPv4Network | IPv6Network

_LIMIT: Final = 1 << 20
_MOST_KEYS: Final = 200
_AT_ONCE: Final = 8
_UNREADABLE: Final = "the URI cannot be read"
_NAT64: Final = IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """Keys could not be had. The text says why, and nothing of what a server answered."""


class _RefusedError(OSError):
    """An address that may not be dialled."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Addresses that may be dialled though they are not public, and whether plain HTTP will do."""

    networks: tuple[Network, ...] = ()
    plaintext: bool = False

    def allows(self, address: str) -> bool:
        """Whether an address may be dialled."""
        ip = ip_address(address.partition("%")[0])
        if any(ip.version == network.version and ip in network for network in self.networks):
            return True
        inner = _inner(ip)
        if inner is not None:
            return self.allows(str(inner))
        return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to an IPv6 address end at."""
    if not isinstance(ip, IPv6Address):
        return None
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


class KeyServer:
    """Fetches keys; ``reach`` may change at any time. Use it as a context.

    Args:
        tls: how servers are verified; by the system's authorities unless given.
    """

    def __init__(self, reach: Reach = Reach(), *, tls: ssl.SSLContext | None = None) -> None:
        self.reach = reach
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> KeyServer:
        connector = aiohttp.TCPConnector(
            force_close=True,
            use_dns_cache=False,
            resolver=aiohttp.ThreadedResolver(),
            socket_factory=self._socket,
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "weft"},
            max_line_size=8190,
            max_field_size=8190,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an address that is about to be dialled."""
        family, kind, protocol, _, address = info
        if not self.reach.allows(address[0]):
            raise _RefusedError(f"{address[0]} is no public address, and keyFetching does not allow it")
        return socket.socket(family, kind, protocol)

    async def fetch(self, source: KeySource, timeout: timedelta) -> str:
        """The keys, in the same form whenever they are the same.

        Raises:
            FetchError: they cannot be had.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(timeout.total_seconds()):
                    uri = await self._discover(source.uri) if source.discover else source.uri
                    return public_keys(await self._get(uri))
            except TimeoutError as error:
                raise FetchError(f"no answer within {timeout.total_seconds():g}s") from error

    async def read(self, uri: str, timeout: timedelta) -> bytes:
        """What a server answers, within the same bounds.

        Raises:
            FetchError: it cannot be had.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(timeout.total_seconds()):
                    return await self._get(uri)
            except TimeoutError as error:
                raise FetchError(f"no answer within {timeout.total_seconds():g}s") from error

    async def _discover(self, uri: str) -> str:
        """Where the keys are, by the issuer's OpenID configuration."""
        found = _json(await self._get(uri))
        named = found.get("jwks_uri") if isinstance(found, Mapping) else None
        if not isinstance(named, str):
            raise FetchError("the issuer's OpenID configuration names no jwks_uri")
        return named

    async def _get(self, uri: str) -> bytes:
        assert self._session is not None, "use it as a context"
        try:
            parts = urlsplit(uri)
            host = parts.hostname
        except ValueError as error:
            raise FetchError(_UNREADABLE) from error
        if not host or parts.scheme not in {"https", "http"}:
            raise FetchError("the URI is not one of https")
        if parts.scheme == "http" and not self.reach.plaintext:
            raise FetchError("plain HTTP is not allowed: anybody on the way could put keys of his own there")
        if parts.username is not None or parts.password is not None:
            raise FetchError("the URI bears a password")
        try:
            async with self._session.get(uri, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    raise FetchError(f"status {response.status}: redirects are not followed")
                if response.status != 200:
                    raise FetchError(f"status {response.status}")
                return await _body(response)
        except aiohttp.ClientError as error:
            raise FetchError(_why(error)) from error
        except ValueError as error:
            raise FetchError(_UNREADABLE) from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > _LIMIT:
            raise FetchError("the answer is larger than 1 MiB")
    return bytes(body)


def _why(error: aiohttp.ClientError) -> str:
    """In few words, and the same for the same reason: each change of it is told."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "the server's certificate is not accepted"
    if isinstance(error, aiohttp.InvalidURL):
        return _UNREADABLE
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host has no address"
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = error.os_error
        return str(refused) if isinstance(refused, _RefusedError) else "no connection to the host"
    return "the server's answer cannot be read"


def _json(body: bytes) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FetchError("the answer is not JSON") from error
    return found


def public_keys(body: bytes) -> str:
    """A key set with the public keys that a proxy can use, and nothing else of what was there.

    Shared secrets are no public keys: whoever can read them could sign. Keys that Envoy cannot use are left
    out: with a set of such keys only it would refuse its whole configuration.

    Raises:
        FetchError: there are none, or too many.
    """
    found = _json(body)
    keys = found.get("keys") if isinstance(found, Mapping) else None
    if not isinstance(keys, list):
        raise FetchError("the answer is not a set of keys")
    if len(keys) > _MOST_KEYS:
        raise FetchError(f"the answer has more than {_MOST_KEYS} keys")
    public = [slim(key) for key in keys if isinstance(key, Mapping) and key.get("kty") != "oct"]
    good = sorted(
        json.dumps(key, separators=(",", ":"))
        for key in public
        if key.get("use", "sig") == "sig" and usable(key)
    )
    if not good:
        raise FetchError("the answer has no public key to verify signatures with")
    return f'{{"keys":[{",".join(dict.fromkeys(good))}]}}'
