"""Authorization tests as Envoy has them: permissions look at what is called, principals at who calls.

Each has the fields for its own half; what is in neither half is a mistake of the compiler's.
"""

from __future__ import annotations

from weft.emit.request import header
from weft.emit.scalars import cidr, text
from weft.ir.authorization import (
    AddressMatch,
    AddressOf,
    AllOf,
    AnyOf,
    Anything,
    AnyValueMatch,
    FactMatch,
    ListedMatch,
    Not,
    PathTemplateMatch,
    PortMatch,
    PrincipalMatch,
    ServerNameMatch,
    Test,
    UrlPathMatch,
    ValueMatch,
)
from weft.ir.match import HeaderMatch, TextMatch
from weft.protos import core_v3, matcher_v3, rbac_v3, uri_template_match_v3
from weft.protos.wire import pack


def permission(test: Test) -> rbac_v3.Permission:
    """A test of what is asked for."""
    match test:
        case AllOf(tests=tests):
            return rbac_v3.Permission(and_rules=rbac_v3.Permission.Set(rules=map(permission, tests)))
        case AnyOf(tests=tests):
            return rbac_v3.Permission(or_rules=rbac_v3.Permission.Set(rules=map(permission, tests)))
        case Not(test=inner):
            return rbac_v3.Permission(not_rule=permission(inner))
        case Anything():
            return rbac_v3.Permission(any=True)
        case AddressMatch(of=AddressOf.DESTINATION, block=block):
            return rbac_v3.Permission(destination_ip=cidr(block))
        case PortMatch(number=number):
            return rbac_v3.Permission(destination_port=number)
        case ServerNameMatch(match=name):
            return rbac_v3.Permission(requested_server_name=text(name))
        case UrlPathMatch(match=path):
            return rbac_v3.Permission(url_path=matcher_v3.PathMatcher(path=text(path)))
        case PathTemplateMatch(template=template):
            config = uri_template_match_v3.UriTemplateMatchConfig(path_template=template)
            extension = core_v3.TypedExtensionConfig(name="uri-template", typed_config=pack(config))
            return rbac_v3.Permission(uri_template=extension)
        case FactMatch():
            return rbac_v3.Permission(sourced_metadata=_fact(test))
        case HeaderMatch():
            return rbac_v3.Permission(header=header(test))
        case AddressMatch() | PrincipalMatch():
            raise TypeError(f"{test} is about the caller, and no permission")


def principal(test: Test) -> rbac_v3.Principal:
    """A test of who asks."""
    match test:
        case AllOf(tests=tests):
            return rbac_v3.Principal(and_ids=rbac_v3.Principal.Set(ids=map(principal, tests)))
        case AnyOf(tests=tests):
            return rbac_v3.Principal(or_ids=rbac_v3.Principal.Set(ids=map(principal, tests)))
        case Not(test=inner):
            return rbac_v3.Principal(not_id=principal(inner))
        case Anything():
            return rbac_v3.Principal(any=True)
        case PrincipalMatch(match=name):
            made = rbac_v3.Principal()
            made.authenticated.principal_name.CopyFrom(text(name))
            return made
        case AddressMatch(of=AddressOf.PEER, block=block):
            return rbac_v3.Principal(direct_remote_ip=cidr(block))
        case AddressMatch(of=AddressOf.CLIENT, block=block):
            return rbac_v3.Principal(remote_ip=cidr(block))
        case FactMatch():
            return rbac_v3.Principal(sourced_metadata=_fact(test))
        case HeaderMatch():
            return rbac_v3.Principal(header=header(test))
        case AddressMatch() | PortMatch() | ServerNameMatch() | UrlPathMatch() | PathTemplateMatch():
            raise TypeError(f"{test} is about what is called, and no principal")


def _fact(test: FactMatch) -> rbac_v3.SourcedMetadata:
    segment = matcher_v3.MetadataMatcher.PathSegment
    matcher = matcher_v3.MetadataMatcher(
        filter=test.filter, path=[segment(key=key) for key in test.path], value=_value(test.value)
    )
    return rbac_v3.SourcedMetadata(metadata_matcher=matcher)


def _value(test: ValueMatch) -> matcher_v3.ValueMatcher:
    match test:
        case TextMatch():
            return matcher_v3.ValueMatcher(string_match=text(test))
        case ListedMatch(item=item):
            return matcher_v3.ValueMatcher(list_match=matcher_v3.ListMatcher(one_of=_value(item)))
        case AnyValueMatch(tests=tests):
            return matcher_v3.ValueMatcher(or_match=matcher_v3.OrMatcher(value_matchers=map(_value, tests)))
