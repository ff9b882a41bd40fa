"""The filter that verifies tokens, as Envoy runs it: who is asked for a token, where it stands, is it good.

Rules: envoy source/extensions/filters/http/jwt_authn (extractor.cc, authenticator.cc, verifier.cc).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from weft.analysis import paths, tokens
from weft.analysis.explain.answer import Action
from weft.analysis.explain.origins import Cause
from weft.analysis.explain.passage import Passage, Reply
from weft.analysis.tokens import MISSING, UNKNOWN_ISSUER, Token, TokenError
from weft.emit.filters.jwt import NO_KEYS
from weft.emit.request import JWT_FILTER

if TYPE_CHECKING:
    from weft.protos import jwt_authn_v3

_FORBIDDEN: Final = tokens.AUDIENCE
_REALM: Final = 256


@dataclass(frozen=True, slots=True)
class _Found:
    """A token, or what shall be one, and the header or parameter where it stands."""

    text: str
    header: str = ""
    param: str = ""


@dataclass(slots=True)
class _State:
    """What was learned of a request's tokens so far."""

    passage: Passage
    issuers: frozenset[str]
    payload: dict[str, Any] = field(default_factory=dict)
    clears: bool = False
    good: bool = False


def authenticate(passage: Passage, base: Any, overrides: list[Any]) -> Reply | None:
    """Refuse the request, or let it on with what its token claims."""
    headers, answer = passage.scene.headers, passage.answer
    if base.bypass_cors_preflight and _is_preflight(passage):
        answer.say("authn", "a preflight needs no token")
        return None
    for provider in base.providers.values():
        for name in (
            provider.forward_payload_header,
            *(row.header_name for row in provider.claim_to_headers),
        ):
            headers.pop(name.lower(), None)
    requirement = _requirement(base, passage, overrides)
    if requirement is None:
        return None
    uri = _uri(passage)
    state = _State(passage, frozenset(provider.issuer for provider in base.providers.values()))
    failure = _verify(requirement, base.providers, state)
    if failure:
        answer.jwt = "none" if failure == MISSING else "invalid"
        challenge = f'Bearer realm="{uri}"' + ("" if failure == MISSING else ', error="invalid_token"')
        return Reply(
            status=403 if failure == _FORBIDDEN else 401,
            detail=failure,
            step="authn",
            action=Action.DENY,
            headers=(("www-authenticate", challenge),),
        )
    if not state.good:
        answer.say("authn", "the request has no token: it is nobody's")
        return None
    answer.jwt = "valid"
    passage.scene.metadata[JWT_FILTER] = state.payload
    if state.clears and passage.anew is not None:
        answer.say("authn", "the claims are known: routes are looked at once more")
        passage.anew()
    return None


def _is_preflight(passage: Passage) -> bool:
    first = passage.scene.first
    asked = first("origin") and first("access-control-request-method")
    return first(":method") == "OPTIONS" and bool(asked)


def _requirement(base: Any, passage: Passage, overrides: list[Any]) -> Any:
    from weft.analysis import match

    if overrides:
        override = overrides[-1]
        named = override.WhichOneof("requirement_specifier") == "requirement_name"
        return base.requirement_map[override.requirement_name] if named else None
    for rule in base.rules:
        if not match.misfit(rule.match, passage.scene):
            return rule.requires if rule.HasField("requires") else None
    return None


def _uri(passage: Passage) -> str:
    first = passage.scene.first
    scheme = first(":scheme") or first("x-forwarded-proto")
    return f"{scheme}://{first(':authority')}{passage.scene.path[:_REALM]}"


def _verify(requirement: Any, providers: Mapping[str, Any], state: _State) -> str:
    """Why a requirement is not met; empty when it is."""
    match requirement.WhichOneof("requires_type"):
        case "provider_name":
            return _provided(providers[requirement.provider_name], state)
        case "provider_and_audiences":
            asked = requirement.provider_and_audiences
            return _provided(providers[asked.provider_name], state, tuple(asked.audiences))
        case "requires_any":
            return _any(requirement.requires_any.requirements, providers, state)
        case "requires_all":
            for one in requirement.requires_all.requirements:
                if failure := _verify(one, providers, state):
                    return failure
    return ""


def _any(requirements: Any, providers: Mapping[str, Any], state: _State) -> str:
    """One of several is enough. That a token is missing is no failure where that is allowed."""
    failures: list[str] = []
    missing = False
    for one in requirements:
        kind = one.WhichOneof("requires_type")
        if kind == "allow_missing_or_failed":
            return ""
        if kind == "allow_missing":
            missing = True
            continue
        failure = _verify(one, providers, state)
        if not failure:
            return ""
        failures.append(failure)
    if missing and all(failure == MISSING for failure in failures):
        return ""
    return failures[-1] if failures else ""


def _provided(provider: jwt_authn_v3.JwtProvider, state: _State, audiences: tuple[str, ...] = ()) -> str:
    """Why the tokens where an issuer's are looked for are not good; all of them must be."""
    found = list(_tokens(provider, state))
    if not found:
        return MISSING
    for one in reversed(found):
        try:
            token = one if isinstance(one, Token) else tokens.parse(one.text)
            _believe(token, provider, state.passage, audiences)
        except TokenError as error:
            state.passage.answer.say("authn", f"a token is no good: {error}", _cause(provider, state.passage))
            return str(error)
        _tell(token, one, provider, state)
    return ""


