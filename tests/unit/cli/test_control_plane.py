from __future__ import annotations

import pytest
from click.testing import CliRunner

from weft.cli.control_plane import control_plane
from weft.errors import UsageError


def test_a_policy_that_would_not_be_in_force_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPLIANCE_POLICY", "pqc")
    result = CliRunner().invoke(control_plane, [])
    assert isinstance(result.exception, UsageError)
    assert "compliancePolicy: pqc" in result.exception.hint


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        ("--telemetry-disk", "256", "is not a size"),
        ("--telemetry-disk", "1MiB", "less than 16MiB"),
        ("--telemetry-memory", "-1GiB", "is not a size"),
        ("--telemetry-age", "6", "not a duration"),
        ("--telemetry-age", "1s", "not between 10m and 720h"),
    ],
)
def test_room_that_makes_no_sense_is_refused(option: str, text: str, why: str) -> None:
    result = CliRunner().invoke(control_plane, [option, text])
    assert (result.exit_code, why in result.output) == (2, True), result.output
