"""Everything that is measured of telemetry, in under ten minutes: ``make bench-telemetry``.

Each benchmark is one that ``make bench`` knows as well, with arguments that make it short. Results go to
``bench/results/<date>-<benchmark>.json``, and what they say to the table in ``bench/TELEMETRY.md``, by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from run import run

ALL = (
    ("options", ["--seconds", "1", "--rounds", "4"]),
    ("series_memory", []),
    ("questions", ["--rounds", "5"]),
    ("dashboard", ["--rounds", "2"]),
    ("telemetry", ["--rounds", "15"]),
    ("telemetry", ["--rounds", "15", "--workloads", "1000"]),
)


def main() -> int:
    """Run them one after another."""
    return max([run(name, arguments) for name, arguments in ALL])


if __name__ == "__main__":
    sys.exit(main())
