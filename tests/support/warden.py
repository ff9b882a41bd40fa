"""Removes hosts and meshes when the test process that made them is killed.

The first line of its standard input is the plan in JSON, ``{"meshes": {MESH: NAMESPACE}, "switch": NAMESPACE,
"directory": PATH}``. A second line says that all is removed already, an end without it that nobody will.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress


def main() -> None:
    """Wait, and clean if it has to be done."""
    plan = json.loads(sys.stdin.readline())
    if sys.stdin.readline():
        return
    for namespace in plan["meshes"].values():
        _kill(namespace)
    for mesh, namespace in plan["meshes"].items():
        clean = [sys.executable, "-m", "weft", "clean", "--mesh", mesh, "--all"]
        subprocess.run(["nsenter", f"--net=/run/netns/{namespace}", *clean], check=False)
    for namespace in (*plan["meshes"].values(), plan["switch"]):
        _kill(namespace)
        subprocess.run(["ip", "netns", "del", namespace], check=False)
    shutil.rmtree(plan["directory"], ignore_errors=True)


def _kill(namespace: str) -> None:
    """Everything in a network namespace that this run made."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    main()
