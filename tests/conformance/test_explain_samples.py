"""Requests of the Gateway API's conformance suite through ``weft explain``: all come out as they shall."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from tests.conformance.samples import MISSING, Sample, prepared, samples
from weft.analysis.explain.mesh import Mesh
from weft.model.parse import Part, parse, unwrap
from weft.model.resource import Resource
from weft.yaml import load

SAMPLES = samples()


@lru_cache(maxsize=4)
def _mesh(manifests: tuple[Path, ...]) -> Mesh:
    parts: list[Part] = []
    read: list[tuple[Part, Resource]] = []
    for file in manifests:
        documents, problems = load(prepared(file.read_text()), file.name)
        assert not problems
        for document in documents:
            for part in unwrap(document)[0]:
                parts.append(part)
                resource, _ = parse(part)
                if resource is not None:
                    read.append((part, resource))
    return Mesh(parts, read)


@pytest.mark.skipif(not SAMPLES, reason=MISSING)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_sample(sample: Sample) -> None:
    answer = _mesh(sample.manifests).explain(sample.request)
    assert list(sample.differences(answer)) == [], "\n".join(
        f"{step['step']}: {step['detail']}" for step in answer["trace"]
    )
