"""Which names the certificate of a peer within the mesh may bear: one SPIFFE ID, and a well-formed one.

Envoy accepts a certificate when one of its names fits, and takes each of its names for who the peer is. Our
authority signs no other certificates; an authority above it, which an operator may have brought, might.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from weft.ir.tls import DownstreamTls
from weft.protos import (
    listener_v3,
    matcher_v3,
    rbac_network_v3,
    rbac_v3,
    ssl_inputs_v3,
    tls_v3,
    xds_core_v3,
    xds_matcher_v3,
)
from weft.protos.wire import pack

if TYPE_CHECKING:
    from google.protobuf.message import Message

_NAME: Final = "weft.filters.network.one_identity"
_STAT_PREFIX: Final = "one_identity."
# SPIFFE-ID, section 2.2: letters, digits, dots, dashes and underscores, but neither "." nor "..".
_SEGMENT: Final = r"(?:\.?\.?[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3}[A-Za-z0-9._-]*)"


def of_domains(domains: tuple[str, ...]) -> list[tls_v3.SubjectAltNameMatcher]:
    """Any identity of these trust domains; nothing that only begins like one."""
    kind = tls_v3.SubjectAltNameMatcher.SanType
    return [
        tls_v3.SubjectAltNameMatcher(
            san_type=kind.URI,
            matcher=matcher_v3.StringMatcher(
                safe_regex=matcher_v3.RegexMatcher(regex=f"spiffe://{re.escape(domain)}(?:/{_SEGMENT})+")
            ),
        )
        for domain in domains
    ]


def one_identity(tls: DownstreamTls | None) -> list[listener_v3.Filter]:
    """Closes connections of peers with several identities (X509-SVID, section 2: exactly one URI), and of
    those with a DNS name that looks like one: Envoy compares principals with these, too.
    """
    if tls is None or not tls.peer_trust_domains:
        return []
    made = xds_matcher_v3.Matcher(on_no_match=_on_match("one identity", rbac_v3.RBAC.Action.ALLOW))
    # Envoy joins names by commas, which no SPIFFE ID has; no DNS name has a slash.
    _deny(made, "uri_san", ssl_inputs_v3.UriSanInput(), ",", "several identities")
    _deny(made, "dns_san", ssl_inputs_v3.DnsSanInput(), "/", "an identity as a DNS name")
    config = rbac_network_v3.RBAC(matcher=made, stat_prefix=_STAT_PREFIX)
    return [listener_v3.Filter(name=_NAME, typed_config=pack(config))]


def _deny(made: xds_matcher_v3.Matcher, kind: str, input_: Message, mark: str, why: str) -> None:
    """Whoever has the mark in its names of a kind."""
    row = made.matcher_list.matchers.add()
    test = row.predicate.single_predicate
    test.input.CopyFrom(
        xds_core_v3.TypedExtensionConfig(name=f"envoy.matching.inputs.{kind}", typed_config=pack(input_))
    )
    test.value_match.contains = mark
    row.on_match.CopyFrom(_on_match(why, rbac_v3.RBAC.Action.DENY))


def _on_match(name: str, action: rbac_v3.RBAC.Action.ValueType) -> xds_matcher_v3.Matcher.OnMatch:
    made = xds_matcher_v3.Matcher.OnMatch()
    made.action.CopyFrom(
        xds_core_v3.TypedExtensionConfig(
            name="action", typed_config=pack(rbac_v3.Action(name=name, action=action))
        )
    )
    return made
