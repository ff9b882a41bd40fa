"""A question to ``weft explain``: who sends what to where. Read from JSON, checked, with defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

Headers = Mapping[str, tuple[str, ...]]
"""Header values by lower-case name."""


class Role(StrEnum):
    """Which proxy is asked: a gateway, a workload's on its way out, or a workload's on the way in."""

    GATEWAY = "gateway"
    WORKLOAD = "workload"
    INBOUND = "inbound"


class ClientTls(StrEnum):
    """How the client connects. ``MTLS``: with a certificate that the receiver's CA accepts."""

    NONE = "none"
    TLS = "tls"
    MTLS = "mtls"


_OF_GATEWAY: Final = ("", "-weft", "-istio")
_OF_WORKLOAD: Final = ("", "-0")
PROTOCOLS: Final = ("http", "http2", "grpc", "tcp", "udp")
_HTTP: Final = frozenset({"http", "http2", "grpc"})
_FIELDS: Final = frozenset(
    {
        "id",
        "from",
        "address",
        "port",
        "protocol",
        "tls",
        "sni",
        "alpn",
        "source",
        "http",
        "jwt",
        "response",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The proxy that is asked. ``labels``, ``ip`` and ``account`` describe one that no document describes."""

    role: Role
    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    ip: str = ""
    account: str = ""

    @property
    def proxies(self) -> tuple[str, ...]:
        """Which proxies that run may be meant, as ``namespace/name``, the likeliest first: the one of that
        name; the first replica of a Workload; that of a Gateway, whose class stands behind its name.
        """
        suffixes = _OF_GATEWAY if self.role is Role.GATEWAY else _OF_WORKLOAD
        return tuple(f"{self.namespace}/{self.name}{suffix}" for suffix in suffixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request or connection.

    ``address`` is what is dialled, an IP or a name; ``port`` None was not said. ``principal`` is the
    SPIFFE URI of the client. ``answer`` is what the upstream answers: status and headers.
    """

    sender: Sender
    address: str = ""
    port: int | None = None
    protocol: str = "http"
    tls: ClientTls = ClientTls.NONE
    sni: str = ""
    alpn: tuple[str, ...] | None = None
    principal: str = ""
    source_namespace: str = ""
    source_ip: str = ""
    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: Headers
    jwt: Mapping[str, Any] | None = None
    answer_status: int = 200
    answer_headers: Headers

    @property
    def is_http(self) -> bool:
        """Whether what travels is HTTP, inside any TLS."""
        return self.protocol in _HTTP

    @property
    def is_grpc(self) -> bool:
        """Whether the client is a gRPC client."""
        kinds = self.headers.get("content-type", ("",))
        return kinds[0] == "application/grpc" or kinds[0].startswith("application/grpc+")


def read_request(data: object) -> Request:
    """The request in a JSON object.

    Raises:
        ValueError: when a field is unknown, missing or has a wrong value; the message begins with its path.
    """
    if not isinstance(data, dict):
        raise ValueError("a request must be a JSON object")
    unknown = sorted(set(data) - _FIELDS)
    if unknown:
        raise ValueError(f"{unknown[0]}: there is no such field; known are {', '.join(sorted(_FIELDS))}")
    protocol = _text(data, "protocol", "http").lower()
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is not known: write one of {', '.join(PROTOCOLS)}")
    tls = _text(data, "tls", "none").lower()
    if tls not in set(ClientTls):
        raise ValueError(f"tls: {tls!r} is not known: write none, tls or mtls")
    source = _object(data, "source")
    http = _object(data, "http")
    response = _object(data, "response")
    headers = _headers(http.get("headers"), "http.headers")
    host = _text(http, "host", "", "http.")
    if not host and "host" in headers:
        host = headers["host"][0]
    headers.pop("host", None)
    if protocol == "grpc":
        headers.setdefault("content-type", ("application/grpc",))
        headers.setdefault("te", ("trailers",))
    path = _text(http, "path", "/", "http.") or "/"
    return Request(
        sender=_sender(data.get("from")),
        address=_text(data, "address", "").strip("[]"),
        port=_port(data.get("port")),
        protocol=protocol,
        tls=ClientTls(tls),
        sni=_text(data, "sni", "").lower(),
        alpn=_alpn(data.get("alpn")),
        principal=_text(source, "principal", "", "source."),
        source_namespace=_text(source, "namespace", "", "source."),
        source_ip=_text(source, "ip", "", "source."),
        method=_text(http, "method", "POST" if protocol == "grpc" else "GET", "http."),
        host=host,
        path=path,
        headers=headers,
        jwt=_token(data),
        answer_status=_status(response.get("status")),
        answer_headers=_headers(response.get("headers"), "response.headers"),
    )


def _sender(value: object) -> Sender:
    if not isinstance(value, dict):
        raise ValueError('from: say which proxy, as {"gateway": "NAMESPACE/NAME"}')
    roles = [role for role in Role if role in value]
    if len(roles) != 1:
        raise ValueError("from: name one of gateway, workload, inbound")
    unknown = sorted(set(value) - {*Role, "labels", "ip", "serviceAccount"})
    if unknown:
        raise ValueError(f"from.{unknown[0]}: there is no such field")
    role = roles[0]
    text = _text(value, role, "", "from.")
    namespace, _, name = text.rpartition("/")
    if not name or "/" in namespace:
        raise ValueError(f"from.{role}: {text!r} is not NAMESPACE/NAME")
    labels = value.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(item, str) for item in labels.values()):
        raise ValueError("from.labels: labels are texts by name")
    return Sender(
        role=role,
        namespace=namespace or "default",
        name=name,
        labels=tuple(sorted(labels.items())),
        ip=_text(value, "ip", "", "from."),
        account=_text(value, "serviceAccount", "", "from."),
    )


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}: must be an object")
    return value


def _token(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    described = _object(data, "jwt")
    unknown = sorted(set(described) - {"iss", "sub", "aud", "claims"})
    if unknown:
        raise ValueError(f"jwt.{unknown[0]}: there is no such field: other claims stand in jwt.claims")
    claims = described.get("claims")
    if claims is not None and not isinstance(claims, dict):
        raise ValueError("jwt.claims: must be an object")
    return described or None


def _text(data: Mapping[str, Any], name: str, default: str, prefix: str = "") -> str:
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{prefix}{name}: must be text")
    return value


def _port(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ValueError("port: must be a number from 1 to 65535")
    return value


def _status(value: object) -> int:
    if value is None:
        return 200
    if isinstance(value, bool) or not isinstance(value, int) or not 100 <= value < 600:
        raise ValueError("response.status: must be a number from 100 to 599")
    return value


def _alpn(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("alpn: must be a list of texts")
    return tuple(items)


def _headers(value: object, where: str) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where}: headers are lists of texts by name")
    found: dict[str, tuple[str, ...]] = {}
    for name, values in value.items():
        items = [values] if isinstance(values, str) else values
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{where}.{name}: must be a list of texts")
        if items:
            key = name.lower()
            found[key] = (*found.get(key, ()), *(item.strip() for item in items))
    return found
