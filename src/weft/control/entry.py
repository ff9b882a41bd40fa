"""An instance as resources: its WorkloadEntry, and the Service that it may bring along. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from weft.instance import Instance
from weft.names import GROUP_ANNOTATION, HEALTHY, NODE_LABEL
from weft.store.interface import Stored

Wire = dict[str, Any]

ENTRY_KIND: Final = "networking.istio.io/WorkloadEntry"
GROUP_KIND: Final = "networking.istio.io/WorkloadGroup"
SERVICE_KIND: Final = "/Service"
NAMESPACE_KIND: Final = "/Namespace"

# Selects the instances that were started with --service.
SERVICE_LABEL: Final = "weft.dev/service"
# Istio's: there is a sidecar, peers may use mutual TLS (pkg/model: security.istio.io/tlsMode).
TLS_MODE_LABEL: Final = "security.istio.io/tlsMode"
# On the entry of a gateway: "router". Only such a proxy may ask for a gateway's configuration and secrets.
PROXY_ANNOTATION: Final = "weft.dev/proxy"
# Our condition of a WorkloadEntry beside HEALTHY: True, it leaves.
DRAINING: Final = "Draining"
_OWNER: Final = "node:"


@dataclass(frozen=True, slots=True)
class Times:
    """What an object keeps over its changes."""

    uid: str
    created: str

    @classmethod
    def new(cls, now: datetime) -> Self:
        """For an object that is made now."""
        return cls(str(uuid.uuid4()), stamp(now))

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Those of an object."""
        metadata = body["metadata"]
        return cls(metadata["uid"], metadata["creationTimestamp"])


def stamp(now: datetime) -> str:
    """As Kubernetes writes times."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def owner_of(node: str) -> str:
    """Who alone may change a registration."""
    return f"{_OWNER}{node}"


def node_of(stored: Stored) -> str:
    """The node that registered an entry; empty for one that was written by hand."""
    return (stored.owner or "").removeprefix(_OWNER) if (stored.owner or "").startswith(_OWNER) else ""


def entry_body(instance: Instance, node: str, times: Times, old: Wire | None, now: datetime) -> Wire:
    """The WorkloadEntry of an instance. Labels stand in the spec too, where Istio's selectors look."""
    labels = {**instance.labels, NODE_LABEL: node}
    if instance.kind == "sidecar" and instance.capture != "none":
        labels.setdefault(TLS_MODE_LABEL, "istio")
    if instance.service:
        labels.setdefault(SERVICE_LABEL, instance.service)
    labels = dict(sorted(labels.items()))
    metadata: Wire = {
        "name": instance.name,
        "namespace": instance.namespace,
        "uid": times.uid,
        "creationTimestamp": times.created,
        "generation": 1,
        "labels": labels,
    }
    annotations = {GROUP_ANNOTATION: instance.group} if instance.group else {}
    if instance.kind != "sidecar":
        annotations[PROXY_ANNOTATION] = instance.kind
    if annotations:
        metadata["annotations"] = annotations
    spec: Wire = {
        "address": instance.address,
        "ports": dict(sorted(instance.ports.items())),
        "labels": labels,
        "network": instance.network,
        "locality": instance.locality,
        "serviceAccount": instance.service_account,
    }
    spec = {name: value for name, value in spec.items() if value}
    if old is not None:
        before = old["metadata"].get("generation", 1)
        metadata["generation"] = before if old["spec"] == spec else before + 1
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": metadata,
        "spec": spec,
        "status": {"conditions": _conditions(instance, old, now)},
    }


def _conditions(instance: Instance, old: Wire | None, now: datetime) -> list[Wire]:
    healthy = _condition(HEALTHY, "Ready" if instance.ready else "NotReady", old, now, holds=instance.ready)
    if instance.message:
        healthy["message"] = instance.message
    if not instance.draining:
        return [healthy]
    return [healthy, _condition(DRAINING, "Leaving", old, now, holds=True)]


def _condition(kind: str, reason: str, old: Wire | None, now: datetime, *, holds: bool) -> Wire:
    status, since = str(holds), stamp(now)
    for condition in ((old or {}).get("status") or {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == status:
            since = condition["lastTransitionTime"]
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": since}


def service_body(instance: Instance, times: Times) -> bytes:
    """A Service for the instances that bear its name in ``weft.dev/service``, with the instance's ports.

    Its ports are the application's own, where the sidecar receives on others.
    """
    meant = {int(to): int(port) for port, to in (instance.attachment.get("inboundPorts") or {}).items()}
    ports = [
        {"name": name, "port": meant.get(port, port), "targetPort": name}
        for name, port in sorted(instance.ports.items())
    ]
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": instance.service,
            "namespace": instance.namespace,
            "uid": times.uid,
            "creationTimestamp": times.created,
        },
        "spec": {"selector": {SERVICE_LABEL: instance.service}, "ports": ports},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def namespace_body(name: str, times: Times) -> bytes:
    """A Namespace, with the label that selectors of the Gateway API rely on."""
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": times.uid,
            "creationTimestamp": times.created,
            "labels": {"kubernetes.io/metadata.name": name},
        },
        "status": {"phase": "Active"},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def from_group(instance: Instance, group: Wire) -> Instance:
    """``instance`` with what its WorkloadGroup says and it does not say itself.

    Fields: istio.io WorkloadGroup, ``spec.metadata.labels`` and ``spec.template`` (a WorkloadEntry).
    """
    spec = group.get("spec") or {}
    template = spec.get("template") or {}
    labels = {**((spec.get("metadata") or {}).get("labels") or {}), **(template.get("labels") or {})}
    account = instance.service_account
    return replace(
        instance,
        labels={**labels, **instance.labels},
        ports={**(template.get("ports") or {}), **instance.ports},
        service_account=template.get("serviceAccount") or account if account == "default" else account,
        network=instance.network or template.get("network") or "",
        locality=instance.locality or template.get("locality") or "",
    )
