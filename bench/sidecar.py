"""From ``weft run`` to the start of the application, as root by nft and as an ordinary user by seccomp; and
what a node, a further workload in it, and a wrapper weigh.

    python bench/sidecar.py [--rounds 15] [--workloads 20]

Needs root. ``run_ms`` is from the execution of ``weft run`` until the application speaks: command line,
admission, certificate, Envoy started and configured, registration. ``node_ms`` is the node's part of it: from
its request to ``ready``, by its own events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from host import Host, host, memory

# The application's only work is to say when it began, on the clock that all processes share.
APPLICATION = ("/bin/sh", "-c", "date +%s.%N; exec sleep 3600")


def weft_run(name: str, capture: str) -> list[str]:
    return ["run", "--name", name, "--service", name, "--capture", capture, "-q"]


async def time_run(made: Host, capture: str, number: int) -> float:
    """Milliseconds of one ``weft run``."""
    name = f"app-{number}"
    argv = [*weft_run(name, capture), "--mesh", made.mesh, "-p", f"http:{20000 + number}", "--", *APPLICATION]
    began = time.time()
    child = made.start(name, *argv, pipe=True)
    assert child.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(child.stdout.readline), 60)
    if not line:
        raise RuntimeError((made.directory / f"{name}.log").read_text())
    return (float(line) - began) * 1e3


async def time_steps(made: Host, number: int) -> dict[str, float]:
    """Milliseconds from a request to each of the node's events, for a workload without an application."""
    request = {
        "op": "join", "name": f"steps-{number}", "service": f"steps-{number}",
        "ports": {"http": 21000 + number}, "capture": "none",
    }  # fmt: skip
    began, found = time.monotonic(), {}
    async with aclosing(made.node.events(request)) as events:
        async for event in events:
            taken = (time.monotonic() - began) * 1e3
            if event["event"] == "ready":
                found["node_ms"] = taken
                break
            found[f"{event.get('step', event['event'])}_at_ms"] = taken
    return found


async def measure(rounds: int, workloads: int, *, rootless: bool) -> dict[str, Any]:
    capture = "seccomp" if rootless else "nft"
    async with host(rootless=rootless) as made:
        node = made.children["node"].pid
        taken: list[float] = []
        steps: list[dict[str, float]] = []
        for number in range(rounds):
            taken.append(await time_run(made, capture, number))
            await made.stop(f"app-{number}")
            steps.append(await time_steps(made, number))
        result: dict[str, Any] = {
            "capture": capture,
            "run_ms": {"median": round(statistics.median(taken), 1), "best": round(min(taken), 1)},
            "node": {
                key: round(statistics.median(one[key] for one in steps if key in one), 1) for key in steps[-1]
            },
        }
        await made.wait("node", lambda: not [*(made.runtime / "workloads").glob("*")])
        empty = memory(node)
        for number in range(workloads):
            await time_run(made, capture, 1000 + number)
        full = memory(node)
        wrapper = made.children["app-1000"].pid
        result["node_memory"] = {"empty": empty, "full": full, "workloads": workloads}
        result["node_further_workload_mb"] = round((full["rss_mb"] - empty["rss_mb"]) / workloads, 2)
        result["wrapper"] = memory(wrapper)
        result["envoys"] = [
            memory(json.loads(path.read_text())["pid"])
            for path in sorted((made.runtime / "workloads").glob("default.app-100[0-2]/envoy.pid"))
        ]
        result["control_plane"] = memory(made.children["control"].pid)
        return result


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workloads", type=int, default=20)
    parser.add_argument("--only", choices=["root", "rootless"])
    given = parser.parse_args()
    result = {
        name: await measure(given.rounds, given.workloads, rootless=name == "rootless")
        for name in ("root", "rootless")
        if given.only in {None, name}
    }
    print(json.dumps(result))


asyncio.run(main())
