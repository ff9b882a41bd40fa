"""What callers say of themselves and of their request's past, and nobody vouches for.

Envoy sanitises some of it at the edge, and less at a sidecar; the rest is taken away here, before anything
reads it. Who calls over mutual TLS of the mesh is no stranger, nor is a proxy that the user says stands
before a gateway (``numTrustedProxies``), which may tie traces together.
"""

from __future__ import annotations

from typing import Final

from weft.ir.listener import HttpHandler
from weft.protos import core_v3, hcm_v3, matcher_v3, mutation_rules_v3, xff_v3
from weft.protos.wire import pack

# All that Envoys tell each other, or obey: retries, timeouts, names of paths and spans, metadata of peers.
_INTERNAL: Final = "x-envoy-"
# Spans that a stranger could have made, drop or be merged with those of others. "x-b3-" is Zipkin's prefix.
_TRACES: Final = ("b3", "traceparent", "tracestate", "x-client-trace-id", "x-ot-span-context")
_B3: Final = "x-b3-"
# RFC 7239: no proxy of ours writes it, and applications believe it.
_FORWARDED: Final = "forwarded"
_REQUEST_ID: Final = "x-request-id"
# A block in which no peer is: the address of the connection is the caller's, whatever a header says.
_NOBODY: Final = ("255.255.255.255", 32)


def unvouched(unit: HttpHandler) -> list[mutation_rules_v3.HeaderMutation]:
    """The headers that are taken away before a route is looked for."""
    if not unit.strangers:
        return []
    prefixes, names = [_INTERNAL], list[str]()
    if not unit.trusted_hops:
        prefixes.append(_B3)
        names.extend((*_TRACES, _FORWARDED))
    if not unit.edge:  # there Envoy makes a new one by itself
        names.append(_REQUEST_ID)
    return [
        *(mutation_rules_v3.HeaderMutation(remove=name) for name in sorted(names)),
        *(_by_prefix(prefix) for prefix in prefixes),
    ]


def _by_prefix(prefix: str) -> mutation_rules_v3.HeaderMutation:
    made = mutation_rules_v3.HeaderMutation()
    made.remove_on_match.key_matcher.CopyFrom(matcher_v3.StringMatcher(prefix=prefix, ignore_case=True))
    return made


def own_address(made: hcm_v3.HttpConnectionManager, unit: HttpHandler) -> None:
    """At a sidecar the caller's address is the connection's, put behind what ``x-forwarded-for`` says."""
    if not unit.strangers or unit.edge:
        return
    address, length = _NOBODY
    config = xff_v3.XffConfig()
    block = config.xff_trusted_cidrs.cidrs.add(address_prefix=address)
    block.prefix_len.value = length
    config.skip_xff_append.value = False
    made.original_ip_detection_extensions.append(
        core_v3.TypedExtensionConfig(name="envoy.http.original_ip_detection.xff", typed_config=pack(config))
    )
