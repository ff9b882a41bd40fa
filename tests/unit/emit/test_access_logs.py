"""Which requests are logged: by Envoy's own filter where it says the same as the expression."""

from __future__ import annotations

import pytest

from weft import ir
from weft.emit.access_logs import access_log
from weft.protos import accesslog_v3

_OP = accesslog_v3.ComparisonFilter.Op


def _filter(expression: str) -> accesslog_v3.AccessLogFilter:
    unit = ir.AccessLog(to=ir.FileLog(path="x.log"), only=expression)
    return access_log(unit, ir.Direction.INBOUND).filter


@pytest.mark.parametrize(
    ("expression", "op", "value"),
    [
        ("response.code >= 400", _OP.GE, 400),
        (" response.code>499 ", _OP.GE, 500),
        ("response.code == 503", _OP.EQ, 503),
    ],
)
def test_a_status_is_compared_by_envoy_itself(expression: str, op: int, value: int) -> None:
    made = _filter(expression).status_code_filter.comparison
    assert (made.op, made.value.default_value) == (op, value)
    assert made.value.runtime_key


@pytest.mark.parametrize(
    "expression",
    [
        "response.code < 400",
        "response.code != 200",
        "response.code >= 0",
        "response.code == 0",
        "response.code >= 400 || request.method == 'PUT'",
        "response.code >= 400u",
        "!(response.code >= 400)",
    ],
)
def test_what_a_missing_status_would_make_different_stays_an_expression(expression: str) -> None:
    made = _filter(expression)
    assert not made.HasField("status_code_filter")
    assert made.extension_filter.name == "envoy.access_loggers.extension_filters.cel"
