"""RequestAuthentication."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one, each
from weft.model.headers import plain
from weft.model.istio import IstioResource, IstioStatus, LabelsSelector, PolicyTargetReference, attached
from weft.model.jwks import key_set, private_keys, usable
from weft.model.scalars import Bool, PositiveDuration, Text


class JWTHeader(Shape):
    """A header that may bear the token."""

    name: Annotated[Text, Field(min_length=1)]
    prefix: Text | None = None
    """What stands before the token, as ``Bearer ``."""

    def flaws(self) -> Iterator[Flaw]:
        """Texts that a header may have."""
        yield from _one_line(("name",), self.name)
        yield from _one_line(("prefix",), self.prefix)


class ClaimToHeader(Shape):
    """A claim that is passed on as a header."""

    claim: Annotated[Text, Field(min_length=1)]
    header: Annotated[Text, Field(min_length=1)]


class JWTRule(Shape):
    """An issuer, its keys, and where its tokens are found."""

    audiences: tuple[Annotated[Text, Field(min_length=1)], ...] | None = None
    """Whom the token must be for: one of these; anybody unless given."""
    forward_original_token: Bool | None = None
    """Whether the application gets the token."""
    from_cookies: tuple[Annotated[Text, Field(min_length=1)], ...] | None = None
    """Cookies that may be the token."""
    from_headers: tuple[JWTHeader, ...] | None = None
    from_params: tuple[Annotated[Text, Field(min_length=1)], ...] | None = None
    """Parameters of the query that may be the token."""
    issuer: Annotated[Text, Field(min_length=1)] | None = None
    """The token's ``iss``; anybody's whose keys these are unless given."""
    jwks: Text | None = None
    """The keys themselves, a JSON web key set."""
    jwks_uri_: Annotated[Text, Field(min_length=1, max_length=2048)] | None = Field(
        default=None, alias="jwks_uri"
    )
    jwks_uri: Annotated[Text, Field(min_length=1, max_length=2048)] | None = None
    """Where the control plane fetches the keys; else it asks the issuer where they are."""
    output_claim_to_headers: tuple[ClaimToHeader, ...] | None = None
    output_payload_to_header: Text | None = None
    """A header that gets all claims, base64url."""
    presence: Literal["OPTIONAL", "REQUIRED"] | None = None
    """Whether requests without a token are refused."""
    space_delimited_claims: (
        Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], Field(max_length=64)] | None
    ) = None
    """Claims that are lists of words with blanks between them, besides ``scope`` and ``permission``."""
    timeout: PositiveDuration | None = None
    """How long an answer with keys may take; 5 s unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Keys come from one place."""
        yield from at_most_one(self, "jwks_uri", "jwks_uri_", "jwks")
        if not (self.issuer or self.jwks_uri or self.jwks_uri_):
            yield Flaw((), "nobody is believed", "add issuer or jwksUri")
        for number, item in enumerate(self.output_claim_to_headers or ()):
            yield from each(("outputClaimToHeaders", number, "header"), [plain(item.header)])
        yield from _one_line(("outputPayloadToHeader",), self.output_payload_to_header)
        if self.jwks:
            yield from _keys(self.jwks)
        for wire, uri in (("jwksUri", self.jwks_uri), ("jwks_uri", self.jwks_uri_)):
            if uri and not _is_url(uri):
                yield Flaw((wire,), f"{uri!r} is not a URL that begins with https:// or http://")


def _keys(text: str) -> Iterator[Flaw]:
    wrong = key_set(text)
    if wrong:
        yield from each(("jwks",), [wrong])
        return
    found = json.loads(text)
    keys = found.get("keys", [found])
    for number in private_keys(text):
        message, hint = (
            f"key {number} is private: only its public part is used",
            "publish only the public key",
        )
        if keys[number]["kty"] == "oct":
            message, hint = f"key {number} is a shared secret: every proxy has it", "sign with a private key"
        yield Flaw(("jwks",), message, hint, warns=True)
    if keys and not any(map(usable, keys)):
        message = "none of the keys can be used by a proxy, so that tokens of this issuer are refused"
        yield Flaw(
            ("jwks",), message, "use RSA of 2048 bits or P-256, as the issuer publishes it", warns=True
        )


def _one_line(path: tuple[str, ...], text: str | None) -> Iterator[Flaw]:
    if text is not None and re.search(r"[\0\r\n]", text):
        yield Flaw(path, "a header has one line", "remove the line break")


def _is_url(text: str) -> bool:
    if re.search(r"[\x00-\x1f\x7f]|%(?![0-9a-fA-F]{2})", text):
        return False
    try:
        parts = urlsplit(text)
        if " " in parts.netloc:
            return False
        return parts.scheme in {"http", "https"} and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


class RequestAuthenticationSpec(Shape):
    """Which tokens are believed."""

    jwt_rules: Annotated[tuple[JWTRule, ...], Field(max_length=4096)] | None = None
    selector: LabelsSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the policy is attached to."""
        yield from at_most_one(self, "selector", "target_ref", "target_refs")
        yield from attached(self.target_ref, self.target_refs)


class RequestAuthentication(IstioResource):
    """Which tokens of users are believed."""

    spec: RequestAuthenticationSpec = Field(default_factory=lambda: RequestAuthenticationSpec())
    status: IstioStatus | None = None
