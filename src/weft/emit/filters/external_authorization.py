"""Decisions of somebody outside: the request waits until that has answered (Envoy's ext_authz).

What a route asks for is a filter of its own, which every other route leaves out. Rules of a policy decide
first whether it is asked: a filter before it evaluates them, and leaves behind which one fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from weft.emit.filters import rbac
from weft.emit.scalars import boolean, duration, regex, text
from weft.ir.external_authorization import Authorizer, AuthorizerProtocol
from weft.ir.match import TextMatch
from weft.ir.route import Route
from weft.names import CONSULTATION, CONSULTATION_RULE
from weft.protos import (
    core_v3,
    ext_authz_network_v3,
    ext_authz_v3,
    listener_v3,
    matcher_v3,
    rbac_filter_v3,
    rbac_network_v3,
    type_v3,
)
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.ir.listener import HttpHandler, TcpHandler

NAME: Final = "envoy.filters.http.ext_authz"
NETWORK: Final = "envoy.filters.network.ext_authz"
STAT_PREFIX: Final = "tcp."
# What describes or frames a message, or says where it comes from and goes to, is of that message alone.
_FRAMING: Final = regex(
    "host|connection|content-.*|transfer-encoding|trailer|te|upgrade|keep-alive|proxy-connection"
    "|date|server|x-forwarded-(for|host|proto|port|client-cert)"
)
_ANY: Final = ".+"


def of_routes(unit: HttpHandler) -> Iterator[tuple[str, Message]]:
    """One filter for each authorizer that routes ask for."""
    for authorizer in unit.authorizers:
        yield _name(authorizer), config(authorizer)


def per_route(route: Route) -> Iterator[tuple[str, Message]]:
    """The filters that run on one route."""
    for authorizer in route.authorizers:
        made = ext_authz_v3.ExtAuthzPerRoute()
        made.check_settings.SetInParent()
        yield _name(authorizer), made


def of_policies(unit: HttpHandler) -> Iterator[tuple[str, Message]]:
    """Whoever decides about what some rules fit, behind the filter that finds out what they fit."""
    for one in unit.consultations:
        if one.authorizer is None:
            yield rbac.NAME, rbac_filter_v3.RBAC(rules=rbac.rules(one.rules))
            continue
        yield (
            rbac.NAME,
            rbac_filter_v3.RBAC(shadow_rules=rbac.rules(one.rules), shadow_rules_stat_prefix=CONSULTATION),
        )
        made = config(one.authorizer)
        made.filter_enabled_metadata.CopyFrom(_fitting(rbac.NAME, one.authorizer))
        yield NAME, made


def of_connections(unit: TcpHandler) -> Iterator[listener_v3.Filter]:
    """The same before bytes are handed on."""
    for one in unit.consultations:
        asked = one.authorizer is not None
        stage = rbac_network_v3.RBAC(
            stat_prefix=STAT_PREFIX,
            rules=None if asked else rbac.rules(one.rules),
            shadow_rules=rbac.rules(one.rules) if asked else None,
            shadow_rules_stat_prefix=CONSULTATION if asked else "",
        )
        yield listener_v3.Filter(name=rbac.NETWORK, typed_config=pack(stage))
        if one.authorizer is not None:
            yield listener_v3.Filter(name=NETWORK, typed_config=pack(_network(one.authorizer)))


def _network(authorizer: Authorizer) -> ext_authz_network_v3.ExtAuthz:
    return ext_authz_network_v3.ExtAuthz(
        stat_prefix=f"{STAT_PREFIX}{authorizer.name}",
        failure_mode_allow=authorizer.fail_open,
        transport_api_version=core_v3.ApiVersion.V3,
        grpc_service=grpc_service(authorizer),
        filter_enabled_metadata=_fitting(rbac.NETWORK, authorizer),
    )


def _fitting(filter_name: str, authorizer: Authorizer) -> matcher_v3.MetadataMatcher:
    """A rule fitted, of those that this authorizer decides about."""
    made = matcher_v3.MetadataMatcher(filter=filter_name)
    made.path.add(key=f"{CONSULTATION}shadow_effective_policy_id")
    made.value.string_match.prefix = f"{CONSULTATION_RULE}-{authorizer.name}"
    return made


def _name(authorizer: Authorizer) -> str:
    return f"{NAME}/{authorizer.name}"


def config(authorizer: Authorizer) -> ext_authz_v3.ExtAuthz:
    """How one authorizer is asked."""
    made = ext_authz_v3.ExtAuthz(
        stat_prefix=authorizer.name,
        failure_mode_allow=authorizer.fail_open,
        clear_route_cache=authorizer.reroute,
        transport_api_version=core_v3.ApiVersion.V3,
    )
    if authorizer.error_status is not None:
        made.status_on_error.code = type_v3.StatusCode.ValueType(authorizer.error_status)
    if authorizer.headers:
        made.allowed_headers.CopyFrom(_names(authorizer.headers))
    if authorizer.body is not None:
        made.with_request_body.CopyFrom(
            ext_authz_v3.BufferSettings(
                max_request_bytes=authorizer.body.max_bytes,
                allow_partial_message=authorizer.body.partial,
                pack_as_bytes=authorizer.body.as_bytes,
            )
        )
    if authorizer.protocol is AuthorizerProtocol.GRPC:
        made.grpc_service.CopyFrom(grpc_service(authorizer))
        return made
    made.http_service.CopyFrom(_http_service(authorizer))
    if authorizer.any_upstream_headers:
        rules = made.decoder_header_mutation_rules
        rules.disallow_system.CopyFrom(boolean(True))
        rules.disallow_expression.CopyFrom(_FRAMING)
    return made


def grpc_service(authorizer: Authorizer) -> core_v3.GrpcService:
    """Where an authorizer is that speaks Envoy's protocol."""
    made = core_v3.GrpcService(timeout=duration(authorizer.timeout))
    made.envoy_grpc.cluster_name = authorizer.cluster
    made.envoy_grpc.authority = authorizer.host
    return made


def _http_service(authorizer: Authorizer) -> ext_authz_v3.HttpService:
    made = ext_authz_v3.HttpService(path_prefix=authorizer.path_prefix)
    made.server_uri.uri = f"http://{authorizer.host}"
    made.server_uri.cluster = authorizer.cluster
    made.server_uri.timeout.CopyFrom(duration(authorizer.timeout))
    for name, value in authorizer.added_headers:
        made.authorization_request.headers_to_add.add(key=name, value=value)
    answer = made.authorization_response
    if authorizer.any_upstream_headers:
        answer.allowed_upstream_headers.patterns.add(safe_regex=regex(_ANY))
    elif authorizer.upstream_headers:
        answer.allowed_upstream_headers.CopyFrom(_names(authorizer.upstream_headers))
    if authorizer.denial_headers:
        answer.allowed_client_headers.CopyFrom(_names(authorizer.denial_headers))
    if authorizer.answer_headers:
        answer.allowed_client_headers_on_success.CopyFrom(_names(authorizer.answer_headers))
    return made


def _names(tests: Iterable[TextMatch]) -> matcher_v3.ListStringMatcher:
    return matcher_v3.ListStringMatcher(patterns=[text(test) for test in tests])
