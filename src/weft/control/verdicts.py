"""What a running mesh says of Istio's resources: what it finds in them, and what proxies refuse of them.

In Istio's form: ``validationMessages`` and conditions. A resource of which nothing is to be said gets none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from weft.analysis.codes import CODES
from weft.compile.gatewayapi.conditions import ANALYSED, LONGEST, generation
from weft.compile.problems import problems_of
from weft.compile.sources import source
from weft.compile.world import World
from weft.control.convergence import Rejected
from weft.errors import Problem, Severity
from weft.model.catalog import KINDS
from weft.model.resource import Key, Resource

Wire = dict[str, Any]
Findings = Mapping[str, tuple[Problem, ...]]
"""Problems by the resource that they are about, as ``VirtualService default/x``."""

_FILTER: Final = "networking.istio.io/EnvoyFilter"
# What nodes register has a status of its own.
_ROWS: Final = tuple(
    row
    for row in KINDS
    if row.group.endswith(".istio.io") and row.kind not in {"WorkloadEntry", "WorkloadGroup"}
)
_BY_WORD: Final = {
    (row.group, source(Key(row.id, "x", "x")).path.split("/")[6]): row.id for row in KINDS if row.namespaced
}
_LEVELS: Final = {Severity.ERROR: "ERROR", Severity.WARNING: "WARNING", Severity.INFO: "INFO"}
_MESSAGES_MAX: Final = 50


def judged(world: World) -> Iterator[Resource]:
    """The resources that are spoken of."""
    for row in _ROWS:
        yield from world.all(row.model).values()


async def findings_of(world: World, breathe: Callable[[], Awaitable[None]]) -> Findings:
    """What of the resources cannot be honoured. Awaits ``breathe`` between namespaces."""
    found: dict[str, dict[Problem, None]] = {}
    for namespace in sorted({resource.metadata.namespace for resource in judged(world)}):
        for problem in problems_of(world, namespace):
            found.setdefault(problem.resource, {})[problem] = None
        await breathe()
    return {resource: tuple(problems) for resource, problems in found.items()}


def blamed(rejections: Iterable[Rejected]) -> Mapping[Key, tuple[str, ...]]:
    """By resource, what proxies say of what was made of it; where EnvoyFilters had a hand, of them only."""
    found: dict[Key, dict[str, None]] = {}
    for rejected in rejections:
        keys = [key for path in rejected.sources if (key := key_of(path)) is not None]
        filters = [key for key in keys if key.kind == _FILTER]
        said = f"{rejected.proxy.split('~')[2]} refuses {rejected.type} {rejected.name}: {rejected.error}"
        for key in filters or keys:
            found.setdefault(key, {})[said] = None
    return {key: tuple(said) for key, said in found.items()}


def key_of(path: str) -> Key | None:
    """The resource behind a unit's source; None when it is no such path."""
    match path.split("/"):
        case ["", "apis", group, _, "namespaces", namespace, word, name]:
            kind = _BY_WORD.get((group, word))
            return Key(kind, namespace, name) if kind is not None else None
    return None


def verdicts(
    world: World, findings: Findings, refused: Mapping[Key, tuple[str, ...]]
) -> Iterator[tuple[Key, Wire]]:
    """The status of each; empty where nothing is to be said."""
    for resource in judged(world):
        key = resource.key
        problems, refusals = findings.get(str(key), ()), refused.get(key, ())
        yield key, _status(resource, problems, refusals) if problems or refusals else {}


def _status(resource: Resource, problems: tuple[Problem, ...], refusals: tuple[str, ...]) -> Wire:
    said = generation(resource.metadata)
    conditions: list[Wire] = []
    made: Wire = {"observedGeneration": said, "conditions": conditions}
    if problems:
        failed = any(_level(problem) is Severity.ERROR for problem in problems)
        text = "; ".join(f"{problem.code}: {problem.path}: {problem.message}" for problem in problems)
        reason = "ErrorsFound" if failed else "NoErrorsFound"
        conditions.append(_condition(ANALYSED, not failed, reason, text, said))
        made["validationMessages"] = [_message(problem) for problem in problems[:_MESSAGES_MAX]]
    if refusals:
        conditions.append(_condition("Accepted", False, "RefusedByProxy", "; ".join(refusals), said))
    return made


def _condition(kind: str, holds: bool, reason: str, message: str, observed: int) -> Wire:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message[:LONGEST],
        "observedGeneration": observed,
    }


def _message(problem: Problem) -> Wire:
    code = CODES.get(problem.code)
    made: Wire = {
        "type": {"name": code.name if code else problem.code, "code": problem.code},
        "level": _LEVELS[_level(problem)],
    }
    if code is not None:
        made["documentationUrl"] = code.url
    return made


def _level(problem: Problem) -> Severity:
    code = CODES.get(problem.code)
    return code.level if code is not None and problem.code.startswith("IST") else problem.severity
