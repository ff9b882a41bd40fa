"""Sum up several pytest reports in pytest's own closing line; a skip fails where ``CI`` is set."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

# The one permitted skip: tests that read sample data which a plain clone does not have.
ALLOWED_SKIP = "sample cases are not here"


def main(paths: list[str]) -> int:
    """Print the line; 1 when something failed, nothing ran, or CI met a skip that is not allowed.

    The last path is where what failed in the one before it was tried again; the same path: nothing was.
    """
    *paths, again = paths
    count: Counter[str] = Counter()
    seconds = 0.0
    forbidden: list[str] = []
    for path in paths:
        if not Path(path).exists():
            count["errors"] += 1
            continue
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314 (our own file)
            seconds += float(suite.get("time", "0"))
            for key in ("tests", "failures", "errors", "skipped"):
                count[key] += int(suite.get(key, "0"))
            for case in suite.iter("testcase"):
                forbidden += [
                    f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
                    for skip in case.iter("skipped")
                    if ALLOWED_SKIP not in (skip.get("message") or "")
                ]
    if again != paths[-1]:
        count["failures"], count["errors"] = broken(paths[:-1]) + broken([again]), 0
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    parts = [f"{failed} failed"] if failed else []
    parts.append(f"{passed} passed")
    if count["skipped"]:
        parts.append(f"{count['skipped']} skipped")
    strict = bool(os.environ.get("CI")) and forbidden
    if strict:
        print("skipped, which counts as a failure here:", *forbidden, sep="\n  ")
    print(f"==== {', '.join(parts)} in {seconds:.2f}s ====")
    return 1 if failed or not passed or strict else 0


def broken(paths: list[str]) -> int:
    """How many tests failed or could not run; a report that is missing counts as one."""
    found = 0
    for path in paths:
        if not Path(path).exists():
            found += 1
            continue
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314 (our own file)
            found += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