def _believe(token: Token, provider: Any, passage: Passage, audiences: tuple[str, ...]) -> None:
    tokens.check(token.claims)
    if provider.issuer and token.issuer != provider.issuer:
        raise TokenError(UNKNOWN_ISSUER)
    tokens.check_time(token, time.time())
    tokens.check_audience(token, audiences or provider.audiences)
    keys = provider.local_jwks.inline_string
    whose = provider.issuer or "this issuer"
    try:
        known = json.loads(keys).get("keys", []) if keys else []
    except (ValueError, AttributeError):
        known = []
    if token.text and passage.upstreams.offline and (keys == NO_KEYS or not known):
        said = f"the keys of {whose} are not here: the signature is taken for good"
        passage.answer.say("authn", said, _cause(provider, passage))
    else:
        tokens.check_signature(token, known)
        passage.answer.say("authn", f"a token of {whose} is good", _cause(provider, passage))


def _cause(provider: Any, passage: Passage) -> Cause | None:
    return passage.origins.believing(provider.issuer)


def _tell(token: Token, where: Token | _Found, provider: Any, state: _State) -> None:
    """What a good token changes: headers, what filters know, the token itself."""
    headers = state.passage.scene.headers
    state.good = True
    state.clears = state.clears or provider.clear_route_cache
    if name := provider.forward_payload_header:
        headers.setdefault(name.lower(), []).append(token.payload)
    for row in provider.claim_to_headers:
        if value := tokens.claim(token.claims, row.claim_name):
            headers.setdefault(row.header_name.lower(), []).append(value)
    if not provider.forward and isinstance(where, _Found):
        headers.pop(where.header, None)
        if where.param:
            _without(state.passage, where.param)
    if provider.payload_in_metadata:
        delimited = provider.normalize_payload_in_metadata.space_delimited_claims
        state.payload[provider.payload_in_metadata] = tokens.lists(token.claims, delimited)
    if provider.header_in_metadata:
        state.payload[provider.header_in_metadata] = dict(token.header)


def _without(passage: Passage, name: str) -> None:
    """The path without a parameter; of the others Envoy leaves sorted and decoded what was there."""
    bare, query = paths.split_query(passage.scene.path)
    given = paths.query_parameters(bare + query)
    left = sorted(
        (_plain(key), [_plain(value) for value in values]) for key, values in given.items() if key != name
    )
    rest = "&".join(f"{key}={value}" for key, values in left for value in values)
    passage.scene.headers[":path"] = [f"{bare}?{rest}" if rest else bare]


def _plain(text: str) -> str:
    return unquote(text, encoding="latin-1")


def _tokens(provider: jwt_authn_v3.JwtProvider, state: _State) -> Iterator[Token | _Found]:
    """The tokens where a provider's are looked for; those that are only described are wherever theirs are."""
    scene, described = state.passage.scene, state.passage.question.jwt
    places = [(row.name.lower(), row.value_prefix) for row in provider.from_headers]
    params, cookies = sorted(provider.from_params), sorted(provider.from_cookies)
    if not (places or params or cookies):
        places, params = [("authorization", "Bearer ")], ["access_token"]
    for name, prefix in sorted(places, key="".join):
        for value in scene.headers.get(name, ()):
            if not prefix:
                yield _Found(value, header=name)
            elif prefix in value:
                yield _Found(_from(value, value.index(prefix) + len(prefix)), header=name)
    for name in params:
        values = scene.query.get(name)
        if values:
            yield _Found(unquote(values[0]), param=name)
    said = dict(_cookies(scene.headers.get("cookie", ())))
    yield from (_Found(said[name]) for name in cookies if name in said)
    if described is not None and _is_here(described, provider.issuer, places, state.issuers):
        yield _described(described)


def _described(jwt: Mapping[str, Any]) -> Token:
    """A token that a question only describes."""
    claims = {
        **(jwt.get("claims") or {}),
        **{name: jwt[name] for name in ("iss", "sub", "aud") if name in jwt},
    }
    return Token(claims, {"alg": "RS256", "typ": "JWT"})


def _is_here(
    jwt: Mapping[str, Any], issuer: str, places: list[tuple[str, str]], issuers: frozenset[str]
) -> bool:
    """It stands where its issuer's tokens do; one of a stranger in the authorization header."""
    own = str(jwt.get("iss", (jwt.get("claims") or {}).get("iss")))
    strange = own not in issuers and "" not in issuers
    return issuer in {"", own} or (strange and any(name == "authorization" for name, _ in places))


_TOKEN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def _from(value: str, after: int) -> str:
    """What follows a prefix, from the first character that a token may have."""
    start = next((place for place in range(after, len(value)) if value[place] in _TOKEN), None)
    return value if start is None else value[start:]


def _cookies(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for line in lines:
        for part in line.split(";"):
            name, found, value = part.strip().partition("=")
            if found and name not in seen:
                seen.add(name)
                yield name, value.strip('"')
