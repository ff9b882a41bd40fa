"""What the API itself writes into objects: uid, times, generation; and which fields which path may change.

Pure: the clock and the identifiers are arguments.
"""

from __future__ import annotations

import secrets
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from weft.control.api.status import bad_request
from weft.model.catalog import RBAC, KindRow
from weft.model.resource import Key
from weft.names import NODE_LABEL
from weft.store.interface import Stored

Wire = dict[str, Any]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_SERVER_SET: Final = ("uid", "creationTimestamp", "deletionTimestamp", "generation")
_NEVER_STORED: Final = ("resourceVersion", "managedFields", "selfLink")
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When, in the form of the wire."""

    time: str

    @classmethod
    def now(cls) -> Stamp:
        """The present, to the second."""
        return cls(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def key_of(row: KindRow, namespace: str, name: str) -> Key:
    """The key of an object; the namespace of cluster-wide kinds is empty."""
    return Key(row.id, namespace if row.namespaced else "", name)


def encode(wire: Mapping[str, Any]) -> bytes:
    """An object as stored."""
    return msgspec.json.encode(wire)


def decode(stored: Stored) -> Wire:
    """An object as stored, without ``resourceVersion``."""
    wire: Wire = msgspec.json.decode(stored.body)
    return wire


def present(stored: Stored, row: KindRow, version: str | None = None) -> Wire:
    """An object as it goes over the wire, in the version that is asked for."""
    wire = decode(stored)
    body: Wire = {"apiVersion": row.api_version_of(version or row.versions[0]), "kind": row.kind}
    body.update((name, value) for name, value in wire.items() if name not in body)
    body["metadata"] = {**wire["metadata"], "resourceVersion": str(stored.revision)}
    return body


def arrive(row: KindRow, body: Any, namespace: str, name: str | None) -> Wire:
    """A body as sent, in the storage version and without what is never stored.

    ``namespace`` and ``name`` are those of the path (``name`` None when it has none).

    Raises:
        ApiError: 400 when the body is another kind or object than the path's.
    """
    if not isinstance(body, dict):
        raise bad_request("the body is no object")
    said_group, _, said_version = str(body.get("apiVersion") or row.api_version).rpartition("/")
    if body.get("kind", row.kind) != row.kind or said_group != row.group or said_version not in row.versions:
        said = f"{body.get('apiVersion')} {body.get('kind')}"
        raise bad_request(f"the body is {said}, the path wants {row.api_version} {row.kind}")
    found = body.get("metadata")
    if found is not None and not isinstance(found, dict):
        raise bad_request("metadata is no object")
    metadata = {field: value for field, value in (found or {}).items() if field not in _NEVER_STORED}
    if row.namespaced:
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    elif metadata.pop("namespace", None):
        raise bad_request(f"{row.kind} is not namespaced: remove metadata.namespace")
    if name is not None and metadata.setdefault("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the path's ({name})")
    rest = {field: value for field, value in body.items() if field not in {"apiVersion", "kind", "metadata"}}
    if row.kind == "EndpointSlice" and isinstance(rest.get("ports"), list):
        rest["ports"] = [_with_defaults(port) for port in rest["ports"]]
    if row.kind == "Secret":
        rest = _folded(rest)
    return {"apiVersion": row.api_version, "kind": row.kind, "metadata": metadata, **rest}


def _folded(rest: Wire) -> Wire:
    """A Secret's ``stringData`` as ``data``, where it wins: it is only ever written (Kubernetes' Secret)."""
    plain, data = rest.get("stringData"), rest.get("data") or {}
    if not isinstance(plain, dict) or not isinstance(data, dict) or not _texts(plain):
        return rest
    told = {key: b64encode(text.encode()).decode() for key, text in plain.items()}
    return {**{key: value for key, value in rest.items() if key != "stringData"}, "data": {**data, **told}}


def _texts(plain: Wire) -> bool:
    return all(isinstance(key, str) and isinstance(text, str) for key, text in plain.items())


def _with_defaults(port: Any) -> Any:
    """Kubernetes' defaults, without which kubectl describe dereferences nothing and panics."""
    return {"name": "", "protocol": "TCP", **port} if isinstance(port, dict) else port


def born(row: KindRow, wire: Wire, stamp: Stamp) -> Wire:
    """A new object: named, stamped, at generation 1, its status still to come."""
    metadata = {field: value for field, value in wire["metadata"].items() if field not in _SERVER_SET}
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
        metadata["name"] = f"{metadata['generateName']}{suffix}"
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = stamp.time
    if _counts_generations(row):
        metadata["generation"] = 1
    _label_namespace(row, metadata)
    result = {**wire, "metadata": metadata}
    if row.status:
        result.pop("status", None)
    if row.kind == "Namespace" and not row.group:
        result["status"] = {"phase": "Active"}
    return result


def changed(row: KindRow, old: Wire, new: Wire) -> Wire:
    """``new`` as the successor of ``old``: identity and status stay, a new spec is a new generation."""
    metadata = {field: value for field, value in new["metadata"].items() if field not in _SERVER_SET}
    for field in _SERVER_SET:
        if field in old["metadata"]:
            metadata[field] = old["metadata"][field]
    _label_namespace(row, metadata)
    result = {**new, "metadata": metadata}
    if row.status:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    if _counts_generations(row) and _content(old) != _content(result):
        metadata["generation"] = old["metadata"].get("generation", 0) + 1
    return result


def _label_namespace(row: KindRow, metadata: Wire) -> None:
    """Every namespace bears its name as a label, which selectors of the Gateway API rely on."""
    if row.kind == "Namespace" and not row.group and metadata.get("name"):
        labels = metadata.get("labels")
        metadata["labels"] = {**(labels or {}), "kubernetes.io/metadata.name": metadata["name"]}


def with_status(old: Wire, new: Wire) -> Wire:
    """``old`` with the status of ``new``: what the status subresource may change."""
    result = {field: value for field, value in old.items() if field != "status"}
    if new.get("status") is not None:
        result["status"] = new["status"]
    return result


def same(old: Wire, new: Wire) -> bool:
    """Whether they differ in nothing but kubectl's note of what it applied last."""
    return _without_note(old) == _without_note(new)


def _without_note(wire: Wire) -> Wire:
    metadata = dict(wire["metadata"])
    notes = {name: text for name, text in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    metadata.pop("annotations", None)
    if notes:
        metadata["annotations"] = notes
    return {**wire, "metadata": metadata}


def _content(wire: Wire) -> Wire:
    return {name: value for name, value in wire.items() if name not in {"metadata", "status"}}


def _counts_generations(row: KindRow) -> bool:
    return bool(row.group) and row.group != RBAC  # of Kubernetes' own kinds here, none has one


def in_history(row: KindRow, wire: Wire) -> bool:
    """Registrations (a WorkloadEntry of a node, a Workload or a group) are not history."""
    if row.kind != "WorkloadEntry":
        return True
    metadata = wire["metadata"]
    return NODE_LABEL not in (metadata.get("labels") or {}) and not metadata.get("ownerReferences")
