"""Who calls, in the words of telemetry: taken out of the caller's certificate once a connection.

Envoy has the text of an otherName, and of a filter state in CEL its bytes only; with conversions allowed in
the formatter, CEL takes the text apart. What a connection remembers so costs a request one look at a table
for each label.
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
_LONGEST_CARD: Final = 1024
# What the peer's certificate has for names of this kind, before its card is found among them.
_NAMES: Final = "weft.peer"
_TEXTS: Final = formatter_cel_v3.Cel(
    cel_config=core_v3.CelExpressionConfig(enable_string_conversion=True, enable_string_functions=True)
)


def remembered(tls: DownstreamTls | None, direction: Direction) -> list[listener_v3.Filter]:
    """The filter that remembers, where callers show certificates of the mesh."""
    if tls is None or not tls.peer_trust_domains or direction is not Direction.INBOUND:
        return []
    return [_filter()]


@cache
def _filter() -> listener_v3.Filter:
    # The names of a certificate are joined by commas, which no card has.
    pattern = f"(?:^|,)({FORM}/(?:{WORD}|/)+)"
    card = f"string(filter_state['{REMEMBERED}'])"
    identity = "connection.uri_san_peer_certificate.split('/')"
    values = [
        _value(_NAMES, "%DOWNSTREAM_PEER_OTHERNAME_SAN%"),
        # Only this is searched by a pattern, which takes longer than all the rest.
        _cel(
            REMEMBERED, f"re.extract(string(filter_state['{_NAMES}']), '{pattern}', '\\\\1')", _LONGEST_CARD
        ),
        *(
            _cel(_key(field), f"{card}.split('/')[{place}]")
            for place, field in enumerate(Card._fields, start=1)
        ),
        _cel(_key(NAMESPACE), f"{identity}[3] == 'ns' ? {identity}[4] : ''"),
    ]
    config = network_set_filter_state_v3.Config(on_downstream_tls_handshake=values)
    return listener_v3.Filter(name=_NAME, typed_config=pack(config))


def _key(field: str) -> str:
    return f"{REMEMBERED}.{field}"


def _cel(key: str, expression: str, longest: int = _LONGEST) -> set_filter_state_v3.FilterStateValue:
    made = _value(key, f"%CEL({expression}):{longest}%")
    made.format_string.formatters.append(
        core_v3.TypedExtensionConfig(name="envoy.formatter.cel", typed_config=pack(_TEXTS))
    )
    return made


def _value(key: str, command: str) -> set_filter_state_v3.FilterStateValue:
    made = set_filter_state_v3.FilterStateValue(object_key=key, factory_key=_TEXT, skip_if_empty=True)
    made.format_string.text_format_source.inline_string = command
    made.format_string.omit_empty_values = True
    return made
