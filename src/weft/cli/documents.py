"""Paths on the command line, read into resources; the errors in them, turned into a failure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from weft.errors import Problem, Severity, WeftError

if TYPE_CHECKING:
    from weft.model.resource import Resource


def read_resources(
    paths: Iterable[str], namespace: str = "default"
) -> tuple[tuple[Resource, ...], tuple[Problem, ...]]:
    """Every resource of the paths with its namespace filled in, and all problems, whatever their severity.

    Raises:
        UsageError: when a path does not exist or cannot be read.
    """
    from weft.model.files import read_paths
    from weft.model.parse import parse, unwrap
    from weft.model.untranslated import findings

    documents, problems = read_paths(paths)
    resources: list[Resource] = []
    found = list(problems)
    for document in documents:
        parts, wrong = unwrap(document)
        found += wrong
        for part in parts:
            resource, wrong = parse(part, namespace)
            found += wrong
            if resource is not None:
                found += findings(resource, part.where)
                resources.append(resource)
    return tuple(resources), tuple(found)


def refuse_errors(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that are no errors.

    Raises:
        WeftError: with every error, when there is one.
    """
    known = tuple(problems)
    errors = [problem for problem in known if problem.severity is Severity.ERROR]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise WeftError(f"the configuration has {count}", problems=errors)
    return known
