"""RequestAuthentication: whose tokens a proxy believes on its way in (istio pilot/pkg/security/authn)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.attachment import Bounds, attached
from weft.compile.key_sets import KeySets, source_of
from weft.compile.memo import Memo
from weft.compile.service import Labels
from weft.errors import Problem, Severity
from weft.model.jwks import is_plain, public_part, slim, usable
from weft.model.request_authentication import JWTRule, RequestAuthentication
from weft.model.resource import Key

KEYS: Final = "WEFT0112"
# Claims that hold a list as text with blanks in it, whatever a rule says.
_LISTS: Final = ("permission", "scope")


def authentication_of(
    resources: Mapping[Key, RequestAuthentication],
    namespace: str,
    labels: Labels,
    root: str,
    key_sets: KeySets | None,
    reroute: bool,
) -> ir.RequestAuthentication | None:
    """What a proxy asks of tokens; None when no policy is for it, or they name no issuer."""
    rules = rules_for(resources, namespace, labels, root)
    if not rules:
        return None
    made = tuple(_rule(rule, key_sets) for _, _, rule in rules)
    return ir.RequestAuthentication(rules=made, reroute=reroute)


def rules_for(
    resources: Mapping[Key, RequestAuthentication], namespace: str, labels: Labels, root: str
) -> list[tuple[Key, int, JWTRule]]:
    """The rules that hold for a proxy, with their policies and their places in them.

    The policies of its namespace, then those of the root namespace, the oldest first; issuers by name.
    """
    found = attached(resources.values(), _bounds, namespace, labels, root)
    found.sort(key=lambda one: (one.metadata.namespace != namespace, age(one.metadata)))
    rules = [
        (policy.key, index, rule)
        for policy in found
        for index, rule in enumerate(policy.spec.jwt_rules or ())
    ]
    return sorted(rules, key=lambda row: row[2].issuer or "")


def _bounds(resource: RequestAuthentication) -> Bounds:
    spec = resource.spec
    targets = spec.target_refs or ((spec.target_ref,) if spec.target_ref is not None else None)
    return spec.selector.match_labels if spec.selector else None, targets


def _rule(rule: JWTRule, key_sets: KeySets | None) -> ir.JwtRule:
    return ir.JwtRule(
        issuer=rule.issuer or "",
        keys=_keys(rule, key_sets or {}),
        audiences=tuple(rule.audiences or ()),
        headers=tuple(
            ir.JwtHeader(name=header.name, prefix=header.prefix or "") for header in rule.from_headers or ()
        ),
        params=tuple(rule.from_params or ()),
        cookies=tuple(rule.from_cookies or ()),
        forward=bool(rule.forward_original_token),
        payload_header=rule.output_payload_to_header or "",
        claim_headers=tuple((item.claim, item.header) for item in rule.output_claim_to_headers or ()),
        space_delimited=tuple(sorted({*_LISTS, *(rule.space_delimited_claims or ())})),
        required=rule.presence == "REQUIRED",
    )


def _keys(rule: JWTRule, key_sets: KeySets) -> str | None:
    source = source_of(rule)
    if source is None:
        return _for_proxies(rule.jwks or "")
    known = key_sets.get(source)
    return known.text if known is not None and known.text else None


def _for_proxies(text: str) -> str | None:
    """A key set that Envoy takes; no proxy gets the private part of a key that has a public one.

    None for a set without keys; empty where none of the keys can be used.
    """
    found = json.loads(text)
    keys = found.get("keys", [found])
    public = [public_part(key) for key in keys]
    if "keys" in found and public == keys and is_plain(text) and any(map(usable, keys)):
        return text
    good = [slim(key) for key in public if usable(key)]
    if not good:
        return "" if keys else None
    return json.dumps({"keys": good}, separators=(",", ":"))


def authenticated(
    listeners: tuple[ir.Listener, ...], authentication: ir.RequestAuthentication, memo: Memo
) -> tuple[ir.Listener, ...]:
    """Listeners of which those on the way in look at tokens."""
    same = memo.same(authentication)
    return tuple(
        memo(_authenticated, listener, same) if listener.direction is not ir.Direction.OUTBOUND else listener
        for listener in listeners
    )


def _authenticated(listener: ir.Listener, authentication: ir.RequestAuthentication) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, authentication))


def _chain(chain: ir.FilterChain, authentication: ir.RequestAuthentication) -> ir.FilterChain:
    if not isinstance(chain.handler, ir.HttpHandler):
        return chain
    return replace(chain, handler=replace(chain.handler, authentication=authentication))


def key_problems(
    resources: Mapping[Key, RequestAuthentication], key_sets: KeySets | None
) -> tuple[Problem, ...]:
    """Issuers whose keys could not be fetched, at all or lately."""
    return tuple(_failures(resources, key_sets)) if key_sets else ()


def _failures(resources: Mapping[Key, RequestAuthentication], key_sets: KeySets) -> Iterator[Problem]:
    for key, policy in sorted(resources.items()):
        for index, rule in enumerate(policy.spec.jwt_rules or ()):
            source = source_of(rule)
            known = key_sets.get(source) if source is not None else None
            if source is None or known is None or not known.failure:
                continue
            owner = rule.issuer or "the issuer"
            message = f"the keys of {owner} are not known, so that its tokens are refused"
            if known.text:
                message = f"the keys of {owner} may be out of date, they are the last that were fetched"
            yield Problem(
                KEYS,
                f"{message}: {source.uri}: {known.failure}",
                path=f"spec.jwtRules[{index}].{'issuer' if source.discover else 'jwksUri'}",
                severity=Severity.WARNING,
                resource=str(key),
            )
