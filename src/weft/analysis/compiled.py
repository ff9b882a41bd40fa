"""What weft finds when it compiles resources: values without effect, and what the Gateway API refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
# References that Istio's analyzers look up too: theirs are the findings.
_LOOKED_UP: Final = frozenset({"host", "subset", "port", "gateways"})
_BAD: Final = {"Accepted": "False", "ResolvedRefs": "False", "Programmed": "False", "Conflicted": "True"}
_BAD_REASON: Final = {"PartiallyInvalid": "True"}


def compiled(resources: Sequence[Resource], scene: Scene) -> Iterator[tuple[Finding, Object | None]]:
    """Findings of the compiler, each with the object that it is about."""
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
        said = statuses(world.gateway_facts)
    except Exception as error:  # a defect of weft's, that the user must hear of with all the rest
        message = f"weft fails to compile these resources: {type(error).__name__}: {error}"
        yield Finding(UNCOMPILABLE, Severity.ERROR, message), None
        return
    for problem in problems:
        if problem.code == NOT_FOUND and problem.path.rpartition(".")[2] in _LOOKED_UP:
            continue
        yield _placed(problem, by_origin.get(problem.resource, ()))
    for key, status in said.items():
        if (about := by_key.get(key)) is not None:
            for path, message in _refusals(status):
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
    return Finding(problem.code, problem.severity, message, problem.resource, where, space), about


def _depth(value: Any, path: Path) -> int:
    """How many steps of a path lead somewhere."""
    for depth, part in enumerate(path):
        value = at(value, part)
        if value is None:
            return depth
    return len(path)


def _refusals(status: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What a status says against its resource: where, and in which words."""
    yield from ((("spec",), text) for text in _negative(status))
    for _, listener in rows(status, "listeners"):
        name = word(listener, "name")
        yield from ((("spec", "listeners"), f"listener {name}: {text}") for text in _negative(listener))
    for _, parent in rows(status, "parents"):
        name = word(parent, "parentRef", "name")
        section = word(parent, "parentRef", "sectionName")
        about = f"{name}, listener {section}" if section else name
        yield from ((("spec", "parentRefs"), f"parent {about}: {text}") for text in _negative(parent))
    for _, ancestor in rows(status, "ancestors"):
        name = word(ancestor, "ancestorRef", "name")
        yield from ((("spec", "targetRefs"), f"ancestor {name}: {text}") for text in _negative(ancestor))


def _negative(part: Mapping[str, Any]) -> Iterator[str]:
    for _, condition in rows(part, "conditions"):
        name, status = word(condition, "type"), word(condition, "status")
        if status == (_BAD.get(name) or _BAD_REASON.get(name)):
            message = word(condition, "message")
            yield f"{name} is {status}: {word(condition, 'reason')}" + (f", {message}" if message else "")
