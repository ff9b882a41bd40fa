"""A running workload as a node registers it: the one shape that both ends of the session read and write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Self

from weft.errors import WeftError

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_TEXT_MAX: Final = 253
_ENTRIES_MAX: Final = 256


class InstanceError(WeftError):
    """A registration that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """``ports`` are those that peers connect to, by name. ``kind`` is ``sidecar`` or ``router``.

    ``service``: make a Service of that name if there is none. ``group``: the WorkloadGroup whose template
    fills what is not given. ``ready``: it may get traffic; ``draining``: it shall get no new traffic.
    """

    namespace: str
    name: str
    service_account: str = "default"
    service: str = ""
    group: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    capture: str = "none"
    network: str = ""
    locality: str = ""
    kind: str = "sidecar"
    attachment: Mapping[str, Any] = field(default_factory=dict)
    ready: bool = False
    draining: bool = False
    message: str = ""

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "id": self.id,
            "name": self.name,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "service": self.service or None,
            "group": self.group or None,
            "labels": dict(self.labels),
            "address": self.address,
            "ports": dict(self.ports),
            "capture": self.capture,
            "network": self.network,
            "locality": self.locality,
            "kind": self.kind,
            "attachment": dict(self.attachment),
            "ready": self.ready,
            "draining": self.draining,
            "message": self.message,
        }

    @classmethod
    def parse(cls, body: object) -> Self:
        """Read the JSON form; unknown fields are ignored, a newer node may send them.

        Raises:
            InstanceError: which field is wrong, and how.
        """
        if not isinstance(body, dict):
            raise InstanceError("an instance is a JSON object")
        found = cls(
            namespace=_match(body, "namespace", _NAMESPACE),
            name=_match(body, "name", _NAME),
            service_account=_match(body, "serviceAccount", _NAME, default="default"),
            service=_match(body, "service", _NAMESPACE, default=""),
            group=_match(body, "group", _NAME, default=""),
            labels=_labels(body.get("labels")),
            address=_address(body.get("address")),
            ports=_ports(body.get("ports")),
            capture=_text(body, "capture") or "none",
            network=_text(body, "network"),
            locality=_text(body, "locality"),
            kind=_text(body, "kind") or "sidecar",
            attachment=_object(body, "attachment"),
            ready=body.get("ready") is True,
            draining=body.get("draining") is True,
            message=_text(body, "message", limit=1024),
        )
        if found.kind not in {"sidecar", "router"}:
            raise InstanceError(f"kind: {found.kind!r} is neither sidecar nor router")
        if body.get("id", found.id) != found.id:
            raise InstanceError(f"id: expected {found.id!r}, its namespace and name")
        return found


def _text(body: Mapping[str, Any], name: str, *, limit: int = _TEXT_MAX) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit:
        raise InstanceError(f"{name}: expected a text of at most {limit} characters")
    return value


def _match(body: Mapping[str, Any], name: str, form: re.Pattern[str], *, default: str | None = None) -> str:
    value = _text(body, name)
    if not value and default is not None:
        return default
    if not form.fullmatch(value):
        raise InstanceError(
            f"{name}: {value!r} is no valid name", hint="use lower-case letters, digits and '-'"
        )
    return value


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _ENTRIES_MAX:
        raise InstanceError(f"{name}: expected an object of at most {_ENTRIES_MAX} fields")
    return value


def _labels(value: object) -> dict[str, str]:
    labels = _object({"labels": value}, "labels")
    for key, text in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise InstanceError(
                f"labels: {key}={text} is no label",
                hint="use at most 63 letters, digits, '-', '_' and '.' each",
            )
    return dict(labels)


def _ports(value: object) -> dict[str, int]:
    ports = _object({"ports": value}, "ports")
    for name, port in ports.items():
        if type(port) is not int or not 0 < port < 65536:
            raise InstanceError(f"ports: {name}={port} is no port", hint="use a number from 1 to 65535")
    return dict(ports)


def _address(value: object) -> str:
    try:
        return str(ip_address(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise InstanceError(f"address: {value!r} is no IP address") from error
