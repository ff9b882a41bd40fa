"""What the commands that speak to a control plane share: which one, which kinds, how objects are named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from weft.cli.documents import read_parts, refuse_errors
from weft.errors import Problem, Severity, UsageError, did_you_mean

if TYPE_CHECKING:
    from weft.client import ApiClient, Resource
    from weft.model.parse import Part

_T = TypeVar("_T")

server_option = click.option(
    "--server",
    envvar="WEFT_SERVER",
    metavar="URL|SOCKET",
    help="The control plane: https://HOST:15017 or a Unix socket. Default: the mesh that runs here.",
)
namespace_option = click.option(
    "-n", "--namespace", default="default", show_default=True, help="For objects that name none."
)
files_option = click.option(
    "-f", "--filename", "files", multiple=True, metavar="PATH", help="A file, a directory, or - (stdin)."
)


def connect(server: str | None, work: Callable[[ApiClient], Awaitable[_T]]) -> _T:
    """Do ``work`` with a client of the control plane that ``--server`` names, or that runs here."""
    from weft.client import ApiClient, locate

    async def main() -> _T:
        async with ApiClient(locate(server)) as client:
            return await work(client)

    return asyncio.run(main())


UNCHANGED: Final = "nothing was changed"


def read_objects(paths: Sequence[str], namespace: str) -> tuple[list[Part], tuple[Problem, ...]]:
    """Every object of the files and what to warn of. All files are read and checked before anything is done.

    Raises:
        UsageError: when there is no path, or one cannot be read.
        WeftError: with every error of every file.
    """
    if not paths:
        raise UsageError("no files are given", hint="name files or directories, or - for standard input")
    read, problems = read_parts(paths, namespace)
    return [part for part, _ in read], refuse_errors(problems, UNCHANGED)


def warn(problems: Iterable[Problem]) -> int:
    """Print warnings; how many."""
    count = 0
    for problem in problems:
        if problem.severity is not Severity.ERROR:
            count += 1
            click.echo(f"warning: {problem}", err=True)
    return count


def place(problem: Problem, index: int, parts: Sequence[Part]) -> Problem:
    """The problem of the object at ``index``, with the file and line of its field."""
    if not 0 <= index < len(parts):
        return problem
    from weft.yaml import steps

    return replace(problem, where=parts[index].where(steps(problem.path)))


def find_resource(resources: Sequence[Resource], word: str) -> Resource:
    """The kind that a person means by ``vs``, ``virtualservices`` or ``gateways.networking.istio.io``.

    Raises:
        UsageError: for an unknown word, with a suggestion.
    """
    for resource in resources:
        if resource.called(word):
            return resource
    known = {name for resource in resources for name in (resource.plural, *resource.short_names)}
    hint = did_you_mean(word, known) or "kinds: " + ", ".join(sorted({r.plural for r in resources}))
    raise UsageError(f"there is no kind {word!r}", hint=hint)


def targets(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """``vs reviews ratings`` and ``vs/reviews svc/ratings`` as (kind, name); a kind alone has no name.

    Raises:
        UsageError: for a mixture of both forms.
    """
    if any("/" in word for word in words):
        if not all("/" in word for word in words):
            raise UsageError(
                "write KIND/NAME everywhere, or KIND NAME…", hint="as: weft get vs/reviews svc/reviews"
            )
        pairs = [word.partition("/") for word in words]
        return [(kind, name) for kind, _, name in pairs]
    kinds = words[0].split(",")
    if len(words) == 1:
        return [(kind, None) for kind in kinds]
    return [(kind, name) for kind in kinds for name in words[1:]]


def show(value: Any, output: str) -> str:
    """As ``json`` or ``yaml``."""
    if output == "json":
        import json

        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")
