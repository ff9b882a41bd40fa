"""What there is to see: one row a page, in the order of the navigation."""

from __future__ import annotations

from typing import Final

from weft.dashboard.configuration import collection, configuration, resource
from weft.dashboard.explain import explain
from weft.dashboard.graph import graph
from weft.dashboard.overview import overview
from weft.dashboard.page import Page
from weft.dashboard.proxies import proxies, proxy
from weft.dashboard.security import security
from weft.dashboard.services import service, services, workload, workloads
from weft.dashboard.traces import trace, traces

PAGES: Final[tuple[Page, ...]] = (
    Page(
        path="/",
        title="Overview",
        nav="Overview",
        icon="overview",
        key="o",
        template="overview.html",
        read=overview,
    ),
    Page(
        path="/graph",
        title="Graph",
        nav="Graph",
        icon="graph",
        key="g",
        template="graph.html",
        read=graph,
        scripts=("graph.js",),
    ),
    Page(
        path="/traces",
        title="Traces",
        nav="Traces",
        icon="traces",
        key="t",
        template="traces.html",
        read=traces,
    ),
    Page(
        path="/traces/{id}",
        title="Trace",
        below="/traces",
        template="traces_one.html",
        read=trace,
        scripts=("traces.js",),
    ),
    Page(
        path="/services",
        title="Services",
        nav="Services",
        icon="services",
        key="s",
        template="services.html",
        read=services,
    ),
    Page(
        path="/services/{namespace}/{name}",
        title="Service",
        below="/services",
        template="service.html",
        read=service,
    ),
    Page(
        path="/workloads",
        title="Workloads",
        nav="Workloads",
        icon="workloads",
        key="w",
        template="workloads.html",
        read=workloads,
    ),
    Page(
        path="/workloads/{namespace}/{name}",
        title="Workload",
        below="/workloads",
        template="workload.html",
        read=workload,
    ),
    Page(
        path="/configuration",
        title="Configuration",
        nav="Configuration",
        icon="configuration",
        key="c",
        template="configuration.html",
        read=configuration,
    ),
    Page(
        path="/configuration/{kind}",
        title="Resources",
        below="/configuration",
        template="collection.html",
        read=collection,
    ),
    Page(
        path="/configuration/{kind}/{namespace}/{name}",
        title="Resource",
        below="/configuration",
        template="resource.html",
        read=resource,
    ),
    Page(
        path="/proxies",
        title="Proxies",
        nav="Proxies",
        icon="proxies",
        key="p",
        template="proxies.html",
        read=proxies,
    ),
    Page(
        path="/proxies/{namespace}/{name}",
        title="Proxy",
        below="/proxies",
        template="proxy.html",
        read=proxy,
    ),
    Page(
        path="/explain",
        title="Explain",
        nav="Explain",
        icon="explain",
        key="e",
        template="explain.html",
        read=explain,
        live=False,
    ),
    Page(
        path="/security",
        title="Security",
        nav="Security",
        icon="security",
        key="i",
        template="security.html",
        read=security,
    ),
)

QUESTIONS: Final = frozenset(
    {"changes", "edges", "flows", "health", "records", "series", "stat", "trace", "traces", "workloads"}
)
"""Those of telemetry that scripts may ask: ``/data/QUESTION``."""
