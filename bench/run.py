"""Run benchmarks and record what they measured: ``make bench`` or ``make bench ARGS="cli compile"``.

Each benchmark is a script beside this one that prints one JSON object as its last line. The record goes to
``bench/results/<date>-<benchmark>.json`` with the machine's description and the load average before and
after: what else ran there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {
    "cli": "weft --help: time to the prompt",
    "compile": "first compile of 1,000 services, one changed resource",
    "explain": "weft explain of 1,000 requests",
    "xds_streams": "one endpoint change to 1,000 simulated mTLS streams",
    "control_plane": "memory and speed of the control plane at 1,000 services, 1,000 proxies",
    "scrape": "one scrape of a host with 100 workloads",
    "telemetry": "a flood of spans beside changes of routes",
    "options": "what each option of telemetry costs on the path",
    "callers": "what it costs to know who calls, and to count messages of gRPC",
    "series_memory": "memory and disk of 1,000 series, and their bounds",
    "questions": "questions to a telemetry store that has seen a day",
    "dashboard": "pages of the dashboard in a browser, at 20 and at 1,000 workloads",
    "scope": "a sidecar among 0, 1,000 and 10,000 services of which 10 are used",
    "sidecar": "weft run to a ready sidecar; memory of control plane, node and wrapper",
    "routes": "one route change to 100 real Envoys",
    "gateway": "requests per second through a gateway with 1 and with 1,000 routes",
    "path": "the two-sidecar path against hand-written Envoys",
    "dns": "queries per second of the node's DNS",
}


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def run(name: str, arguments: Sequence[str] = ()) -> int:
    """One benchmark; what it measured is recorded. 1 if it failed."""
    label = "-".join([name, *(each.strip("-") for each in arguments if each.startswith("--workloads"))])
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    before, began = os.getloadavg()[0], time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        print(f"{name}: failed with exit code {done.returncode}", file=sys.stderr)
        return 1
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "benchmark": name,
        "arguments": [*arguments],
        "date": today,
        "machine": machine(),
        "load_average_1min": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "seconds": round(time.monotonic() - began),
        "figures": figures,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{today}-{label}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0


def main() -> int:
    """Run what was asked for, or everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or [name for name in BENCHMARKS if (HERE / f"{name}.py").exists()]
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(
            f"no benchmark is named {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}"
        )
    return max([run(name) for name in names])


if __name__ == "__main__":
    sys.exit(main())
