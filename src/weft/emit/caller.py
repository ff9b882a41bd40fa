"""Who calls, in the words of telemetry: taken out of the caller's certificate once a connection.

Envoy has the text of an otherName, and of a filter state in CEL its bytes only; with conversions allowed in
the formatter, CEL's regular expressions take the text apart. What a connection remembers so costs a request
one look at a table for each label.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from weft.card import FORM, NAMESPACE, REMEMBERED, WORD, Card
from weft.ir.listener import Direction
from weft.ir.tls import DownstreamTls
from weft.protos import (
    core_v3,
    formatter_cel_v3,
    listener_v3,
    network_set_filter_state_v3,
    set_filter_state_v3,
)
from weft.protos.wire import pack

_NAME: Final = "weft.filters.network.caller"
# Envoy's factory of objects that are a text.
_TEXT: Final = "envoy.string"
_LONGEST: Final = 253


def remembered(tls: DownstreamTls | None, direction: Direction) -> list[listener_v3.Filter]:
    """The filter that remembers, where callers show certificates of the mesh."""
    if tls is None or not tls.peer_trust_domains or direction is not Direction.INBOUND:
        return []
    return [_filter()]


@cache
def _filter() -> listener_v3.Filter:
    values = [_value(REMEMBERED, "%DOWNSTREAM_PEER_OTHERNAME_SAN%")]
    for place, field in enumerate(Card._fields):
        # The names of a certificate are joined by commas, which no card has.
        pattern = f"(?:^|,){FORM}/(?:{WORD}+/){{{place}}}({WORD}+)"
        values.append(_value(_key(field), _extracted(f"string(filter_state['{REMEMBERED}'])", pattern)))
    where = _extracted("connection.uri_san_peer_certificate", "^spiffe://[^/]+/ns/([^/]+)/sa/")
    values.append(_value(_key(NAMESPACE), where))
    config = network_set_filter_state_v3.Config(on_downstream_tls_handshake=values)
    return listener_v3.Filter(name=_NAME, typed_config=pack(config))


def _key(field: str) -> str:
    return f"{REMEMBERED}.{field}"


def _extracted(text: str, pattern: str) -> str:
    """The command that writes the first group of the pattern in a text."""
    return f"%CEL(re.extract({text}, '{pattern}', '\\\\1')):{_LONGEST}%"


def _value(key: str, command: str) -> set_filter_state_v3.FilterStateValue:
    made = set_filter_state_v3.FilterStateValue(object_key=key, factory_key=_TEXT, skip_if_empty=True)
    made.format_string.text_format_source.inline_string = command
    made.format_string.omit_empty_values = True
    if "string(" in command:
        config = formatter_cel_v3.Cel(cel_config=core_v3.CelExpressionConfig(enable_string_conversion=True))
        made.format_string.formatters.append(
            core_v3.TypedExtensionConfig(name="envoy.formatter.cel", typed_config=pack(config))
        )
    return made
