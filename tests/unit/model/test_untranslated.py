"""Fields that are not translated: the list is committed, names real fields, and their use is told."""

from __future__ import annotations

from pathlib import Path

from weft import yaml
from weft.errors import Severity
from weft.model.parse import parse, parse_object
from weft.model.unsupported import reason
from weft.model.untranslated import findings, listing, unknown

COMMITTED = Path(__file__).parents[3] / "docs" / "reference" / "untranslated.txt"


def test_the_committed_list_is_this_one() -> None:
    assert COMMITTED.read_text() == listing(), "run make docs; the list may only shrink"


def test_the_table_names_fields_that_there_are() -> None:
    assert unknown() == ()


def test_each_use_is_told_once_with_its_place_and_why_it_is_in_vain() -> None:
    kind = "networking.istio.io/DestinationRule"
    field = "outlierDetection.consecutiveErrors"
    assert reason(kind, f"spec.trafficPolicy.{field}")
    assert not reason(kind, "spec.trafficPolicy.outlierDetection.interval")
    text = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x}\nspec:\n  host: a\n"
        "  trafficPolicy:\n    outlierDetection: {consecutiveErrors: 3}\n    tls: {mode: DISABLE}\n"
        "  subsets:\n  - name: v1\n    trafficPolicy:\n      outlierDetection: {consecutiveErrors: 3}\n"
    )
    (document,), _ = yaml.load(text, "f.yaml")
    resource, _ = parse(document)
    assert resource is not None
    found = findings(resource, document.where)
    assert {problem.severity for problem in found} == {Severity.WARNING}
    assert all("took its place" in problem.message for problem in found)
    assert {(problem.path, problem.where.line if problem.where else 0) for problem in found} == {
        (f"spec.trafficPolicy.{field}", 7),
        (f"spec.subsets[0].trafficPolicy.{field}", 12),
    }


def test_what_kubernetes_writes_by_itself_is_no_news() -> None:
    def told(policy: str) -> list[str]:
        data = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
        spec = {"type": "NodePort", "ports": [{"port": 80}], "externalTrafficPolicy": policy}
        spec |= {"sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
        resource, _ = parse_object({**data, "spec": spec})
        assert resource is not None
        return [problem.path for problem in findings(resource)]

    assert told("Cluster") == ["spec.type"]
    assert told("Local") == ["spec.externalTrafficPolicy", "spec.type"]
