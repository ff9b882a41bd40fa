"""``status`` of Istio's resources: what an analysis of all the files says of each, as Istio writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from weft.errors import Severity

if TYPE_CHECKING:
    from weft.analysis.finding import Finding
    from weft.model.resource import Key, Resource

_LEVELS: Final = {Severity.ERROR: "ERROR", Severity.WARNING: "WARNING", Severity.INFO: "INFO"}


def analysed(resources: Iterable[Resource], findings: Iterable[Finding]) -> Mapping[Key, dict[str, Any]]:
    """The status of each resource of Istio's groups: its findings, and whether one of them is an error."""
    said: dict[str, list[Finding]] = {}
    for finding in findings:
        said.setdefault(finding.origin, []).append(finding)
    return {
        resource.key: _status(resource, said.get(str(resource.key), []))
        for resource in resources
        if resource.key.kind.partition("/")[0].endswith(".istio.io")
    }


def _status(resource: Resource, findings: list[Finding]) -> dict[str, Any]:
    from weft.compile.gatewayapi.conditions import ANALYSED, LONGEST

    failed = any(finding.level is Severity.ERROR for finding in findings)
    generation = resource.metadata.generation or 1
    condition = {
        "type": ANALYSED,
        "status": str(not failed),
        "reason": "ErrorsFound" if failed else "NoErrorsFound",
        "message": "; ".join(f"{finding.code}: {finding.message}" for finding in findings)[:LONGEST],
        "observedGeneration": generation,
    }
    messages = [
        {
            "type": {"name": _name(finding.code), "code": finding.code},
            "level": _LEVELS[finding.level],
            **({"documentationUrl": finding.url} if finding.url else {}),
        }
        for finding in findings
    ]
    made = {"observedGeneration": generation, "conditions": [condition]}
    return {**made, "validationMessages": messages} if messages else made


def _name(code: str) -> str:
    from weft.analysis.codes import CODES

    return CODES[code].name if code in CODES else code
