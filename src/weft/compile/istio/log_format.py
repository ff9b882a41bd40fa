"""Envoy's substitution formats (``%REQ(:PATH)%``), as people write them for logs, tags and labels.

Envoy refuses a listener whole if it cannot read one of them: so they are looked at before. The names are
those that Envoy 1.40 takes; what stands in their brackets is Envoy's own to judge, but for CEL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from weft.errors import did_you_mean
from weft.model.cel import expression

TEXT: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's format of a line."""

_COMMAND: Final = re.compile(r"%([A-Z0-9_]+)(\((?P<argument>.*?)\))?(:\d+)?%", re.DOTALL)
_words = str.split
# With brackets always.
_WITH_ARGUMENT: Final = frozenset(
    _words(
        "CEL CLUSTER_METADATA COALESCE COMMON_DURATION DYNAMIC_METADATA ENVIRONMENT FILTER_STATE METADATA "
        "QUERY_PARAM REQ REQUEST_HEADER REQ_WITHOUT_QUERY RESP RESPONSE_HEADER RESPONSE_TRAILER TRAILER "
        "UPSTREAM_FILTER_STATE UPSTREAM_METADATA"
    )
)
_DOWNSTREAM: Final = _words(
    "CX_RTT DETECTED_CLOSE_TYPE DIRECT_LOCAL_ADDRESS DIRECT_LOCAL_ADDRESS_ENDPOINT_ID "
    "DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DIRECT_LOCAL_PORT DIRECT_REMOTE_ADDRESS "
    "DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DIRECT_REMOTE_PORT HANDSHAKE_DURATION LOCAL_ADDRESS_ENDPOINT_ID "
    "LOCAL_EMAIL_SAN LOCAL_OTHERNAME_SAN LOCAL_SUBJECT PEER_CHAIN_FINGERPRINTS_1 "
    "PEER_CHAIN_FINGERPRINTS_256 PEER_CHAIN_SERIALS PEER_EMAIL_SAN PEER_FINGERPRINT_1 "
    "PEER_FINGERPRINT_256 PEER_ISSUER_FINGERPRINT_256 PEER_ISSUER_SERIAL PEER_OTHERNAME_SAN PEER_SERIAL"
)
_UPSTREAM: Final = _words(
    "CLUSTER CLUSTER_RAW CONNECTION_ID CONNECTION_IDS_ATTEMPTED CONNECTION_POOL_READY_DURATION HOST "
    "HOSTS_ATTEMPTED HOSTS_ATTEMPTED_WITHOUT_PORT HOST_NAME HOST_NAMES_ATTEMPTED "
    "HOST_NAMES_ATTEMPTED_WITHOUT_PORT HOST_NAME_WITHOUT_PORT PROTOCOL REMOTE_ADDRESS_ENDPOINT_ID "
    "REQUEST_ATTEMPT_COUNT SERVER_NAME"
)
_EITHER: Final = _words(
    "DECOMPRESSED_HEADER_BYTES_RECEIVED DECOMPRESSED_HEADER_BYTES_SENT DETECTED_CLOSE_TYPE "
    "HEADER_BYTES_RECEIVED HEADER_BYTES_SENT LOCAL_ADDRESS LOCAL_ADDRESS_WITHOUT_PORT LOCAL_CLOSE_REASON "
    "LOCAL_DNS_SAN LOCAL_IP_SAN LOCAL_PORT LOCAL_URI_SAN PEER_CERT PEER_CERT_V_END PEER_CERT_V_START "
    "PEER_DNS_SAN PEER_IP_SAN PEER_ISSUER PEER_SUBJECT PEER_URI_SAN REMOTE_ADDRESS "
    "REMOTE_ADDRESS_WITHOUT_PORT REMOTE_PORT TLS_CIPHER TLS_GROUP TLS_SESSION_ID TLS_VERSION "
    "TRANSPORT_FAILURE_REASON WIRE_BYTES_RECEIVED WIRE_BYTES_SENT"
)
_ALONE: Final = _words(
    "ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID "
    "CONNECTION_TERMINATION_DETAILS CUSTOM_FLAGS DURATION EMIT_TIME EMIT_TIME_LOCAL FILTER_CHAIN_NAME "
    "GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME LISTENER_NAME LOCAL_REPLY_BODY PATH PROTOCOL QUERY_PARAMS "
    "REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESPONSE_CODE "
    "RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES "
    "RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUTE_NAME ROUTE_RESOLUTION_COUNT "
    "ROUTE_RESOLUTION_TIME_US SPAN_ID START_TIME START_TIME_LOCAL STREAM_ID TLS_JA3_FINGERPRINT "
    "TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID VIRTUAL_CLUSTER_NAME"
)
COMMANDS: Final = frozenset(
    (
        *_WITH_ARGUMENT,
        *_ALONE,
        *(f"DOWNSTREAM_{name}" for name in (*_DOWNSTREAM, *_EITHER)),
        *(f"UPSTREAM_{name}" for name in (*_UPSTREAM, *_EITHER)),
    )
)
"""What may stand between two ``%``."""


def complaint(text: str) -> str:
    """What Envoy would not read in a format; empty when nothing."""
    place = 0
    while (place := text.find("%", place)) >= 0:
        if text.startswith("%%", place):
            place += 2
            continue
        found = _COMMAND.match(text, place)
        if found is None:
            return f"no command at {text[place : place + 20]!r}: a '%' alone is written '%%'"
        if wrong := _wrong(found[1], found["argument"]):
            return wrong
        place = found.end()
    return ""


def _wrong(name: str, argument: str | None) -> str:
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS)
        return f"Envoy has no command %{name}%" + (f": {near}" if near else "")
    if name in _WITH_ARGUMENT and not argument:
        return f"%{name}% needs something in brackets"
    if name == "CEL" and (wrong := expression(argument or "")):
        return f"%CEL({argument})%: {wrong}"
    return ""


def line(text: str) -> str:
    """A format of lines, with its end; Istio's for the empty one."""
    if not text:
        return TEXT
    return text if text.endswith("\n") else f"{text}\n"


def fields(text: str) -> dict[str, object]:
    """The JSON object in a text.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def texts(value: object) -> Iterator[str]:
    """All texts in a JSON value: each is a format."""
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from texts(part)
        case list() | tuple():
            for part in value:
                yield from texts(part)
