"""What the API accepts: every object passes its model; unknown fields as ``fieldValidation`` says."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from weft.control.api.status import ApiError, cause_text, invalid
from weft.control.aside import aside, is_bulky
from weft.errors import Origin, Problem, Severity
from weft.model import fixed
from weft.model.catalog import KindRow
from weft.model.parse import RULE, UNKNOWN_FIELD, parse_object
from weft.model.resource import Resource
from weft.model.untranslated import findings
from weft.model.workload import Workload
from weft.yaml import Path, join

Wire = dict[str, Any]

RELATIVE: Final = "WEFT0025"  # a path that means something only beside a file


class Validation(StrEnum):
    """What becomes of unknown fields: refused, dropped with a warning, dropped."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An object that passed. ``wire`` lacks the unknown fields that were dropped."""

    wire: Wire
    resource: Resource
    problems: tuple[Problem, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell the client, a line each."""
        return tuple(cause_text(problem) for problem in self.problems)


async def check(row: KindRow, wire: Wire, validation: Validation, before: Wire | None = None) -> Checked:
    """As ``judge``, of an object that may be large: the event loop goes on meanwhile."""
    return await aside(is_bulky(wire), judge, row, wire, validation, before)


def judge(row: KindRow, wire: Wire, validation: Validation, before: Wire | None = None) -> Checked:
    """Pass ``wire`` through its model; ``before`` is the object that it takes the place of.

    Raises:
        ApiError: 422 with all that is wrong.
    """
    paths: dict[str, Path] = {}

    def remember(path: Path) -> Origin | None:
        paths[join(path)] = path
        return None

    resource, problems = parse_object(wire, remember)
    unknown = [problem for problem in problems if problem.code == UNKNOWN_FIELD]
    if unknown and validation is not Validation.STRICT:
        wire = _without(wire, (paths[problem.path] for problem in unknown))
        resource, problems = parse_object(wire, remember)
    else:
        unknown = []
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    errors += _relative(resource)
    if before is not None:
        changes = fixed.flaws(row.id, before, wire)
        errors += (Problem(RULE, flaw.message, None, flaw.hint, join(flaw.path)) for flaw in changes)
    if resource is None or errors:
        raise _refusal(row, wire, errors or problems)
    problems = (*problems, *findings(resource))
    dropped = () if validation is Validation.IGNORE else _as_warnings(unknown)
    return Checked(wire=wire, resource=resource, problems=(*dropped, *problems))


def _relative(resource: Resource | None) -> Iterator[Problem]:
    """Paths of a Workload that mean something only beside its file; the API knows no files."""
    if not isinstance(resource, Workload):
        return
    directory, program = resource.spec.working_dir, resource.spec.command[0]
    if directory is not None and not directory.startswith("/"):
        hint = "write the whole path, or use weft apply, which reads it from the file's folder"
        message = f"{directory!r} is a relative path, and the API knows no folder that it counts from"
        yield Problem(RELATIVE, message, hint=hint, path="spec.workingDir")
    if not program.startswith("/"):
        hint = "write the whole path, or use weft apply where the program is on PATH"
        message = f"{program!r} is no absolute path, and no such program was found"
        yield Problem(RELATIVE, message, hint=hint, path="spec.command[0]")


def _as_warnings(unknown: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            problem.code, f"unknown field {problem.path!r} is dropped", problem.where, problem.hint,
            problem.path, Severity.WARNING,
        )
        for problem in unknown
    )  # fmt: skip


def _refusal(row: KindRow, wire: Wire, problems: Sequence[Problem]) -> ApiError:
    metadata = wire.get("metadata") or {}
    return invalid(row, str(metadata.get("name") or metadata.get("generateName") or ""), problems)


def _without(wire: Wire, paths: Iterable[Path]) -> Wire:
    result = copy.deepcopy(wire)
    for path in paths:
        parent: Any = result
        for step in path[:-1]:
            parent = parent[step]
        parent.pop(path[-1], None)
    return result
