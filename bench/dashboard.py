"""How long pages of the dashboard take to load in a browser, and a change to be seen.

    python bench/dashboard.py [--workloads 20 1000] [--rounds 3]

A real control plane with so many workloads (ten to a service), a telemetry store that has seen an hour of
them (``filling.py``), ``weft dashboard`` in front of it, headless Chromium. ``cold_ms``: the first visit,
with nothing in the browser's cache; ``ms``: the median of those after. Both until DOMContentLoaded, when
the page is whole with its figures; ``charts_ms``: until the last answer that a chart is drawn from.
``kb``: what came over the wire, cold and later. ``server_cpu_ms``: CPU time of the dashboard, the control
plane and the telemetry process for one load, with its charts and its first live reading. ``update_ms``:
from the answer of the API that a Service was made until its row stands in the open page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

sys.path.insert(0, str(Path(__file__).parent))

from filling import Clock, fill
from host import Host, cpu_seconds, host
from telemetry import _child
from tests.support.ports import free_port

PAGES = {
    "overview": "/",
    "graph": "/graph?window=15m",
    "services": "/services?window=15m",
    "service": "/services/bench/s1?window=15m",
    "workloads": "/workloads?window=15m",
    "workload": "/workloads/bench/s1-v1?window=15m",
    "traces": "/traces",
    "configuration": "/configuration",
    "resources": "/configuration/workloadentries.networking.istio.io",
    "proxies": "/proxies",
    "security": "/security",
    "explain": "/explain",
}
_TIMES = """() => {
  const page = performance.getEntriesByType("navigation")[0];
  const data = performance.getEntriesByType("resource").filter((one) => one.name.includes("/data/"));
  return {
    ready: page.domContentLoadedEventEnd,
    first: page.responseStart,
    charts: Math.max(0, ...data.map((one) => one.responseEnd) ),
  };
}"""
_QUIET_S = 0.4


def resources(workloads: int) -> list[dict[str, Any]]:
    """Services and their workloads, named as ``filling`` names them."""
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    ]  # fmt: skip
    for number in range(workloads):
        name, version = f"s{number // 10}", f"v{number % 10}"
        if not number % 10:
            spec: dict[str, Any] = {
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 8080, "targetPort": 8080}],
            }
            metadata = {"name": name, "namespace": "bench"}
            found.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        spec = {
            "address": f"10.9.{number // 250}.{number % 250 + 1}", "serviceAccount": name,
            "labels": {"app": name, "version": version}, "ports": {"http": 8080},
        }  # fmt: skip
        metadata = {"name": f"{name}-{version}", "namespace": "bench"}
        found.append(
            {
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata,
                "spec": spec,
            }
        )  # fmt: skip
    return found


async def settled(page: Page) -> None:
    """Until nothing has been asked for some tenths of a second; what is live goes on for ever."""
    seen = -1
    while True:
        count = await page.evaluate(
            "performance.getEntriesByType('resource').filter((one) => one.responseEnd).length"
        )
        if count == seen:
            return
        seen = count
        await asyncio.sleep(_QUIET_S)


async def load(page: Page, base: str, path: str, pids: list[int]) -> dict[str, float]:
    """One load."""
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    size = 0

    def came(event: dict[str, Any]) -> None:
        nonlocal size
        size += event["encodedDataLength"]

    session.on("Network.loadingFinished", came)
    before = sum(map(cpu_seconds, pids))
    answer = await page.goto(base + path, wait_until="load", timeout=120_000)
    assert answer is not None
    assert answer.status == 200, (path, answer.status)
    await settled(page)
    times: dict[str, float] = await page.evaluate(_TIMES)
    await session.detach()
    used = sum(map(cpu_seconds, pids)) - before
    return {**times, "kb": size / 1e3, "cpu": used * 1e3}


async def pages(context: BrowserContext, base: str, rounds: int, pids: list[int]) -> dict[str, Any]:
    """Every page, cold and later."""
    found = {}
    for name, path in PAGES.items():
        page = await context.new_page()
        session = await context.new_cdp_session(page)
        await session.send("Network.clearBrowserCache")
        cold = await load(page, base, path, pids)
        warm = [await load(page, base, path, pids) for _ in range(rounds)]
        await page.close()

        def median(what: str, loads: list[dict[str, float]] = warm) -> int:
            return round(statistics.median(one[what] for one in loads))

        found[name] = {
            "cold_ms": round(cold["ready"]),
            "ms": median("ready"),
            "first_byte_ms": median("first"),
            "charts_ms": median("charts"),
            "kb": [round(cold["kb"]), median("kb")],
            "server_cpu_ms": median("cpu"),
        }
        print(name, found[name], file=sys.stderr, flush=True)
    return found


async def updates(made: Host, context: BrowserContext, base: str, rounds: int) -> dict[str, Any]:
    """New services, until they stand in the list that is open."""
    page = await context.new_page()
    await page.goto(f"{base}/services?window=15m", wait_until="load")
    times = []
    async with made.client() as client:
        for turn in range(rounds + 2):
            name = f"late-{turn}"
            metadata = {"name": name, "namespace": "bench"}
            spec = {"ports": [{"name": "http", "port": 8080}]}
            await client.apply([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])
            began = time.monotonic()
            await page.locator(f"tr[data-key='bench/{name}']").wait_for(timeout=60_000)
            times.append((time.monotonic() - began) * 1e3)
    await page.close()
    return {"median_ms": round(statistics.median(times)), "worst_ms": round(max(times))}


async def entered(browser: Browser, link: str) -> BrowserContext:
    """A browser that came in by the link that works once."""
    context = await browser.new_context(viewport={"width": 1280, "height": 860})
    page = await context.new_page()
    await page.goto(link)
    await page.close()
    return context


async def measure(workloads: int, rounds: int) -> dict[str, Any]:
    async def prepared(state: Path) -> None:
        store = await fill(
            state / "telemetry" / "telemetry.db", workloads, 1, Clock(time.time_ns() // 1_000_000)
        )
        await store.close()

    async with host(node=False, before=prepared) as made:
        async with made.client() as client:
            await client.apply(resources(workloads), wait=True, seconds=120)
        made.start(
            "dashboard", "dashboard", "--no-open", "--port", str(free_port()), "--server", str(made.api)
        )
        log = made.directory / "dashboard.log"
        await made.wait("dashboard", lambda: "token=" in log.read_text())
        said = re.search(r"dashboard: (\S+)", log.read_text())
        assert said is not None
        control, shown = (made.children[name].pid for name in ("control", "dashboard"))
        base = said[1].partition("/enter")[0]
        async with async_playwright() as play:
            browser = await play.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            try:
                context = await entered(browser, said[1])
                found = await pages(context, base, rounds, [control, shown, _child(control)])
                return {"pages": found, "update_ms": await updates(made, context, base, rounds)}
            finally:
                await browser.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=int, nargs="+", default=[20, 1_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        json.dumps(
            {
                f"{workloads} workloads": asyncio.run(measure(workloads, options.rounds))
                for workloads in options.workloads
            }
        )
    )


if __name__ == "__main__":
    main()
