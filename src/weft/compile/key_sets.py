"""The keys of issuers that are to be fetched: where they are, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from weft.model.request_authentication import JWTRule, RequestAuthentication

DISCOVERY: Final = "/.well-known/openid-configuration"
TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, order=True)
class KeySource:
    """``uri`` is that of the keys, or, with ``discover``, of the OpenID configuration that names it."""

    uri: str
    discover: bool = False


@dataclass(frozen=True, slots=True)
class KeySet:
    """``text`` is a JSON web key set, empty when none is known; ``failure`` why it could not be fetched."""

    text: str = ""
    failure: str = ""


KeySets = Mapping[KeySource, KeySet]


def source_of(rule: JWTRule) -> KeySource | None:
    """Where an issuer's keys are to be fetched; None: they are in the rule."""
    if rule.jwks:
        return None
    if uri := rule.jwks_uri or rule.jwks_uri_:
        return KeySource(uri)
    return KeySource(f"{(rule.issuer or '').removesuffix('/')}{DISCOVERY}", discover=True)


def sources(policies: Iterable[RequestAuthentication]) -> dict[KeySource, timedelta]:
    """All that is to be fetched, and how long an answer may take: as long as the most patient rule says."""
    found: dict[KeySource, timedelta] = {}
    for policy in policies:
        for rule in policy.spec.jwt_rules or ():
            source = source_of(rule)
            if source is not None:
                found[source] = max(rule.timeout or TIMEOUT, found.get(source, rule.timeout or TIMEOUT))
    return found
