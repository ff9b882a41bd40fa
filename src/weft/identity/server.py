"""Enrolment and signing: a request in, a reply out. Who carries them (HTTP, a test) is no matter here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from cryptography import x509

from weft.errors import WeftError
from weft.identity.ca import NODE_LIFETIME, WORKLOAD_LIFETIME, Authority
from weft.identity.join import JoinToken, TokenError
from weft.identity.ledger import Issued
from weft.identity.nodes import Node, Nodes, check_node_name
from weft.identity.pem import read_request
from weft.identity.pin import spki_sha256
from weft.identity.revocation import issuer_key
from weft.identity.tokens import Token, Tokens
from weft.identity.trust import Trust
from weft.spiffe import AdminId, NodeId, SpiffeId, UserId

_ADDRESSES_MAX: Final = 64


class Refused(WeftError):  # noqa: N818 - what happened, as a sentence: it is no fault of weft's
    """The asker may not have what it asks for. ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollRequest:
    """A host asks to become a node."""

    token: str = field(repr=False)
    csr: str
    node: str
    addresses: tuple[str, ...] = ()

    @classmethod
    def parse(cls, body: object) -> Self:
        """Read the JSON form.

        Raises:
            Refused: when a field is missing or of another type.
        """
        fields = _fields(body)
        addresses = fields.get("addresses", [])
        if not isinstance(addresses, list) or len(addresses) > _ADDRESSES_MAX:
            raise Refused(f"addresses: expected a list of at most {_ADDRESSES_MAX}", status=400)
        return cls(
            token=_text(fields, "token"),
            csr=_text(fields, "csr"),
            node=_text(fields, "node"),
            addresses=tuple(str(address) for address in addresses),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """A node asks for a workload's certificate, or (all names empty) for its own next one.

    ``workload``: the name of the instance that will bear it, if it is for one.
    """

    csr: str
    namespace: str = ""
    service_account: str = ""
    workload: str = ""

    @classmethod
    def parse(cls, body: object) -> Self:
        """Read the JSON form.

        Raises:
            Refused: when a field is missing or of another type.
        """
        fields = _fields(body)
        csr = _text(fields, "csr")
        if "namespace" not in fields and "serviceAccount" not in fields:
            return cls(csr=csr)
        return cls(
            csr=csr,
            namespace=_text(fields, "namespace"),
            service_account=_text(fields, "serviceAccount"),
            workload=_text(fields, "workload") if "workload" in fields else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A certificate with its chain (PEM), and what to verify others by."""

    certificate: str
    trust: Trust
    not_after: datetime

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        said = self.trust.to_dict()
        return {
            "certificate": self.certificate,
            "bundle": said.pop("pem"),
            **said,
            "notAfter": self.not_after.isoformat().replace("+00:00", "Z"),
        }


class Issuer:
    """Answers nodes.

    Args:
        authority: gives the authority of this moment; it may be replaced while the issuer lives.
        clock: the time (UTC).
        audit: is told of every certificate, before it is handed out; then ``record``, which keeps it.
        trust: what peers are verified by now; the authority's roots if nothing is said.
        lifetime: of workload certificates; ``node_lifetime`` of nodes' own.
    """

    def __init__(
        self,
        authority: Callable[[], Authority],
        tokens: Tokens,
        nodes: Nodes,
        clock: Callable[[], datetime],
        *,
        audit: Callable[[Issued], None],
        record: Callable[[Issued], Awaitable[None]] | None = None,
        trust: Callable[[], Trust] | None = None,
        lifetime: timedelta = WORKLOAD_LIFETIME,
        node_lifetime: timedelta = NODE_LIFETIME,
    ) -> None:
        self.tokens = tokens
        self.nodes = nodes
        self._authority = authority
        self._clock = clock
        self._audit = audit
        self._record = record
        self._trust = trust
        self._lifetime = lifetime
        self._node_lifetime = node_lifetime

    @property
    def authority(self) -> Authority:
        """Who signs now."""
        return self._authority()

    @property
    def trust(self) -> Trust:
        """What peers are verified by now."""
        return self._trust() if self._trust is not None else Trust(pem=self.authority.bundle)

    def now(self) -> datetime:
        """The time by which everything here is judged (UTC)."""
        return self._clock()

    async def enroll(self, request: EnrollRequest) -> Signed:
        """Make a host a node. A refused request counts no use of its token.

        A name that is taken is given again only to the key that has it, or with a token made for it.

        Raises:
            Refused: 400 for a malformed request, 401 for the token, 409 for a name that is taken.
        """
        name, text, key = _checked(request)
        try:
            token = await self.tokens.check(text, node=name)
            known = await self._free(name, key, token)
            # The use is counted before the record is written: a crash in between costs one use,
            # the other order would give a second node away.
            token = await self.tokens.use(text, node=name)
        except TokenError as error:
            raise Refused(error.message, status=401, hint=error.hint) from error
        node = Node(
            name=name,
            scope=token.scope,
            keys=(key,),
            token=token.id,
            addresses=request.addresses,
            joined=self._clock(),
        )
        while not await self.nodes.replace(known, node):
            known = await self._free(name, key, token)
        identity = NodeId(self.authority.trust_domain, name)
        return await self._sign(
            request.csr, identity, self._node_lifetime, node=name, key=key, token=token.id
        )

    async def sign(
        self,
        caller: NodeId,
        caller_key: str,
        request: SignRequest,
        describe: Callable[[str, SignRequest], str] = lambda node, request: "",
    ) -> Signed:
        """A certificate for one of the identities that the calling node may host, or for the node itself.

        ``caller_key`` is the hash of the key of the caller's certificate. ``describe``: the card of the
        workload that a node asks for, as far as the node has it.

        Raises:
            Refused: 400 for a malformed request, 403 for a node that was removed, for an identity outside
                its scope, and for the control plane's own.
        """
        node = await self.known(caller, caller_key)
        key = _request_key(request.csr)
        if not request.namespace:
            fresh = replace(node, keys=(key, caller_key))
            if not await self.nodes.replace(node, fresh):
                raise Refused(f"node {node.name!r} changed meanwhile", status=409, hint="ask again")
            return await self._sign(request.csr, caller, self._node_lifetime, node=node.name, key=key)
        identity = self.entitled(node, request.namespace, request.service_account)
        card = describe(node.name, request) if request.workload else ""
        return await self._sign(request.csr, identity, self._lifetime, node=node.name, key=key, card=card)

    async def _free(self, name: str, key: str, token: Token) -> Node | None:
        """The node that bears the name now, if this token or key may take it over."""
        known = await self.nodes.get(name)
        if known is not None and key not in known.keys and token.node != name:
            raise Refused(
                f"another host has joined as {name!r}",
                status=409,
                hint=f"join with another --name, or make a token for it: weft token create --node {name}",
            )
        return known

    async def known(self, caller: NodeId, key: str) -> Node:
        """The record of the node that calls, with a certificate for the key of this hash.

        Raises:
            Refused: 403 when it is of another mesh, never joined, was removed, or another host has its name.
        """
        node = None
        if caller.trust_domain == self.authority.trust_domain:
            node = await self.nodes.get(caller.name)
        if node is None or key not in node.keys:
            raise Refused(
                f"node {caller.name!r} is not part of this mesh",
                status=403,
                hint="join again: weft node --token …, with a token from 'weft token create'",
            )
        return node

    def entitled(self, node: Node, namespace: str, account: str) -> SpiffeId:
        """The identity, if ``node`` may host it.

        Raises:
            Refused: 400 when it is no identity, 403 when it is outside the node's scope.
        """
        try:
            identity = SpiffeId(self.authority.trust_domain, namespace, account)
        except ValueError as error:
            raise Refused(str(error), status=400) from error
        # Whoever bears it could configure every proxy; no scope, however wide, includes it.
        if identity == self.authority.identity:
            raise Refused("no node may host the control plane's identity", status=403)
        if not node.scope.allows(namespace, account):
            raise Refused(
                f"node {node.name!r} may not host {namespace}/{account}, only {node.scope}",
                status=403,
                hint=f"let it join again: weft token create --node {node.name} --allow {namespace}/{account}",
            )
        return identity

    async def _sign(
        self,
        csr: str,
        identity: SpiffeId | NodeId,
        lifetime: timedelta,
        *,
        node: str,
        key: str,
        token: str = "",
        card: str = "",
    ) -> Signed:
        now, authority = self._clock(), self.authority
        chain = authority.sign(csr, identity, now=now, lifetime=lifetime, card=card)
        leaf = x509.load_pem_x509_certificate(chain.encode())
        until = leaf.not_valid_after_utc
        issued = Issued(
            time=now,
            identity=str(identity),
            serial=f"{leaf.serial_number:x}",
            not_after=until,
            key=key,
            node=node,
            token=token,
            issuer=issuer_key(authority),
        )
        self._audit(issued)
        if self._record is not None:
            await self._record(issued)
        return Signed(certificate=chain, trust=self.trust, not_after=until)


_UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def caller_of(leaf_der: bytes) -> AdminId | NodeId | SpiffeId | UserId | None:
    """Whose certificate this is; the TLS layer has verified it. None when it names nobody of a mesh.

    X509-SVID, sections 2 and 5.2: exactly one URI, and never an authority.
    """
    try:
        certificate = x509.load_der_x509_certificate(leaf_der)
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except _UNREADABLE:
        return None
    if len(uris) != 1:
        return None
    for form in (AdminId, NodeId, SpiffeId, UserId):
        try:
            return form.parse(uris[0])
        except ValueError:
            continue
    return None


def key_of(leaf_der: bytes) -> str:
    """The hash of a certificate's public key."""
    return spki_sha256(x509.load_der_x509_certificate(leaf_der).public_key())


def _checked(request: EnrollRequest) -> tuple[str, JoinToken, str]:
    """Name, token and key of a well-formed request."""
    try:
        return check_node_name(request.node), JoinToken.parse(request.token), _request_key(request.csr)
    except Refused:
        raise
    except WeftError as error:
        raise Refused(error.message, status=400, hint=error.hint) from error


def _request_key(csr: str) -> str:
    try:
        return spki_sha256(read_request(csr))
    except WeftError as error:
        raise Refused(error.message, status=400, hint=error.hint) from error


def _fields(body: object) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise Refused("expected a JSON object", status=400)
    return body


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(f"{name}: expected a text", status=400)
    return value
