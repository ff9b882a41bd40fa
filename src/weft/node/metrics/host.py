"""The node's own series: its sidecars, certificates, capture, and itself."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Final

from weft import __version__
from weft.node.app import Node
from weft.node.metrics.exposition import Family, own
from weft.node.workload import Workload

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def labels_of(workload: Workload, node: str) -> dict[str, str]:
    """What tells a workload's series from those of its siblings: the names that Prometheus has for pods.

    A gateway has one name on all hosts, so that of the host stands behind it. Istio's dashboards look for
    ``istio-ingressgateway-.*``.
    """
    spec = workload.spec
    return {"namespace": spec.namespace, "pod": f"{spec.name}-{node}" if spec.kind == "router" else spec.name}


def of_workloads(workloads: Collection[Workload], node: str) -> list[Family]:
    """What the agent of a host knows of these, at this moment."""
    build = own("istio_build", "gauge", "Which version a part of the mesh is of.")
    ready = own("weft_node_workload_ready", "gauge", "Whether a workload may get traffic.")
    running = own("weft_node_sidecar_running", "gauge", "Whether a workload's Envoy runs.")
    restarts = own("weft_node_sidecar_restarts_total", "counter", "Envoys that had to be started again.")
    again = own(
        "weft_node_application_restarts_total", "counter", "Applications that had to be started again."
    )
    expiry = own(
        "weft_node_certificate_expiration_timestamp_seconds",
        "gauge",
        "When a workload's certificate expires.",
    )
    capture = own("weft_node_capture_info", "gauge", "How a workload's traffic is led through its sidecar.")
    counts: Counter[tuple[str, str]] = Counter()
    for workload in workloads:
        spec = workload.spec
        labels = labels_of(workload, node)
        build.add(1, component="proxy", tag=__version__, **labels)
        ready.add(workload.ready, **labels)
        running.add(workload.sidecar.pid is not None, **labels)
        restarts.add(workload.sidecar.restarts, **labels)
        if workload.application is not None:
            again.add(workload.application.restarts, **labels)
        if (until := workload.expires) is not None:
            expiry.add(until.timestamp(), **labels)
        capture.add(1, **labels, mode=str(workload.placement.mode))
        counts[spec.kind, workload.state] += 1
    number = own("weft_node_workloads", "gauge", "Workloads (sidecar) and gateways (router) by their state.")
    for (kind, state), count in sorted(counts.items()):
        number.add(count, kind=kind, state=state)
    return [build, ready, running, restarts, again, expiry, capture, number]


def of_agent(node: Node) -> list[Family]:
    """What it knows of itself."""
    info = own("weft_node_info", "gauge", "Which agent this is.")
    info.add(1, node=node.options.name, version=__version__, capture=node.options.capture)
    connected = own(
        "weft_node_control_plane_connected", "gauge", "Whether the session with the control plane stands."
    )
    connected.add(node.link.connected)
    names = own("weft_node_names", "gauge", "Host names that this node answers for.")
    names.add(len(node.names))
    dns = own("weft_node_dns_running", "gauge", "Whether the process runs that answers for names.")
    dns.add(node.resolver.pid is not None)
    return [info, connected, names, dns, *_process()]


def _process() -> list[Family]:
    """Under the names that Prometheus' own clients have."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    cpu = own("process_cpu_seconds_total", "counter", "CPU that the node agent used.")
    cpu.add((int(fields[11]) + int(fields[12])) / _TICKS)
    rss = own("process_resident_memory_bytes", "gauge", "Resident memory of the node agent.")
    rss.add(int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
    virtual = own("process_virtual_memory_bytes", "gauge", "Virtual memory of the node agent.")
    virtual.add(int(fields[20]))
    files = own("process_open_fds", "gauge", "Files that the node agent has open.")
    files.add(len(list(Path("/proc/self/fd").iterdir())))
    start = own("process_start_time_seconds", "gauge", "When the node agent was started.")
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    start.add(round(time.time() - up_s + int(fields[19]) / _TICKS, 2))
    return [cpu, rss, virtual, files, start]
