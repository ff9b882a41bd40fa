"""Rules of the resources: each line of ``rules/*.txt`` says where the finding is, and what was written.

``ok`` stands for no finding, ``~`` before a path for a warning; ``#`` names the kind of the lines below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weft import yaml
from weft.errors import Severity
from weft.model.catalog import KINDS, by_kind
from weft.model.parse import parse_object

TABLES = sorted((Path(__file__).parent / "rules").glob("*.txt"))


def rules() -> Iterator[Any]:
    for table in TABLES:
        header = ("", "")
        for number, line in enumerate(table.read_text().splitlines(), 1):
            first, _, rest = line.partition(" ")
            if first == "#":
                words = rest.split()
                if len(words) == 2 and by_kind(words[0], words[1]):
                    header = (words[0], words[1])
            elif line:
                yield pytest.param(*header, first, rest.strip(), id=f"{table.stem}:{number}")


def whole(api_version: str, kind: str, text: str) -> dict[str, Any]:
    """The object: the text is its spec, or all of it if it names metadata or spec."""
    documents, problems = yaml.load(text, "f.yaml")
    assert not problems
    data = documents[0].data
    said = {
        "metadata": {"name": "x"},
        **(data if {"spec", "data", "addressType"} & set(data) else {"spec": data}),
    }
    return {"apiVersion": api_version, "kind": kind, **said}


@pytest.mark.parametrize(("api_version", "kind", "path", "text"), list(rules()))
def test_a_rule(api_version: str, kind: str, path: str, text: str) -> None:
    resource, problems = parse_object(whole(api_version, kind, text))
    errors = {problem.path for problem in problems if problem.severity is Severity.ERROR}
    warnings = {problem.path for problem in problems if problem.severity is Severity.WARNING}
    assert all(problem.message for problem in problems)
    if path == "ok":
        assert problems == ()
    elif path.startswith("~"):
        assert (errors, resource is None) == (set(), False), problems
        assert path[1:] in warnings
    else:
        assert errors == {path}, problems
        assert resource is None


def test_every_kind_of_istio_and_the_gateway_api_has_rules() -> None:
    shown = {(row.values[0], row.values[1]) for row in rules()}
    wanted = [row for row in KINDS if "istio.io" in row.group or row.group == "gateway.networking.k8s.io"]
    without = {"ProxyConfig", "ReferenceGrant"}
    missing = [
        row.id
        for row in wanted
        if row.kind not in without
        and not any((row.api_version_of(v), row.kind) in shown for v in row.versions)
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "value"), [("a" * 16_385, "x"), ("x", "é" * 8_193)])
def test_headers_that_are_longer_than_envoy_takes(name: str, value: str) -> None:
    headers = {"request": {"set": {name: value}}}
    spec = {"hosts": ["a"], "http": [{"headers": headers, "route": [{"destination": {"host": "b"}}]}]}
    data = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "x"}}
    resource, problems = parse_object({**data, "spec": spec})
    assert resource is None
    assert ["is longer than 16384 bytes" in problem.message for problem in problems] == [True]
