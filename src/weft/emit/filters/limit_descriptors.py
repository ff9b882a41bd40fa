"""What a request is counted as: which limit, and whose."""

from __future__ import annotations

import json
from typing import Final

from weft.emit.request import JWT_FILTER, PAYLOAD, header
from weft.ir.rate_limit import Bucket, CallerBy, CallerKey
from weft.protos import core_v3, metadata_v3, rate_limit_expr_v3, route_v3
from weft.protos.wire import pack

LIMIT: Final = "limit"
MATCHED: Final = "matched"
# What all callers are that do not say who they are: they share one count, none goes uncounted.
_NOBODY: Final = "-"


def caller(number: int, key: CallerKey) -> str:
    """The key of what tells callers apart; Envoy gives addresses a name of its own."""
    return "remote_address" if key.by is CallerBy.ADDRESS else f"caller{number}"


def actions(bucket: Bucket) -> route_v3.RateLimit:
    """How Envoy finds out: nothing comes of it when the request is not one that the limit is about."""
    made = route_v3.RateLimit()
    made.actions.add().generic_key.CopyFrom(
        route_v3.RateLimit.Action.GenericKey(descriptor_key=LIMIT, descriptor_value=bucket.name)
    )
    if bucket.match:
        made.actions.add().header_value_match.CopyFrom(
            route_v3.RateLimit.Action.HeaderValueMatch(
                descriptor_key=MATCHED,
                descriptor_value="yes",
                headers=[header(test) for test in bucket.match],
            )
        )
    for number, key in enumerate(bucket.per):
        made.actions.append(_whose(key, caller(number, key)))
    return made


def _whose(key: CallerKey, name: str) -> route_v3.RateLimit.Action:
    made = route_v3.RateLimit.Action()
    match key.by:
        case CallerBy.ADDRESS:
            made.remote_address.SetInParent()
        case CallerBy.PRINCIPAL:
            certificate = "connection.uri_san_peer_certificate"
            _expression(made, name, f"has({certificate}) ? {certificate} : {json.dumps(_NOBODY)}")
        case CallerBy.HEADER:
            quoted = json.dumps(key.path[0])
            there = f"{quoted} in request.headers"
            _expression(made, name, f"({there}) ? request.headers[{quoted}] : {json.dumps(_NOBODY)}")
        case CallerBy.CLAIM:
            segment = metadata_v3.MetadataKey.PathSegment
            made.metadata.CopyFrom(
                route_v3.RateLimit.Action.MetaData(
                    descriptor_key=name,
                    metadata_key=metadata_v3.MetadataKey(
                        key=JWT_FILTER, path=[segment(key=part) for part in (PAYLOAD, *key.path)]
                    ),
                    default_value=_NOBODY,
                )
            )
    return made


def _expression(made: route_v3.RateLimit.Action, name: str, text: str) -> None:
    config = rate_limit_expr_v3.Descriptor(descriptor_key=name, text=text)
    made.extension.CopyFrom(
        core_v3.TypedExtensionConfig(name="envoy.rate_limit_descriptors.expr", typed_config=pack(config))
    )
