"""Bodies in Kubernetes' protobuf, for the commands of kubectl that send nothing else.

``kubectl create namespace|secret|configmap|serviceaccount|service`` and ``kubectl auth`` use typed clients,
which write protobuf and read JSON. The few messages that they send are tables here (field numbers: k8s.io/api
core/v1, authorization/v1 and apimachinery meta/v1 ``generated.proto``). Go writes empty fields too: what is
empty was not said.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.control.api.status import ApiError, bad_request

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class _Field:
    """``form``: text, bytes, int, bool, texts, map, bytesmap, message, messages, int-or-string, ignored.

    ``pointer``: an empty value was said all the same.
    """

    name: str
    form: str = "text"
    message: Mapping[int, _Field] | None = None
    pointer: bool = False


_Message = Mapping[int, _Field]


def _texts(**numbers: int) -> dict[int, _Field]:
    return {number: _Field(name) for name, number in numbers.items()}


_META: Final[_Message] = {
    **_texts(name=1, generateName=2, namespace=3, uid=5, resourceVersion=6),
    8: _Field("creationTimestamp", "ignored"),
    11: _Field("labels", "map"),
    12: _Field("annotations", "map"),
    14: _Field("finalizers", "texts"),
}
_METADATA: Final = _Field("metadata", "message", _META)
_PORT: Final[_Message] = {
    **_texts(name=1, protocol=2, appProtocol=6),
    3: _Field("port", "int"),
    4: _Field("targetPort", "int-or-string"),
    5: _Field("nodePort", "int"),
}
_SERVICE: Final[_Message] = {
    1: _Field("ports", "messages", _PORT),
    2: _Field("selector", "map"),
    **_texts(
        clusterIP=3, type=4, sessionAffinity=7, loadBalancerIP=8, externalName=10,
        externalTrafficPolicy=11, ipFamilyPolicy=17, loadBalancerClass=21, internalTrafficPolicy=22,
        trafficDistribution=23,
    ),
    5: _Field("externalIPs", "texts"),
    9: _Field("loadBalancerSourceRanges", "texts"),
    13: _Field("publishNotReadyAddresses", "bool"),
    18: _Field("clusterIPs", "texts"),
    19: _Field("ipFamilies", "texts"),
}  # fmt: skip
_REFERENCE: Final[_Message] = _texts(
    kind=1, namespace=2, name=3, uid=4, apiVersion=5, resourceVersion=6, fieldPath=7
)
_ATTRIBUTES: Final[_Message] = _texts(
    namespace=1, verb=2, group=3, version=4, resource=5, subresource=6, name=7
)
_ACCESS: Final[_Message] = {
    1: _Field("resourceAttributes", "message", _ATTRIBUTES),
    2: _Field("nonResourceAttributes", "message", _texts(path=1, verb=2)),
}
_RULE: Final[_Message] = {
    number: _Field(name, "texts")
    for number, name in enumerate(("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"), 1)
}
_RULES: Final[_Message] = {1: _METADATA, 2: _Field("rules", "messages", _RULE)}
_BINDING: Final[_Message] = {
    1: _METADATA,
    2: _Field("subjects", "messages", _texts(kind=1, apiGroup=2, name=3, namespace=4)),
    3: _Field("roleRef", "message", _texts(apiGroup=1, kind=2, name=3)),
}
_REVIEW: Final[_Message] = {**_ACCESS, 3: _Field("user"), 4: _Field("groups", "texts"), 6: _Field("uid")}
_IGNORED_STATUS: Final = _Field("status", "ignored")

_KINDS: Final[Mapping[tuple[str, str], _Message]] = {
    ("v1", "Namespace"): {
        1: _METADATA, 2: _Field("spec", "message", {1: _Field("finalizers", "texts")}), 3: _IGNORED_STATUS,
    },
    ("v1", "Secret"): {
        1: _METADATA, 2: _Field("data", "bytesmap"), 3: _Field("type"), 4: _Field("stringData", "map"),
        5: _Field("immutable", "bool", pointer=True),
    },
    ("v1", "ConfigMap"): {
        1: _METADATA, 2: _Field("data", "map"), 3: _Field("binaryData", "bytesmap"),
        4: _Field("immutable", "bool", pointer=True),
    },
    ("v1", "ServiceAccount"): {
        1: _METADATA, 2: _Field("secrets", "messages", _REFERENCE),
        3: _Field("imagePullSecrets", "messages", _texts(name=1)),
        4: _Field("automountServiceAccountToken", "bool", pointer=True),
    },
    ("v1", "Service"): {1: _METADATA, 2: _Field("spec", "message", _SERVICE), 3: _IGNORED_STATUS},
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: _METADATA, 2: _IGNORED_STATUS},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: _METADATA, 2: _Field("spec", "message", _ACCESS), 3: _IGNORED_STATUS,
    },
    ("authorization.k8s.io/v1", "SubjectAccessReview"): {
        1: _METADATA, 2: _Field("spec", "message", _REVIEW), 3: _IGNORED_STATUS,
    },
    **{
        ("rbac.authorization.k8s.io/v1", kind): message
        for kinds, message in (("Role ClusterRole", _RULES), ("RoleBinding ClusterRoleBinding", _BINDING))
        for kind in kinds.split()
    },
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): {
        1: _METADATA, 2: _Field("spec", "message", _texts(namespace=1)), 3: _IGNORED_STATUS,
    },
}  # fmt: skip


def decode(body: bytes) -> dict[str, Any]:
    """The object in ``body``, as JSON has it.

    Raises:
        ApiError: 400 for broken bytes, 415 for a kind or a field that is not in the tables.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes' protobuf")
    try:
        api_version, kind, raw = _envelope(body[len(_MAGIC) :])
        message = _KINDS.get((api_version, kind))
        if message is None:
            raise ApiError(415, f"{api_version} {kind} is not read as protobuf: send application/json")
        return {"apiVersion": api_version, "kind": kind, **_read(raw, message, 0)}
    except (ValueError, IndexError) as error:
        raise bad_request(f"the body is broken protobuf: {error}") from error


