"""The reference pages of the findings and of response flags, made from their tables (``make docs``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.analysis.analyzers import ANALYZERS
from weft.analysis.codes import CODES, Code
from weft.analysis.response_flags import FLAGS

_HEAD = """<!-- Made from src/weft/analysis by `make docs`; do not edit. -->
# Findings of weft analyze

What each code means, worst level first where it matters: an *Error* will not work, a *Warning* will probably
not do what was meant, an *Info* is worth knowing. How to use the command: [Find what will not
work](../how-to/analyze.md). `weft analyze -L` prints the same.

## Istio's codes

They mean what they mean to `istioctl analyze`, and
[Istio's documentation](https://istio.io/latest/docs/reference/config/analysis/) explains them.

| code | level | name | |
|---|---|---|---|
"""

_OWN = """
## weft's own codes

The same codes stand in what `weft validate`, `weft apply` and the API answer.
"""

_ANALYZERS = """
## Analyzers

For `--analyzer`, by Istio's names; those that begin with `weft.` are weft's own.
`schema.ValidationAnalyzer.KIND` checks one of Istio's kinds against its schema and its rules.

| analyzer | finds |
|---|---|
"""


def page() -> str:
    """Every code and every analyzer."""
    istio = [code for code in CODES.values() if code.id.startswith("IST")]
    own = [code for code in CODES.values() if not code.id.startswith("IST")]
    rows = [f"| [{code.id}]({code.url}) | {code.level} | {code.name} | {_text(code)} |" for code in istio]
    table = "\n".join(rows)
    return _HEAD + table + "\n" + _OWN + "".join(_sections(own)) + _ANALYZERS + "".join(_analyzers())


def _text(code: Code) -> str:
    return f"{code.about} *Never given: {code.silent}.*" if code.silent else code.about


def _sections(codes: list[Code]) -> Iterator[str]:
    for code in codes:
        yield f"\n### {code.id}\n\n{code.name} ({code.level}). {_text(code)}\n"


def _analyzers() -> Iterator[str]:
    for analyzer in ANALYZERS:
        usual = "" if analyzer.usual else " Only when asked for."
        yield f"| `{analyzer.name}` | {analyzer.about}{usual} |\n"


_FLAGS_HEAD: Final = """<!-- Made from src/weft/analysis/response_flags.py by `make docs`; do not edit. -->
# Response flags

What Envoy writes of a request that did not go as usual (`%RESPONSE_FLAGS%`, the label `response_flags`), in
words. `weft logs NAME --proxy`, `tap`, `trace`, `explain` and the dashboard say the same where a flag is
shown; `weft logs --explain-flags` prints this list.

| flag | in long | whose doing | what happened | what helps |
|---|---|---|---|---|
"""


def flags_page() -> str:
    """All response flags, in words."""
    rows = (
        f"| `{one.short}` | `{one.long}` | {one.side} | {one.meaning} | {one.remedy} |"
        for one in FLAGS.values()
    )
    return _FLAGS_HEAD + "\n".join(rows) + "\n"
