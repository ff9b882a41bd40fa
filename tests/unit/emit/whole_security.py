"""Who may do what, with every field set: a part of the whole proxy."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from weft import ir

SECOND: Final = timedelta(seconds=1)
SPIFFE: Final = "spiffe://cluster.local/ns/default/sa/reviews"


def _text(test: str, value: str = "", *, ignore_case: bool = False) -> ir.TextMatch:
    return ir.TextMatch(test=ir.TextTest(test), value=value, ignore_case=ignore_case)


def authentication() -> ir.RequestAuthentication:
    """One issuer with all that can be said of one, and some without keys that can be used."""
    key = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    whole = ir.JwtRule(
        issuer="https://issuer.example",
        keys=key,
        audiences=("a", "b"),
        headers=(ir.JwtHeader(name="X-Token"), ir.JwtHeader(name="authorization", prefix="Bearer ")),
        params=("token",),
        cookies=("session",),
        forward=True,
        payload_header="x-claims",
        claim_headers=(("sub", "x-user"), ("realm.role", "x-role")),
        space_delimited=("scope",),
        required=True,
    )
    return ir.RequestAuthentication(
        rules=(whole, ir.JwtRule(issuer="", keys=None), ir.JwtRule(issuer="unusable", keys="")), reroute=True
    )


def authorizers() -> tuple[ir.Authorizer, ir.Authorizer]:
    """By HTTP and by gRPC, each with all that it can have."""
    names = (_text("exact", "x-user", ignore_case=True), _text("prefix", "x-"), _text("suffix", "-id"))
    by_http = ir.Authorizer(
        name="http",
        cluster="mesh",
        host="auth.example",
        protocol=ir.AuthorizerProtocol.HTTP,
        timeout=SECOND,
        path_prefix="/check",
        headers=names,
        added_headers=(("x-from", "mesh"),),
        upstream_headers=names,
        denial_headers=names,
        answer_headers=names,
        fail_open=True,
        error_status=503,
        reroute=True,
    )
    by_grpc = ir.Authorizer(
        name="grpc",
        cluster="mesh",
        host="auth",
        protocol=ir.AuthorizerProtocol.GRPC,
        timeout=SECOND,
        body=ir.ShownBody(max_bytes=2 << 20, partial=True, as_bytes=True),
    )
    return by_http, by_grpc


def authorization(*, tcp: bool) -> tuple[ir.Authorization, ...]:
    """Every test that there is, in force and tried out."""
    fact = ir.FactMatch(
        filter="envoy.filters.http.jwt_authn",
        path=("payload", "groups"),
        value=ir.AnyValueMatch(tests=(ir.ListedMatch(item=_text("exact", "a")), _text("prefix", "a"))),
    )
    header = ir.HeaderMatch(name="x-role", match=_text("exact", "admin"))
    of_requests: tuple[ir.Test, ...] = (
        ir.UrlPathMatch(match=_text("regex", "/a.*")),
        ir.PathTemplateMatch(template="/a/*/**"),
        header,
    )
    permissions: tuple[ir.Test, ...] = (
        ir.AnyOf(tests=(ir.PortMatch(number=80), ir.ServerNameMatch(match=_text("suffix", ".example")))),
        ir.Not(test=ir.AddressMatch(of=ir.AddressOf.DESTINATION, block="10.0.0.0/8")),
        fact,
        *(() if tcp else of_requests),
    )
    principals: tuple[ir.Test, ...] = (
        ir.PrincipalMatch(match=_text("exact", SPIFFE)),
        ir.AddressMatch(of=ir.AddressOf.PEER, block="10.0.0.1"),
        ir.AnyOf(tests=(ir.AddressMatch(of=ir.AddressOf.CLIENT, block="2001:db8::/32"), ir.Anything())),
        ir.Not(test=fact),
        *(() if tcp else (header,)),
    )
    rule = ir.AccessRule(
        name="ns[a]-policy[b]-rule[0]",
        permissions=(ir.AllOf(tests=permissions),),
        principals=(ir.AllOf(tests=principals),),
    )
    rules = [ir.AccessRules(action=action, rules=(rule,)) for action in ir.RuleAction]
    return tuple(
        ir.Authorization(enforced=one, shadow=one, shadow_prefix="istio_dry_run_deny_") for one in rules
    )


def consultations() -> tuple[ir.Consultation, ...]:
    fit = ir.AccessRule(
        name="ns[a]-policy[b]-rule[0]", permissions=(ir.Anything(),), principals=(ir.Anything(),)
    )
    rules = ir.AccessRules(action=ir.RuleAction.DENY, rules=(fit,))
    _, by_grpc = authorizers()
    return ir.Consultation(authorizer=by_grpc, rules=rules), ir.Consultation(authorizer=None, rules=rules)
