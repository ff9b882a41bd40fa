"""How a host becomes a node: a join token, once; from then on a certificate that renews itself.

The token names the control plane's root by a hash. The first contact fetches the trust bundle, which is
public, over a connection that is not verified; only if the bundle holds that root is a second one opened,
verified by it, and only on that one the token is shown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weft.errors import WeftError
from weft.identity.join import JoinToken
from weft.identity.pin import spki_sha256
from weft.node.keys import Credential, Signed, make_key, request_for
from weft.node.layout import write_atomic
from weft.node.remote import call, plain_context, reason, trusting_context

_FILE: Final = "node.json"
_TIMES: Final = ("not_before", "not_after", "since")
_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a node knows of itself and its mesh. ``api`` is a URL, ``xds`` is ``host:port``."""

    node: str
    api: str
    xds: str
    trust_domain: str
    credential: Credential

    def save(self, state: Path) -> None:
        """Keep it in the state directory, for its owner alone; one file, replaced in one step."""
        fields = asdict(self)
        for name in _TIMES:
            fields["credential"][name] = fields["credential"][name].isoformat()
        write_atomic(state / _FILE, json.dumps(fields).encode(), mode=0o600)

    @classmethod
    def load(cls, state: Path) -> Self | None:
        """What was saved, or None when this host has not joined.

        Raises:
            WeftError: the file is damaged.
        """
        path = state / _FILE
        try:
            fields: dict[str, Any] = json.loads(path.read_bytes())
            kept: dict[str, Any] = fields.pop("credential")
            for name in _TIMES:
                kept[name] = datetime.fromisoformat(kept[name])
            kept["domains"] = tuple((name, pem) for name, pem in kept.get("domains", ()))
            return cls(**fields, credential=Credential(**kept))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise WeftError(
                f"{path} cannot be read: {error}", hint="remove it and join again with a new token"
            ) from error

    def check(self, now: datetime) -> None:
        """That the node's certificate still opens doors.

        Raises:
            WeftError: it has expired, so that it cannot even be renewed.
        """
        until = self.credential.not_after
        if now >= until:
            raise WeftError(
                f"the certificate of node {self.node!r} expired on {until:%Y-%m-%d at %H:%M:%S} UTC",
                hint=f"join again with a token from 'weft token create --node {self.node}' "
                "(and look at this host's clock)",
            )

    def renewed(self, credential: Credential) -> Membership:
        """The same with another certificate."""
        return replace(self, credential=credential)


async def join(
    api: str, token: str, node: str, addresses: Iterable[str], state: Path, *, now: datetime | None = None
) -> Membership:
    """Enrol this host at ``api`` (``https://host:15017``) and keep the outcome in ``state``.

    Raises:
        WeftError: the token is malformed, refused, or of another mesh; nobody answers; the clocks differ.
    """
    text = JoinToken.parse(token)
    api = api.rstrip("/")
    if not api.startswith("https://"):
        raise WeftError(f"{api!r} is no control plane", hint="write https://HOST:15017")
    key = make_key()
    async with asyncio.timeout(2 * _TIMEOUT_S), aiohttp.ClientSession() as http:
        root = _pinned(await call(http, "GET", f"{api}/weft/v1/bundle", plain_context()), text, api)
        answer = await call(
            http,
            "POST",
            f"{api}/weft/v1/enroll",
            trusting_context(root),
            {"token": str(text), "csr": request_for(key), "node": node, "addresses": list(addresses)},
        )
    here = now or datetime.now(UTC)
    try:
        signed = Signed.parse(answer)
        xds, trust_domain = str(answer["xds"]), str(answer["trustDomain"])
    except (KeyError, TypeError) as error:
        raise WeftError(f"{api} answers as no control plane does", hint="compare the versions") from error
    credential = Credential.of(key, signed, since=here)
    credential.check(f"node {node}", here)
    membership = Membership(
        node=node,
        api=str(answer.get("api") or api),
        xds=xds,
        trust_domain=trust_domain,
        credential=credential,
    )
    membership.save(state)
    return membership


async def renew(member: Membership, api: str, state: Path) -> Membership:
    """A new certificate with the one that there is, kept in ``state``.

    Raises:
        Disowned: this host is no member any more.
        Denied: neither, since the node was removed.
        WeftError: nobody answers, the clocks differ.
    """
    member.check(datetime.now(UTC))
    key, mine = make_key(), member.credential
    context = trusting_context(mine.bundle, key=mine.key, certificate=mine.certificate)
    async with asyncio.timeout(2 * _TIMEOUT_S), aiohttp.ClientSession() as http:
        try:
            answer = await call(
                http, "POST", f"{api}/weft/v1/certificates", context, {"csr": request_for(key)}
            )
        except WeftError as error:
            raise await reason(http, api, mine.bundle, error) from error
    here = datetime.now(UTC)
    credential = Credential.of(key, Signed.parse(answer), since=here)
    credential.check(f"node {member.node}", here)
    renewed = replace(member, credential=credential, api=api)
    renewed.save(state)
    return renewed


def _pinned(answer: Any, token: JoinToken, api: str) -> str:
    """The root that the token names, out of an answer that nothing vouches for; PEM."""
    try:
        roots = x509.load_pem_x509_certificates(answer["bundle"].encode())
    except (ValueError, KeyError, TypeError, AttributeError, x509.InvalidVersion) as error:
        raise WeftError(f"{api} answers as no control plane does", hint="is the address right?") from error
    for root in roots:
        if spki_sha256(root.public_key()) == token.pin:
            return root.public_bytes(Encoding.PEM).decode()
    raise WeftError(
        f"{api} is not the control plane that join token {token.id} was made by",
        hint="compare the address with where the token was made; if it is right, somebody is in between",
    )
