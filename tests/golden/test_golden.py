"""What compile and emit make of resources, case by case; each output is accepted by a real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.case import Case
from tests.support.envoy import validate

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/in.yaml"))


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_golden(directory: Path, update_golden: bool, tmp_path: Path) -> None:
    case = Case(directory)
    validate(case.bootstrap(), tmp_path)
    got = case.text()
    if update_golden:
        case.out.write_text(got)
    assert got == case.out.read_text()
