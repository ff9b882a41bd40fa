"""Paths on the command line, read into resources; the errors in them, turned into a failure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from weft.errors import Problem, Severity, WeftError

if TYPE_CHECKING:
    from weft.model.parse import Part
    from weft.model.resource import Resource


def read_parts(
    paths: Iterable[str], namespace: str = "default"
) -> tuple[tuple[tuple[Part, Resource], ...], tuple[Problem, ...]]:
    """Every object of the paths as it is written and as it is understood, and all problems.

    Raises:
        UsageError: when a path does not exist or cannot be read.
    """
    from weft.model.files import read_paths
    from weft.model.parse import parse, unwrap
    from weft.model.untranslated import findings

    documents, problems = read_paths(paths)
    read: list[tuple[Part, Resource]] = []
    found = list(problems)
    for document in documents:
        parts, wrong = unwrap(document)
        found += wrong
        for part in parts:
            resource, wrong = parse(part, namespace)
            found += wrong
            if resource is not None:
                found += findings(resource, part.where)
                read.append((part, resource))
    return tuple(read), tuple(found)


def read_resources(
    paths: Iterable[str], namespace: str = "default"
) -> tuple[tuple[Resource, ...], tuple[Problem, ...]]:
    """Every resource of the paths with its namespace filled in, and all problems, whatever their severity.

    Raises:
        UsageError: when a path does not exist or cannot be read.
    """
    read, problems = read_parts(paths, namespace)
    return tuple(resource for _, resource in read), problems


def refuse_errors(problems: Iterable[Problem], outcome: str = "") -> tuple[Problem, ...]:
    """The problems that are no errors. ``outcome`` says what the errors led to.

    Raises:
        WeftError: with every error, sorted by place, when there is one.
    """
    known = tuple(problems)
    errors = [problem for problem in known if problem.severity is Severity.ERROR]
    if errors:
        errors.sort(key=lambda problem: (problem.where is None, problem.where or 0))
        count = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
        raise WeftError(f"{count}{outcome and f', {outcome}'}", problems=errors)
    return known
