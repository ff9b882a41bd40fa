"""``make golden`` rewrites what the cases expect; the diff is the review."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/*/out.yaml")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # Known only when pytest starts in this directory, as `make golden` does.
    return bool(request.config.getoption("--update-golden", default=False))
