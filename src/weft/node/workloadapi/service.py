"""The five methods of the SPIFFE Workload API, for one connection of a known workload.

Semantics: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from weft.errors import WeftError
from weft.identity.jwt import SvidError, check_audience, verify
from weft.identity.trust import Trust, split
from weft.node.keys import Credential
from weft.node.remote import Denied
from weft.node.workloadapi import messages
from weft.node.workloadapi.svids import Changing, Svids
from weft.node.workloadapi.transport import CallError, Code, Method
from weft.spiffe import SpiffeId

# What every client has to send: a browser or a forged redirect cannot (Workload Endpoint, section 3).
_HEADER: Final = "workload.spiffe.io"
_PREFIX: Final = "/SpiffeWorkloadAPI/"
_END: Final = "-----END X509 CRL-----\n"

Value = TypeVar("Value")


class Service:
    """What one caller may ask.

    Args:
        whose: the caller's workload (``namespace/name``) and identity, asked for at each call; None when it
            has none here, or no more.
        gone: returns when its workload has gone.
    """

    def __init__(
        self,
        svids: Svids,
        whose: Callable[[], tuple[str, SpiffeId] | None],
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        self._svids = svids
        self._whose = whose
        self._gone = gone

    def methods(self) -> dict[str, Method]:
        """By the path of gRPC."""
        return {
            f"{_PREFIX}FetchX509SVID": self._x509_svid,
            f"{_PREFIX}FetchX509Bundles": self._x509_bundles,
            f"{_PREFIX}FetchJWTSVID": self._jwt_svid,
            f"{_PREFIX}FetchJWTBundles": self._jwt_bundles,
            f"{_PREFIX}ValidateJWTSVID": self._validate,
        }

    async def _x509_svid(self, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
        name, identity = self._admit(headers)
        held = await _answered(self._svids.credential(name, identity))
        async for credential in self._while_there(held):
            own, others, revoked = _bundles(identity, credential.trust)
            yield messages.x509_svids([_svid(identity, credential, own)], others, revoked)

    async def _x509_bundles(self, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
        _, identity = self._admit(headers)
        async for trust in self._while_there(self._svids.trust):
            own, others, revoked = _bundles(identity, trust)
            yield messages.x509_bundles({_domain(identity): own, **others}, revoked)

    async def _jwt_svid(self, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
        name, identity = self._admit(headers)
        audience, wanted = _read(messages.read_jwt_request, body)
        if wanted and wanted != str(identity):
            raise CallError(Code.PERMISSION_DENIED, f"the caller is not {wanted[:512]}")
        try:
            audience = check_audience(audience)
        except SvidError as error:
            raise CallError(Code.INVALID_ARGUMENT, error.message) from error
        token = await _answered(self._svids.token(name, identity, audience))
        yield messages.jwt_svids(str(identity), [token])

    async def _jwt_bundles(self, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
        self._admit(headers)
        keys = await _answered(self._svids.keys())
        async for found in self._while_there(keys):
            sets = {f"spiffe://{domain}": json.dumps(one).encode() for domain, one in found.items()}
            yield messages.jwt_bundles(sets)

    async def _validate(self, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
        self._admit(headers)
        audience, token = _read(messages.read_validate_request, body)
        if not audience or not token:
            raise CallError(Code.INVALID_ARGUMENT, "audience and svid are required")
        keys = await _answered(self._svids.keys())
        try:
            bundles = {domain: found.get("keys") or [] for domain, found in keys.value.items()}
            subject, claims = verify(token, audience, bundles, now=self._svids.source.now())
            answer = messages.validated(subject, claims)
        except (SvidError, ValueError) as error:
            raise CallError(Code.INVALID_ARGUMENT, str(error)) from error
        yield answer

    def _admit(self, headers: Mapping[str, str]) -> tuple[str, SpiffeId]:
        if headers.get(_HEADER) != "true":
            raise CallError(Code.INVALID_ARGUMENT, f"the metadata lacks '{_HEADER}: true'")
        found = self._whose()
        if found is None:
            raise CallError(Code.PERMISSION_DENIED, "no identity issued: the caller is no workload here")
        return found

    async def _while_there(self, changing: Changing[Value]) -> AsyncIterator[Value]:
        """Every value, until the caller's workload has gone."""
        gone = asyncio.ensure_future(self._gone())
        values = changing.follow()
        coming = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(values))
                await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise CallError(Code.PERMISSION_DENIED, "no identity issued: the workload has ended")
                yield coming.result()
        finally:
            waiting = [gone, *([coming] if coming is not None else [])]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _answered(asked: Awaitable[Value]) -> Value:
    """What the control plane answers; its refusals and its absence as the API words them."""
    try:
        return await asked
    except Denied as error:
        raise CallError(Code.PERMISSION_DENIED, error.message) from error
    except WeftError as error:
        raise CallError(Code.UNAVAILABLE, error.message) from error


def _read(read: Callable[[bytes], Value], body: bytes) -> Value:
    try:
        return read(body)
    except ValueError as error:
        raise CallError(Code.INVALID_ARGUMENT, f"the message cannot be read: {error}") from error


def _domain(identity: SpiffeId) -> str:
    return f"spiffe://{identity.trust_domain}"


def _svid(identity: SpiffeId, credential: Credential, bundle: bytes) -> messages.X509Svid:
    key = load_pem_private_key(credential.key.encode(), password=None)
    return messages.X509Svid(
        spiffe_id=str(identity),
        chain=_der(credential.certificate),
        key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        bundle=bundle,
    )


def _bundles(identity: SpiffeId, trust: Trust) -> tuple[bytes, dict[str, bytes], list[bytes]]:
    """The roots of the own trust domain, those of others by their SPIFFE IDs, and what is revoked; DER."""
    own, others = trust.pem, dict[str, bytes]()
    for domain, pem in trust.domains:
        if domain == identity.trust_domain:
            own = pem
        else:
            others[f"spiffe://{domain}"] = _der(pem)
    lists = _lists(trust.pem)
    return _der(own), others, lists


def _lists(pem: str) -> list[bytes]:
    """The revocation lists in a PEM text, DER."""
    _, lists = split(pem)
    blocks = [f"{block}{_END}" for block in lists.split(_END)[:-1]]
    return [x509.load_pem_x509_crl(block.encode()).public_bytes(Encoding.DER) for block in blocks]


def _der(pem: str) -> bytes:
    roots, _ = split(pem)
    found: list[Any] = x509.load_pem_x509_certificates(roots.encode())
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in found)
