"""A mesh whose every text was written by an attacker: what the dashboard's readers would give of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from weft.dashboard.readers import Kind, ReadError, Readers

HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}javascript:alert(3)"
SIGNALS = {
    "requests": 100, "rps": 1.5, "errors": 50, "refused": 1, "success": 0.5, "mean": 3.0, "p50": 1.0,
    "p95": 9.0, "p99": 12.0, "mtls": 0.5, "opened": 1, "closed": 1, "connections": 1, "sent": 1,
    "received": 1, "sentPerSecond": 0.1, "receivedPerSecond": 0.1,
}  # fmt: skip
WHO = {"namespace": "a", "workload": "a", "app": "a", "version": "a", "principal": "a", "kind": "a"}
OUTSIDE = {**WHO, "workload": "", "kind": "outside"}
SERVICE = {"name": "a", "namespace": "a", "host": "a"}
REF = {"kind": "a", "namespace": "a", "name": "a", "file": "a", "line": 1}
RULE = {
    "kind": "a", "index": 0, "name": "a", "line": 0, "matches": ["a"], "mirrors": [], "does": ["a"],
    "destinations": [{"host": "a", "subset": "a", "port": 1, "weight": 5}] * 2, "toService": True,
}  # fmt: skip
TYPE = {
    "status": "NACK", "sent": "1", "acknowledged": "", "sentAt": 1.0, "acknowledgedAt": None,
    "ageSeconds": None, "error": "a",
}  # fmt: skip
PROXY = {
    "proxy": "a", "name": "a", "namespace": "a", "kind": "a", "address": "a", "version": "a", "revision": 1,
    "connectedAt": 1.0, "types": dict.fromkeys(("cds", "lds", "eds", "rds", "sds"), TYPE),
    "rejected": [{"type": "a", "name": "a", "error": "a", "sources": ["a"]}],
}  # fmt: skip
FINDING = {"code": "a", "level": "Error", "message": "a", "origin": "a", "reference": "a", "line": 1}
ROOT = {"subject": "a", "serial": "a", "key": "a", "notBefore": "a", "notAfter": "a", "signs": True}
FLOW = {
    "source": "a", "kind": "a", "namespace": "a", "workload": "a", "policy": "a", "shadow": "a",
    "shadow_policy": "a", "method": "a", "path": "a", "sni": "a", "port": 80, "decision": "a", "count": 1,
    "last": 5, "service": "a",
}  # fmt: skip
METADATA = {
    "name": "a", "namespace": "a", "creationTimestamp": "a", "annotations": {"a": "a"},
    "resourceVersion": "a", "generation": 1,
}  # fmt: skip
OBJECT = {
    "kind": "a", "metadata": METADATA, "spec": {"a": {"a": ["a"]}},
    "status": {"conditions": [{"type": "a", "status": "a", "reason": "a", "message": "a"}]},
}  # fmt: skip
ROW = {"key": "a", "namespace": "a", "workload": "a", "version": "a", "source": WHO, **SIGNALS}

ANSWERS: dict[str, Any] = {
    "/weft/v1/telemetry/workloads": {
        "workloads": [{**WHO, "principals": ["a"], "services": ["a"], "instances": 1, "inbound": SIGNALS}],
        "services": [{**SERVICE, "workloads": ["a"], "inbound": SIGNALS}],
        "total": SIGNALS,
    },
    "/weft/v1/telemetry/stat": {"rows": [ROW], "total": SIGNALS},
    "/weft/v1/telemetry/edges": {
        "edges": [
            {**SIGNALS, "source": WHO, "destination": end, "service": SERVICE, "protocol": "a",
             "secured": False,
             "failures": [{"code": "a", "grpc": "", "flags": "a", "requests": 5, "failed": True}]}
            for end in (WHO, OUTSIDE)
        ]
    },
    "/weft/v1/telemetry/series": {"times": [1, 2], "series": [{"key": "a", "values": [1.0, None]}]},
    "/weft/v1/telemetry/changes": {
        "changes": [
            {"time": 5, "who": "a", "verb": "a", "kind": "a", "group": "a", "namespace": "a", "name": "a",
             "revision": 1}
        ]
    },
    "/weft/v1/telemetry/flows": {"flows": [FLOW]},
    "/weft/v1/usage": {
        "usage": [
            {"namespace": "a", "name": "a", "workload": "a", "node": "a", "application": None,
             "wrapper": None, "proxy": {"cpu": 0.012, "memory": 5_000_000, "processes": 1, "seconds": 2.0}}
        ],
        "failed": {"a": "a"},
    },
    "/weft/v1/proxies": {"proxies": [PROXY]},
    "/weft/v1/convergence/0": {
        "latest": 5, "total": 2, "missing": ["a"], "rejected": [{"proxy": "a", "name": "a", "error": "a"}]
    },
    "/weft/v1/ca": {
        "trustDomain": "a", "trustDomains": ["a", "a"], "issuer": ROOT, "roots": [ROOT], "revoked": 1,
        "rotation": {"phase": "a"}, "warnings": ["a"],
        "nodes": [{"name": "a", "connected": False, "parts": [{"name": "a", "notAfter": 1}]}],
    },
    "/weft/v1/ca/certificates": {
        "certificates": [
            {"identity": "a", "node": "a", "issued": 5, "notAfter": 9_000_000_000_000, "revoked": False}
        ]
    },
}  # fmt: skip
TABLE = {
    "columnDefinitions": [{"name": "Name"}, {"name": "Is", "priority": 0}],
    "rows": [{"cells": ["a", "a"], "object": {"metadata": METADATA}}],
}
REPORT = {
    "hosts": ["a"],
    "ports": [{"number": 1, "name": "a", "targetPort": "a", "protocol": "a", "decidedBy": "a"}],
    "endpoints": [{"workload": REF, "address": "a", "health": "a", "mesh": True, "subsets": ["a"]}],
    "destinationRules": [{**REF, "policy": ["a"], "tls": "a", "subsets": [], "effective": False}],
    "virtualServices": [{**REF, "rules": [RULE]}], "routes": [],
    "exposed": [{"gateway": REF, "via": REF, "urls": ["a"]}],
    "mutualTls": [{"port": 1, "mode": "a", "decidedBy": REF}],
    "policies": [{**REF, "action": "a", "rules": "a", "scope": "a"}], "findings": [FINDING],
    "replicas": [{"name": "a", "address": "a", "health": "a", "node": "a"}], "identity": "a",
    "serviceAccount": "a", "labels": {"a": "a"}, "services": [REF], "inMesh": True,
}  # fmt: skip
ANSWER = {
    "delivered": "some",
    "arrivals": [
        {"endpoints": [{"address": "a", "port": 1, "workload": "a"}], "more": 1, "detail": "a",
         "answer": {"action": "a", "status": 403, "trace": [{"step": "a", "detail": "a"}]}},
        {"endpoints": [{"address": "a", "port": 1, "workload": None}], "more": 0, "detail": "a",
         "answer": None},
    ],
    "action": "a", "status": 200, "error": "a", "redirect": {"location": "a"}, "virtualHost": "a",
    "route": {**REF, "rule": 0}, "authz": {"decision": "a", "policy": "a"}, "timeout": "a",
    "upstream": {
        "tls": "mtls",
        "destinations": [
            {"service": "a", "namespace": "a", "port": 1, "subset": "a", "weight": 1, "cluster": "a"}
        ],
    },
    "retries": {"attempts": 1, "on": ["a"], "codes": []}, "mirrors": [{"service": "a", "percent": 1}],
    "fault": {"abort": {"status": 500, "percent": 1}, "delay": {"duration": "a", "percent": 1}},
    "trace": [{"step": "a", "detail": "a", "file": "a", "line": 1}],
}  # fmt: skip


def poisoned(value: Any) -> Any:
    """The same with what an attacker would write, for every text that one could have written."""
    if value == "a":
        return HOSTILE
    if isinstance(value, Mapping):
        return {poisoned(key): poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return value


def readers(fails: ReadError | None = None) -> Readers:
    """Readers of that mesh; with ``fails`` none of them answers."""

    async def answer(value: Any) -> Any:
        await asyncio.sleep(0)
        if fails is not None:
            raise fails
        return poisoned(value)

    async def get(path: str, query: Mapping[str, str] | None = None, *, table: bool = False) -> Any:
        if path in ANSWERS:
            return await answer(ANSWERS[path])
        if path.startswith("/weft/v1/proxies/"):
            return await answer(PROXY)
        if table:
            return await answer(TABLE)
        named = path.count("/") > (6 if path.startswith("/apis") else 5)
        return await answer(OBJECT if named else {"items": [OBJECT]})

    async def kinds() -> tuple[Kind, ...]:
        return (Kind("a", "v1", "Thing", "things", namespaced=True),)

    return Readers(
        get=get,
        kinds=kinds,
        proxy_table=lambda name, kind: answer({"columns": ["a", "a"], "rows": [["a", "a"]]}),
        trace=lambda identity: answer({}),
        explain=lambda question: answer(ANSWER),
        describe=lambda kind, namespace, name: answer(REPORT),
        findings=lambda: answer([FINDING]),
        objects=lambda: answer([{**OBJECT, "apiVersion": "v1"}]),
        flags=lambda text: [{"flag": text, "meaning": poisoned("a"), "remedy": poisoned("a")}],
    )
