"""Tokens of users: what is there must be good, and what it claims is known to the filters after this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from weft.emit.request import JWT_FILTER, PAYLOAD
from weft.protos import core_v3, jwt_authn_v3, mutation_rules_v3

if TYPE_CHECKING:
    from weft.ir.authentication import JwtRule, RequestAuthentication
    from weft.ir.listener import HttpHandler

NAME: Final = JWT_FILTER
# What an issuer has whose keys are not known: a point on P-256 whose x is a hash (a test makes it again), so
# that nobody has the private key.
NO_KEYS: Final = (
    '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"weft: the keys of this issuer are not known",'
    '"x":"diunBD3GPO0Ou--PDLVyc3EA0xZQhClpkbTNxFxgYQk","y":"A6bIp9ZhMU4n2Vz_IrYx36jazDtqbSXWbFEv5AsM8Zc"}]}'
)
# The same for one that has keys of which none can be used: Envoy would refuse all that comes with them.
UNUSABLE_KEYS: Final = NO_KEYS.replace("the keys of this issuer are not known", "no key can be used")
_HEADER_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def each(unit: HttpHandler) -> Iterator[jwt_authn_v3.JwtAuthentication]:
    """One filter with all issuers, if there are any."""
    if unit.authentication is not None:
        yield _filter(unit.authentication)


def _filter(unit: RequestAuthentication) -> jwt_authn_v3.JwtAuthentication:
    made = jwt_authn_v3.JwtAuthentication(bypass_cors_preflight=True)
    names = [f"origins-{number}" for number in range(len(unit.rules))]
    for name, rule in zip(names, unit.rules, strict=True):
        made.providers[name].CopyFrom(_provider(rule, unit.reroute))
    row = made.rules.add()
    row.match.prefix = "/"
    row.requires.CopyFrom(_requirement(unit.rules, names))
    return made


def _provider(rule: JwtRule, reroute: bool) -> jwt_authn_v3.JwtProvider:
    provider = jwt_authn_v3.JwtProvider
    return provider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks=core_v3.DataSource(
            inline_string=NO_KEYS if rule.keys is None else rule.keys or UNUSABLE_KEYS
        ),
        forward=rule.forward,
        from_headers=[
            jwt_authn_v3.JwtHeader(name=header.name, value_prefix=header.prefix) for header in rule.headers
        ],
        from_params=rule.params,
        from_cookies=rule.cookies,
        forward_payload_header=rule.payload_header,
        payload_in_metadata=PAYLOAD,
        normalize_payload_in_metadata=provider.NormalizePayload(space_delimited_claims=rule.space_delimited),
        claim_to_headers=[
            jwt_authn_v3.JwtClaimToHeader(claim_name=claim, header_name=header)
            for claim, header in rule.claim_headers
        ],
        clear_route_cache=reroute,
    )


def _requirement(rules: tuple[JwtRule, ...], names: list[str]) -> jwt_authn_v3.JwtRequirement:
    """What Istio asks for: a token in a place where one is looked for must be good.

    Issuers may look in the same places, so that one good token is enough, unless one of them is required.
    """
    requirement = jwt_authn_v3.JwtRequirement
    of = [requirement(provider_name=name) for name in names]
    asked = [one if rule.required else _any([one, _missing()]) for one, rule in zip(of, rules, strict=True)]
    if len(asked) == 1:
        return asked[0]
    every = requirement(requires_all=jwt_authn_v3.JwtRequirementAndList(requirements=asked))
    if any(rule.required for rule in rules):
        return every
    return _any([*of, every])


def _any(requirements: list[jwt_authn_v3.JwtRequirement]) -> jwt_authn_v3.JwtRequirement:
    return jwt_authn_v3.JwtRequirement(
        requires_any=jwt_authn_v3.JwtRequirementOrList(requirements=requirements)
    )


def _missing() -> jwt_authn_v3.JwtRequirement:
    made = jwt_authn_v3.JwtRequirement()
    made.allow_missing.SetInParent()
    return made


def unbelieved(unit: HttpHandler) -> list[mutation_rules_v3.HeaderMutation]:
    """Take headers away that only a good token may put there, before a route is looked for.

    The filter does so as well when it runs; by then a route was chosen, perhaps by what a client made up. A
    header that may bear a token stays: the filter takes that away when it has read it.
    """
    rules = unit.authentication.rules if unit.authentication is not None else ()
    put = {header.lower() for rule in rules for _, header in (("", rule.payload_header), *rule.claim_headers)}
    read = {header.name.lower() for rule in rules for header in rule.headers}
    names = sorted(name for name in put - read - {"host"} if _HEADER_NAME.fullmatch(name))
    return [mutation_rules_v3.HeaderMutation(remove=name) for name in names]
