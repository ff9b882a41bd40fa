"""From Workloads to the processes that shall run: pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.model.resource import dump
from weft.model.workload import Workload
from weft.names import WORKLOAD_LABEL

# What the node has to know of the annotations.
_SCRAPING: Final = "prometheus.io/"


@dataclass(frozen=True, slots=True)
class Replica:
    """One process. ``request`` is what the node is asked (``add``); ``version`` differs when it does."""

    id: str
    request: Mapping[str, Any]
    version: str


def replicas(workloads: Iterable[Workload]) -> dict[str, Replica]:
    """Every replica of every Workload by its id, ``namespace/name-0`` and so on."""
    found: dict[str, Replica] = {}
    for workload in workloads:
        count = 1 if workload.spec.replicas is None else workload.spec.replicas
        for number in range(count):
            replica = _replica(workload, number)
            found[replica.id] = replica
    return found


def _replica(workload: Workload, number: int) -> Replica:
    spec, metadata = workload.spec, workload.metadata
    wire = dump(workload)["spec"]
    name = f"{metadata.name}-{number}"
    request = {
        "name": name,
        "namespace": metadata.namespace,
        "serviceAccount": spec.service_account or "default",
        "labels": {**(metadata.labels or {}), WORKLOAD_LABEL: metadata.name},
        "ports": {port.name: port.port for port in spec.ports or ()},
        "command": list(spec.command),
        "workingDir": spec.working_dir,
        "env": {variable.name: variable.value or "" for variable in spec.env or ()},
        "ownNetwork": True,
        "annotations": {
            key: text for key, text in (metadata.annotations or {}).items() if key.startswith(_SCRAPING)
        },
        "readinessProbe": wire.get("readinessProbe"),
        "livenessProbe": wire.get("livenessProbe"),
    }
    version = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    return Replica(f"{metadata.namespace}/{name}", request, version)
