"""Values of labels of metrics: CEL expressions of Istio's, as formats that Envoy writes.

What is asked for most has a format of its own, which costs Envoy less than CEL. Istio's words for the other
end are read from the metadata of the endpoint (``upstream_peer``) and from the caller's certificate
(``downstream_peer``).
"""

from __future__ import annotations

import re
from typing import Final

from weft.card import NAMESPACE, caller
from weft.compile.istio import cel_calls
from weft.model.cel import expression

# Envoy's attributes with a format of their own.
_FORMATS: Final = {
    "request.path": "%REQ(:PATH)%",
    "request.url_path": "%PATH(NQ:PATH)%",
    "request.host": "%REQ(:AUTHORITY)%",
    "request.scheme": "%REQ(:SCHEME)%",
    "request.method": "%REQ(:METHOD)%",
    "request.referer": "%REQ(REFERER)%",
    "request.useragent": "%REQ(USER-AGENT)%",
    "request.id": "%REQ(X-REQUEST-ID)%",
    "request.protocol": "%PROTOCOL%",
    "response.code": "%RESPONSE_CODE%",
    "response.code_details": "%RESPONSE_CODE_DETAILS%",
    "response.grpc_status": "%GRPC_STATUS_NUMBER%",
    "source.address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "source.port": "%DOWNSTREAM_REMOTE_PORT%",
    "destination.address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "destination.port": "%DOWNSTREAM_LOCAL_PORT%",
    "connection.requested_server_name": "%REQUESTED_SERVER_NAME%",
    "connection.tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "connection.uri_san_peer_certificate": "%DOWNSTREAM_PEER_URI_SAN%",
    "connection.uri_san_local_certificate": "%DOWNSTREAM_LOCAL_URI_SAN%",
    "connection.dns_san_peer_certificate": "%DOWNSTREAM_PEER_DNS_SAN%",
    "connection.termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream.address": "%UPSTREAM_REMOTE_ADDRESS%",
    "upstream.port": "%UPSTREAM_REMOTE_PORT%",
    "upstream.tls_version": "%UPSTREAM_TLS_VERSION%",
    "upstream.uri_san_peer_certificate": "%UPSTREAM_PEER_URI_SAN%",
    "upstream.transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream.request_attempt_count": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "xds.cluster_name": "%UPSTREAM_CLUSTER_RAW%",
    "xds.route_name": "%ROUTE_NAME%",
    "upstream_peer.name": "%METADATA(UPSTREAM_HOST:weft:workload)%",
    "upstream_peer.workload": "%METADATA(UPSTREAM_HOST:weft:workload)%",
    "upstream_peer.namespace": "%METADATA(UPSTREAM_HOST:weft:namespace)%",
    "upstream_peer.app": "%METADATA(UPSTREAM_HOST:weft:app)%",
    "upstream_peer.version": "%METADATA(UPSTREAM_HOST:weft:version)%",
    "upstream_peer.service": "%METADATA(UPSTREAM_HOST:weft:canonical_name)%",
    "upstream_peer.revision": "%METADATA(UPSTREAM_HOST:weft:canonical_revision)%",
    "upstream_peer.cluster": "%METADATA(UPSTREAM_HOST:weft:cluster)%",
    "downstream_peer.name": caller("workload"),
    "downstream_peer.workload": caller("workload"),
    "downstream_peer.namespace": caller(NAMESPACE),
    "downstream_peer.app": caller("app"),
    "downstream_peer.version": caller("version"),
    "downstream_peer.service": caller("canonical_service"),
    "downstream_peer.revision": caller("canonical_revision"),
    "downstream_peer.cluster": caller("cluster"),
}
_LITERAL: Final = re.compile(r"""(['"])([^'"\\%]*)\1""")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?|true|false")
_HEADER: Final = re.compile(r"""(request|response)\.headers\[(['"])([A-Za-z0-9_:.-]+)\2\]""")
_NODE: Final = re.compile(r"""(xds\.)?node\.metadata\[(['"])([A-Za-z0-9_.-]+)\2\]""")
_CONVERSION: Final = re.compile(r"string\((?P<inner>[^()]*)\)")
# Metadata of a node that a proxy also has in its environment.
_OWN: Final = {
    "WORKLOAD_NAME": "%ENVIRONMENT(WEFT_WORKLOAD)%",
    "NAMESPACE": "%ENVIRONMENT(WEFT_NAMESPACE)%",
    "CLUSTER_ID": "%ENVIRONMENT(WEFT_CLUSTER)%",
    "MESH_ID": "%ENVIRONMENT(WEFT_MESH)%",
}
_ROOTS: Final = frozenset(
    {"request", "response", "connection", "upstream", "source", "destination", "metadata", "filter_state"}
    | {"upstream_filter_state", "xds"}
)
_WORDS: Final = frozenset({"true", "false", "null", "in"})
_NAMES: Final = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w*\s*\()")
_LABEL: Final = re.compile(r"""((?:up|down)stream_peer)\.labels\[(['"])(app|version)\2\](\.value)?""")


def value_of(text: str) -> tuple[str, str]:
    """An expression as a format, and why there is none: one of the two is empty."""
    asked = text.strip()
    if (converted := _CONVERSION.fullmatch(asked)) is not None:
        asked = converted["inner"].strip()  # what a label says is text anyway
    if wrong := expression(asked):
        return "", f"{text!r} is no expression: {wrong}"
    if (literal := _LITERAL.fullmatch(asked)) is not None:
        return literal[2], "" if literal[2] else "the text is empty: a label without a value is none"
    if _NUMBER.fullmatch(asked) is not None:
        return asked, ""
    if (header := _HEADER.fullmatch(asked)) is not None:
        return f"%{'REQ' if header[1] == 'request' else 'RESP'}({header[3].upper()})%", ""
    if asked in _FORMATS:
        return _FORMATS[asked], ""
    if (label := _LABEL.fullmatch(asked)) is not None:
        return _FORMATS[f"{label[1]}.{label[3]}"], ""
    if (node := _NODE.fullmatch(asked)) is not None and node[3] in _OWN:
        return _OWN[node[3]], ""
    return _by_cel(text, asked)


def _by_cel(text: str, asked: str) -> tuple[str, str]:
    asked = re.sub(r"(?<![\w.])node\.", "xds.node.", asked)
    if wrong := cel_calls.complaint(asked, texts=False):
        return "", f"{text!r}: {wrong}"
    names = set(_NAMES.findall(cel_calls.without_texts(asked)))
    for name in sorted(names - _ROOTS - _WORDS):
        return "", f"Envoy 1.40 has no {name!r} to ask in {text!r}"
    if ")%" in asked:  # there Envoy would take it for the end
        return "", f"{text!r} holds ')%'"
    return f"%CEL({asked})%", ""