def _envelope(body: bytes) -> tuple[str, str, bytes]:
    """``runtime.Unknown``: type meta and the object's bytes."""
    api_version, kind, raw = "", "", b""
    for number, value in _fields(body):
        if number == 1 and isinstance(value, bytes):
            about = _read(value, _texts(apiVersion=1, kind=2), 0)
            api_version, kind = about.get("apiVersion", ""), about.get("kind", "")
        elif number == 2 and isinstance(value, bytes):
            raw = value
    return api_version, kind, raw


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message; groups and fixed-width fields do not occur in these."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        if tag & 7 == 0:
            value, at = _varint(body, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(body, at)
            if at + size > len(body):
                raise ValueError("a field ends after its message")
            yield tag >> 3, body[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {tag & 7}")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = body[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _read(body: bytes, message: _Message, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    result: dict[str, Any] = {}
    for number, value in _fields(body):
        field = message.get(number)
        if field is None:
            # Never drop in silence what somebody said.
            if value not in (0, b""):
                raise ApiError(415, f"field {number} is not read as protobuf: send application/json")
        elif field.form in {"texts", "messages"}:
            result.setdefault(field.name, []).append(_one(field, value, depth))
        elif field.form in {"map", "bytesmap"}:
            name, text = _entry(field, value)
            result.setdefault(field.name, {})[name] = text
        elif field.form != "ignored":
            read = _one(field, value, depth)
            if read or field.pointer:
                result[field.name] = read
    return result


def _one(field: _Field, value: int | bytes, depth: int) -> Any:
    if isinstance(value, int):
        if field.form == "bool":
            return bool(value)
        if field.form == "int":
            return value if value < 1 << 63 else value - (1 << 64)
    elif field.form in {"message", "messages"} and field.message is not None:
        return _read(value, field.message, depth + 1)
    elif field.form in {"text", "texts"}:
        return value.decode()
    elif field.form == "int-or-string":
        parts = dict(_fields(value))
        text = parts.get(3, b"")
        return text.decode() if parts.get(1) and isinstance(text, bytes) else parts.get(2, 0)
    raise ValueError(f"{field.name} has the wrong wire type")


def _entry(field: _Field, value: int | bytes) -> tuple[str, str]:
    if not isinstance(value, bytes):
        raise ValueError(f"{field.name} has the wrong wire type")
    parts = dict(_fields(value))
    key, content = parts.get(1, b""), parts.get(2, b"")
    if not isinstance(key, bytes) or not isinstance(content, bytes):
        raise ValueError(f"{field.name} has the wrong wire type")
    text = base64.b64encode(content).decode() if field.form == "bytesmap" else content.decode()
    return key.decode(), text
