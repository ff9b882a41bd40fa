"""Sum up several pytest reports in pytest's own closing line; a skip fails where ``CI`` is set."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

# The one permitted skip: tests that read sample data which a plain clone does not have.
ALLOWED_SKIP = "sample cases are not here"


def main(folder: str, *runs: str) -> int:
    """Print the line; 1 when something failed, nothing ran, or CI met a skip that is not allowed.

    Each run left ``FOLDER/RUN.xml``. Where something failed, ``FOLDER/RUN-again.xml`` is the report of the
    second try, and what failed in that has failed.
    """
    count: Counter[str] = Counter()
    seconds = 0.0
    forbidden: list[str] = []
    for name in runs:
        first, again = Path(folder) / f"{name}.xml", Path(folder) / f"{name}-again.xml"
        seconds += sum(float(suite.get("time", "0")) for suite in suites(first, again))
        count["tests"] += sum(int(suite.get("tests", "0")) for suite in suites(first))
        count["skipped"] += sum(int(suite.get("skipped", "0")) for suite in suites(first))
        count["failed"] += broken(again if again.exists() else first)
        forbidden += [
            f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
            for suite in suites(first)
            for case in suite.iter("testcase")
            for skip in case.iter("skipped")
            if ALLOWED_SKIP not in (skip.get("message") or "")
        ]
    failed, passed = count["failed"], count["tests"] - count["failed"] - count["skipped"]
    parts = [f"{failed} failed"] if failed else []
    parts.append(f"{passed} passed")
    if count["skipped"]:
        parts.append(f"{count['skipped']} skipped")
    strict = bool(os.environ.get("CI")) and forbidden
    if strict:
        print("skipped, which counts as a failure here:", *forbidden, sep="\n  ")
    print(f"==== {', '.join(parts)} in {seconds:.2f}s ====")
    return 1 if failed or not passed or strict else 0


def suites(*paths: Path) -> Iterator[ElementTree.Element]:
    """What is in the reports that are there."""
    for path in paths:
        if path.exists():
            yield from ElementTree.parse(path).getroot().iter("testsuite")  # noqa: S314 (our own file)


def broken(path: Path) -> int:
    """How many tests failed or could not run; a report that is missing or empty counts as one."""
    found = [int(suite.get("failures", "0")) + int(suite.get("errors", "0")) for suite in suites(path)]
    ran = sum(int(suite.get("tests", "0")) for suite in suites(path))
    return sum(found) if ran else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
