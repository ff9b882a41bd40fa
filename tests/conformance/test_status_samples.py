"""What the samples of the conformance suite say of statuses by the way: all that is asked of is accepted."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.samples import MISSING, Sample, prepared, samples
from weft.compile.gatewayapi.status import statuses
from weft.compile.world import World
from weft.model.catalog import GATEWAY_API
from weft.model.parse import parse
from weft.model.resource import Key, Resource
from weft.yaml import load

# The one test whose route leads to nothing, in the suite's words.
LOST = {"HTTPRouteInvalidNonExistentBackendRef": ("False", "BackendNotFound")}

TESTS = {sample.test: sample for sample in samples()}


@lru_cache(maxsize=4)
def _read(file: Path) -> tuple[Resource, ...]:
    documents, problems = load(prepared(file.read_text()), file.name)
    assert not problems
    found = (parse(document)[0] for document in documents)
    return tuple(resource for resource in found if resource is not None)


def _judged(sample: Sample) -> tuple[dict[Key, dict[str, Any]], set[Key]]:
    """All statuses, and the keys of what the test itself brings along."""
    resources = [resource for file in sample.manifests for resource in _read(file)]
    own = {
        resource.key for file in sample.manifests if file.name != "manifests.yaml" for resource in _read(file)
    }
    return statuses(World.build(resources).gateway_facts), own


def _words(conditions: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in conditions}


@pytest.mark.skipif(not TESTS, reason=MISSING)
@pytest.mark.parametrize("test", TESTS)
def test_the_routes_of_a_sample_are_accepted_by_every_parent(test: str) -> None:
    said, own = _judged(TESTS[test])
    routes = [key for key in own if key.kind.endswith("Route") and key.kind.startswith(GATEWAY_API)]
    assert routes or test == "MeshPorts"
    for key in routes:
        parents = said[key]["parents"]
        assert parents, key
        for parent in parents:
            assert _words(parent["conditions"]) == {
                "Accepted": ("True", "Accepted"),
                "ResolvedRefs": LOST.get(test, ("True", "ResolvedRefs")),
            }, key


@pytest.mark.skipif(not TESTS, reason=MISSING)
@pytest.mark.parametrize("test", [name for name, sample in TESTS.items() if "gateway" in sample.case])
def test_the_gateway_of_a_sample_serves_its_routes(test: str) -> None:
    sample = TESTS[test]
    said, _ = _judged(sample)
    namespace, _, name = sample.case["gateway"]["gateway"].partition("/")
    gateway = said[Key(f"{GATEWAY_API}/Gateway", namespace, name)]
    conditions = _words(gateway["conditions"])
    assert conditions["Accepted"] == ("True", "Accepted")
    assert conditions["Programmed"] == ("True", "Programmed")
    for listener in gateway["listeners"]:
        words = _words(listener["conditions"])
        assert all(words[kind][0] == "True" for kind in ("Accepted", "Programmed", "ResolvedRefs"))
    assert any(listener["attachedRoutes"] for listener in gateway["listeners"])
