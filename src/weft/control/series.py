"""What the control plane tells of itself whenever it is asked: counted at that moment, kept nowhere.

Names are Istio's where its dashboards ask for them, and cAdvisor's for what it uses of its host.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weft import __version__
from weft.compile.world import World
from weft.control.metrics import Metrics
from weft.identity.ca import Authority
from weft.model.service import Service
from weft.model.service_entry import ServiceEntry
from weft.model.virtual_service import VirtualService
from weft.names import ROOT_NAMESPACE

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DISCOVERY: Final = "discovery"
_TELEMETRY: Final = "telemetry"


class Facts(Collector):
    """``telemetry`` gives the pid of its process, ``nodes`` the names of those that are connected."""

    def __init__(
        self,
        *,
        world: Callable[[], World],
        authority: Callable[[], Authority],
        now: Callable[[], datetime],
        nodes: Callable[[], Sized],
        telemetry: Callable[[], int | None],
    ) -> None:
        self._world = world
        self._authority = authority
        self._now = now
        self._nodes = nodes
        self._telemetry = telemetry

    def register(self, metrics: Metrics) -> None:
        """Be asked with the others, and with what every process tells."""
        metrics.registry.register(self)
        ProcessCollector(registry=metrics.registry)

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks for it."""
        build = GaugeMetricFamily(
            "istio_build", "Which version a part of the mesh is of.", labels=["component", "tag"]
        )
        build.add_metric(["pilot", __version__], 1)
        yield build
        yield from self._configuration()
        yield from self._certificates()
        yield GaugeMetricFamily(
            "weft_telemetry_up", "Whether the telemetry process runs.", value=self._telemetry() is not None
        )
        yield from self._use()

    def _configuration(self) -> Iterator[Metric]:
        world = self._world()
        hosts = sum(len(entry.spec.hosts or ()) for entry in world.held(ServiceEntry).values())
        yield GaugeMetricFamily(
            "pilot_services",
            "Services that are known, those of ServiceEntries included.",
            value=len(world.held(Service)) + hosts,
        )
        yield GaugeMetricFamily(
            "pilot_virt_services", "VirtualServices that are known.", value=len(world.held(VirtualService))
        )
        yield GaugeMetricFamily(
            "weft_nodes_connected", "Nodes whose session stands.", value=len(self._nodes())
        )

    def _certificates(self) -> Iterator[Metric]:
        authority, now = self._authority(), self._now()
        chain: Iterable[x509.Certificate] = authority.chain or (authority.issuer,)
        for what, until in (
            ("root_cert", min(root.not_valid_after_utc for root in authority.roots)),
            ("cert_chain", min(one.not_valid_after_utc for one in chain)),
        ):
            yield GaugeMetricFamily(
                f"citadel_server_{what}_expiry_timestamp",
                "When it expires (Unix time): of several, the first that does.",
                value=until.timestamp(),
            )
            yield GaugeMetricFamily(
                f"citadel_server_{what}_expiry_seconds",
                "The time until then.",
                value=(until - now).total_seconds(),
            )

    def _use(self) -> Iterator[Metric]:
        labels = ["namespace", "pod", "container"]
        cpu = CounterMetricFamily("container_cpu_usage_seconds", "CPU used.", labels=labels)
        memory = GaugeMetricFamily("container_memory_working_set_bytes", "Resident memory.", labels=labels)
        pod = f"istiod-{socket.gethostname()}"
        for container, pid in ((_DISCOVERY, os.getpid()), (_TELEMETRY, self._telemetry())):
            used = _used(pid) if pid is not None else None
            if used is not None:
                cpu.add_metric([ROOT_NAMESPACE, pod, container], used[0])
                memory.add_metric([ROOT_NAMESPACE, pod, container], used[1])
        yield cpu
        yield memory


def _used(pid: int) -> tuple[float, int] | None:
    """Seconds of CPU and bytes of memory of a process, or None when it is gone (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE
