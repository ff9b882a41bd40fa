"""What is valid is accepted by a real Envoy: the golden cases, changed at random.

``make`` runs each case with one seed, the same each time. To look for more: ``WEFT_SEEDS=100-200``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.case import Case
from tests.support.envoy import validate
from tests.support.mutation import Mutation
from weft.errors import Origin, Severity
from weft.model.parse import parse_object

# An EnvoyFilter says what Envoy is to be told: that may be what Envoy refuses.
CASES = sorted(
    path.parent for path in Path(__file__).parent.glob("*/in.yaml") if path.parent.name != "envoy-filter"
)
CHANGES = 8
TRIES = 6


def _seeds() -> range:
    first, _, last = os.environ.get("WEFT_SEEDS", "1-1").partition("-")
    return range(int(first), int(last) + 1)


def _valid(document: dict[str, Any]) -> bool:
    resource, problems = parse_object(document, Origin("changed"))
    return resource is not None and not any(one.severity is Severity.ERROR for one in problems)


def _changed(documents: list[dict[str, Any]], mutation: Mutation) -> list[dict[str, Any]]:
    made = list(documents)
    for _ in range(CHANGES):
        for _ in range(TRIES):
            new = mutation.some(made)
            if _valid(new):
                made = [new if _name(new) == _name(old) else old for old in made]
                break
    return made


def _name(document: dict[str, Any]) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", "default"), metadata["name"]


@pytest.mark.parametrize("seed", _seeds())
@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_envoy_takes_what_is_valid(directory: Path, seed: int, tmp_path: Path) -> None:
    text = (directory / "in.yaml").read_text()
    documents = [document for document in yaml.safe_load_all(text) if document]
    head = "\n".join(line for line in text.splitlines() if line.startswith("#:"))
    changed = _changed(documents, Mutation(seed))
    body = yaml.safe_dump_all(changed, sort_keys=False)
    (tmp_path / "in.yaml").write_text(f"{head}\n{body}")
    validate(Case(tmp_path).bootstrap(), tmp_path)
