"""What weft finds when it compiles resources: values without effect, and what the Gateway API refuses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from weft.analysis.codes import CODES
from weft.analysis.finding import Finding
from weft.analysis.objects import Object
from weft.analysis.scene import Scene
from weft.analysis.tree import at, rows, word
from weft.compile.gatewayapi.status import statuses
from weft.compile.problems import NOT_FOUND, problems_of
from weft.compile.world import World
from weft.errors import Problem, Severity
from weft.model.resource import Key, Resource
from weft.yaml import Path, steps

UNCOMPILABLE: Final = "WEFT0026"
REFUSED: Final = "WEFT0201"
Place = tuple[str, Object | None, str]
"""A finding's code, object and reference."""

# References that analyzers look up too: theirs are the findings.
_LOOKED_UP: Final = frozenset({"host", "subset", "port", "gateways"})
_ATTACHED: Final = ("spec.parentRef", "spec.targetRef")
_BAD: Final = {"Accepted": "False", "ResolvedRefs": "False", "Programmed": "False", "Conflicted": "True"}
# Parts of a status: their list, where their name stands, what they are, and their field in the spec.
_PARTS: Final = (
    ("listeners", ("name",), "listener", "listeners"),
    ("parents", ("parentRef", "name"), "parent", "parentRefs"),
    ("ancestors", ("ancestorRef", "name"), "ancestor", "targetRefs"),
)
_BAD_REASON: Final = {"PartiallyInvalid": "True"}


def compiled(
    resources: Sequence[Resource],
    scene: Scene,
    before: Collection[Place] = (),
    *,
    references: bool = True,
) -> Iterator[tuple[Finding, Object | None]]:
    """Findings of the compiler, each with the object that it is about. ``before``: what analyzers found.

    Without ``references``, not those that other resources would answer.
    """
    by_origin: dict[str, list[Object]] = {}
    by_key: dict[Key, Object] = {}
    for item in scene.objects:
        by_origin.setdefault(item.origin, []).append(item)
        by_key[Key(item.kind, item.namespace, item.name)] = item
    try:
        world = World.build(resources)
        problems = dict.fromkeys(
            problem
            for namespace in sorted({resource.metadata.namespace for resource in resources} - {""})
            for problem in problems_of(world, namespace)
        )
        said = statuses(world.gateway_facts) if references else {}
    except Exception as error:  # a defect of weft's, that the user must hear of with all the rest
        message = f"weft fails to compile these resources: {type(error).__name__}: {error}"
        yield Finding(UNCOMPILABLE, Severity.ERROR, message), None
        return
    told: dict[Object | None, list[str]] = {}
    for problem in problems:
        if problem.code == NOT_FOUND and (not references or _looked_up(problem.path)):
            continue
        finding, about = _placed(problem, by_origin.get(problem.resource, ()))
        told.setdefault(about, []).append(finding.message)
        if about is not None and problem.path.startswith(_ATTACHED) and _told(finding, about, before):
            continue
        yield finding, about
    for key, status in said.items():
        if (about := by_key.get(key)) is not None:
            yield from _unsaid(about, status, told.get(about, []))


def _told(finding: Finding, about: Object, before: Collection[Place]) -> bool:
    """Whether an analyzer found that what is named at this place does not exist: more need not be said."""
    return (NOT_FOUND, about, finding.reference) in before


def _looked_up(path: str) -> bool:
    return path.rpartition(".")[2] in _LOOKED_UP or path.startswith(_ATTACHED)


def _unsaid(
    about: Object, status: Mapping[str, Any], told: list[str]
) -> Iterator[tuple[Finding, Object | None]]:
    """Negative conditions whose reason nothing has told yet."""
    for path, title, reason in _refusals(status):
        if not any(reason in message for message in told):
            message = f"{title}: {reason}"
            told.append(message)
            level = CODES[REFUSED].level
            yield Finding(REFUSED, level, message, about.origin, about.where(path), about.home), about


def _placed(problem: Problem, candidates: Iterable[Object]) -> tuple[Finding, Object | None]:
    """The finding at its place. Two kinds may have one name: the one that has the field is meant."""
    path = steps(problem.path)
    about = max(candidates, key=lambda item: _depth(item.data, path), default=None)
    where = about.where(path) if about is not None else None
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    message = f"{text} ({problem.hint})" if problem.hint else text
    space = about.home if about is not None else ""
    istios = problem.code.startswith("IST") and problem.code in CODES
    level = CODES[problem.code].level if istios else problem.severity
    return Finding(problem.code, level, message, problem.resource, where, space), about


def _depth(value: Any, path: Path) -> int:
    """How many steps of a path lead somewhere."""
    for depth, part in enumerate(path):
        value = at(value, part)
        if value is None:
            return depth
    return len(path)


def _refusals(status: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    """What a status says against its resource: where, of what, and why. The parts come before the whole."""
    for place, name, about, field in _PARTS:
        for _, part in rows(status, place):
            title = " ".join(filter(None, (about, word(part, *name), word(part, *name[:-1], "sectionName"))))
            yield from ((("spec", field), f"{title}: {text}", reason) for text, reason in _negative(part))
    if not any(True for place, *_ in _PARTS for _, part in rows(status, place) for _ in _negative(part)):
        yield from ((("spec",), text, reason) for text, reason in _negative(status))


def _negative(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(condition, reason) of each condition that is bad news."""
    for _, condition in rows(part, "conditions"):
        name, status = word(condition, "type"), word(condition, "status")
        if status == (_BAD.get(name) or _BAD_REASON.get(name)):
            reason = word(condition, "reason")
            yield f"{name} is {status} ({reason})", word(condition, "message") or reason
