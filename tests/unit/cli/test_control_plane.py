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
