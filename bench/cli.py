"""How long ``weft --help`` takes: the best and the median of 21 runs, in milliseconds (target: under 150)."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Measure and print."""
    weft = str(Path(sys.executable).with_name("weft"))
    taken = []
    for _ in range(21):
        start = time.perf_counter()
        subprocess.run([weft, "--help"], check=True, stdout=subprocess.DEVNULL)
        taken.append((time.perf_counter() - start) * 1000)
    print(
        json.dumps(
            {"help_best_ms": round(min(taken), 1), "help_median_ms": round(statistics.median(taken), 1)}
        )
    )


if __name__ == "__main__":
    main()
