"""One look at everything of a host: all sidecars and applications at once. Who does not answer costs nobody
else more than a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from weft.errors import WeftError
from weft.names import WORKLOAD_LABEL
from weft.node.admin import ask
from weft.node.app import Node
from weft.node.metrics import usage
from weft.node.metrics.application import fetch
from weft.node.metrics.exposition import Family, Page, of_application, of_proxy, own
from weft.node.metrics.host import labels_of, of_agent, of_workloads
from weft.node.workload import Workload

_AT_ONCE: Final = 32
_PATIENCE_S: Final = 2.0
# Of one source, and of a whole page: what comes then is left out, and said to be.
_PROXY_MAX: Final = 32 * 1024 * 1024
_APPLICATION_MAX: Final = 8 * 1024 * 1024
_PAGE_MAX: Final = 256 * 1024 * 1024
_STATISTICS: Final = "/stats/prometheus?usedonly"
_PROXY: Final = "istio-proxy"
_WRAPPER: Final = "weft-run"


@dataclass(slots=True)
class _Outcome:
    """Of one source of one workload. ``seconds``: until it had answered, or was given up."""

    workload: Workload
    source: str
    families: list[Family] = field(default_factory=list)
    seconds: float = 0.0
    dropped: int = 0
    up: bool = False


class Scraper:
    """Looks at one node; so many questions are under way at once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.options.name
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._marks = usage.Marks()

    async def look(self, only: str = "", *, seconds: float = 8.0) -> Page:
        """Everything, or with ``only`` one workload (``namespace/name``), within about so many seconds.

        Raises:
            LookupError: no such workload runs here.
        """
        began = time.monotonic()
        workloads = [one for name, one in self._node.workloads.items() if not only or name == only]
        if only and not workloads:
            raise LookupError(only)
        patience = min(_PATIENCE_S, seconds / 3)
        outcomes = [_Outcome(one, "proxy") for one in workloads]
        outcomes += [_Outcome(one, "application") for one in workloads if one.spec.scrape is not None]
        tasks = [asyncio.create_task(self._ask(outcome, patience)) for outcome in outcomes]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        page = Page()
        left_out = 0
        for outcome in outcomes:
            if page.size > _PAGE_MAX:
                outcome.up, left_out = False, left_out + 1
            else:
                page.add(outcome.families)
            outcome.families = []
        page.add(await self._use(workloads, whole=not only))
        page.add(_about(outcomes, self._name))
        page.add(of_workloads(workloads, self._name))
        if not only:
            page.add(of_agent(self._node))
            took = own("weft_node_scrape_seconds", "gauge", "How long this look at the host took.")
            took.add(time.monotonic() - began)
            page.add([took])
        return page

    async def host(self) -> str:
        """What the node knows of itself: nothing is asked of sidecars and applications."""
        page, workloads = Page(), list(self._node.workloads.values())
        page.add(await self._use(workloads, whole=True))
        page.add(of_workloads(workloads, self._name))
        page.add(of_agent(self._node))
        return b"".join(page.chunks()).decode()

    async def _ask(self, outcome: _Outcome, patience: float) -> None:
        async with self._places:
            began = time.monotonic()
            try:
                async with asyncio.timeout(patience):
                    await self._answer(outcome, patience)
                outcome.up = True
            except (WeftError, OSError, EOFError, TimeoutError):
                outcome.families = []
            finally:
                outcome.seconds = time.monotonic() - began

    async def _answer(self, outcome: _Outcome, patience: float) -> None:
        workload = outcome.workload
        spec = workload.spec
        labels = labels_of(workload, self._name)
        if outcome.source == "proxy":
            socket = workload.paths.admin_socket
            reply = await ask(socket, _STATISTICS, timeout=patience, limit=_PROXY_MAX)
            outcome.families = list(of_proxy(reply.body, labels))
            return
        assert spec.scrape is not None
        text = await fetch(spec.scrape, workload.target(), limit=_APPLICATION_MAX)
        known = {name: spec.labels[name] for name in ("app", "version") if name in spec.labels}
        # Beside the loop: what an application says is read line by line.
        read = await asyncio.to_thread(of_application, text, {**labels, **known})
        outcome.families, outcome.dropped = read

    async def _use(self, workloads: Iterable[Workload], *, whole: bool) -> list[Family]:
        cpu = own("container_cpu_usage_seconds_total", "counter", "CPU that a part of a workload used.")
        memory = own(
            "container_memory_working_set_bytes", "gauge", "Memory that cannot be taken back easily."
        )
        rss = own("container_memory_rss", "gauge", "Anonymous memory; by /proc all that is resident.")
        processes = own("container_processes", "gauge", "Processes of a part of a workload.")
        seen = []
        for workload in workloads:
            for part in parts_of(workload):
                used = part.usage
                labels = {**labels_of(workload, self._name), "container": part.container}
                seen.append(part.key)
                cpu.add(self._marks.highest(part.key, used.cpu_s), **labels)
                memory.add(used.working_set, **labels)
                rss.add(used.rss, **labels)
                processes.add(used.processes, **labels)
            await asyncio.sleep(0)
        if whole:
            self._marks.keep(seen)
        return [cpu, memory, rss, processes]


@dataclass(frozen=True, slots=True)
class Part:
    """``role``: ``proxy``, ``wrapper`` (``weft run``) or ``application``. ``container`` is its name for
    Prometheus, ``key`` what its counter of CPU is known by.
    """

    role: str
    container: str
    key: tuple[object, ...]
    usage: usage.Usage


def parts_of(workload: Workload) -> Iterator[Part]:
    """What runs of a workload, with what it uses."""
    pid = workload.sidecar.pid
    if pid is not None and (used := usage.of_process(pid)) is not None:
        yield Part("proxy", _PROXY, (workload.id, _PROXY, pid), used)
    if workload.spec.kind == "router":
        return
    container = workload.spec.labels.get(WORKLOAD_LABEL) or workload.spec.name
    processes = workload.processes()
    if not processes:
        return
    first, key = processes[0], (workload.id, container, processes)
    group, wrapped = workload.placement.app_cgroup, workload.wrapped
    if wrapped:
        if (used := usage.of_itself(first.pid)) is not None:
            yield Part("wrapper", _WRAPPER, (workload.id, _WRAPPER, processes), used)
        used = usage.of_tree(first.pid, itself=False)
    else:
        used = (usage.of_group(group) if group is not None else None) or usage.of_tree(first.pid)
    if used is not None:
        yield Part("application", container, key, used)


def _about(outcomes: Iterable[_Outcome], node: str) -> list[Family]:
    up = own("weft_node_source_up", "gauge", "Whether a sidecar, or an application, has answered.")
    took = own("weft_node_source_seconds", "gauge", "How long its answer took.")
    dropped = own("weft_node_source_dropped_lines", "gauge", "Lines that could not be passed on.")
    for outcome in outcomes:
        labels = {**labels_of(outcome.workload, node), "source": outcome.source}
        up.add(outcome.up, **labels)
        took.add(outcome.seconds, **labels)
        if outcome.source == "application":
            dropped.add(outcome.dropped, **labels)
    return [up, took, dropped]
