"""Flows for tests, as the telemetry store tells them."""

from __future__ import annotations

from typing import Any

from weft.spiffe import SpiffeId
from weft.telemetry.flows import FlowTable
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.otlp import Report, Reporter

NOW_MS = 1_800_000_000_000


def spiffe(account: str, namespace: str = "default") -> str:
    """Of the usual trust domain."""
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def report(
    workload: str = "reviews",
    source: str = "web",
    *,
    namespace: str = "default",
    port: int = 9080,
    time_ms: int = NOW_MS,
    kind: str = "sidecar",
    **fields: str,
) -> Report:
    """What a sidecar tells of one request; ``source`` is a service account, empty for plaintext.

    Without a ``path`` it is a connection.
    """
    said = {
        "source": spiffe(source) if source else "",
        "cluster": f"inbound|{port}||" if kind == "sidecar" else "",
        "port": str(port),
        "source_ip": "10.0.0.9",
        "remote_ip": "10.0.0.9",
        "tls": "TLSv1.3" if source else "",
        "share": "1000000",
    }
    if "path" in fields:
        said |= {"method": "GET", "host": workload, "code": "200", "details": "via_upstream"}
    said |= fields
    identity = SpiffeId("cluster.local", namespace, workload)
    reporter = Reporter(identity, f"{workload}-0", workload, kind)
    return Report(reporter, time_ms, {key: value for key, value in said.items() if value})


def rows(*reports: Report) -> list[dict[str, Any]]:
    """The flows that these make, as JSON."""
    table = FlowTable(Limits(), Losses())
    for one in reports:
        table.add(one)
    return [flow.to_dict() for flow in table.flows(None, 0)]
