"""``weft analyze``."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from weft.cli.server import files_option
from weft.errors import Severity, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weft.analysis.analyze import Input
    from weft.analysis.finding import Finding
    from weft.client import ApiClient
    from weft.errors import Problem
    from weft.model.parse import Part

_LEVELS: Final = click.Choice([level.value for level in Severity], case_sensitive=False)
_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@files_option
@click.option(
    "-R", "--recursive", is_flag=True, help="As istioctl has it; directories are always looked into wholly."
)
@click.option("-n", "--namespace", default="", help="Only what belongs to it; and where none is given.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All of them, whatever -n says.")
@click.option(
    "-S",
    "--suppress",
    multiple=True,
    metavar="CODE=RESOURCE",
    help="Leave findings out: 'IST0102=Namespace foo', 'IST0101=VirtualService default/*'.",
)
@click.option(
    "--output-threshold", type=_LEVELS, default="Info", show_default=True, help="Show these and worse."
)
@click.option(
    "--failure-threshold",
    type=_LEVELS,
    default="Error",
    show_default=True,
    help="Exit with 1 for these and worse.",
)
@click.option(
    "-L", "--list", "--list-analyzers", "listing", is_flag=True, help="List all codes and analyzers."
)
@click.option("--analyzer", "only", multiple=True, metavar="NAME", help="Run only this one; may be repeated.")
@click.option(
    "--live",
    "--use-mesh",
    "-k",
    "--use-kube",
    "live",
    is_flag=False,
    flag_value="true",
    default="",
    metavar="[true|false]",
    help="The running mesh too, as if the files were applied; false: as --partial.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="The files are a part of what there is: look for nothing in them that may be elsewhere.",
)
@click.option(
    "--mesh-config",
    "--meshConfigFile",
    "mesh_file",
    metavar="FILE",
    help="Settings of the mesh (MeshConfig).",
)
@click.option("--mesh-networks", "networks_file", metavar="FILE", help="Networks of the mesh (MeshNetworks).")
@click.option(
    "--cluster", "clusters", multiple=True, metavar="NAME=PATH", help="Files of another cluster of the mesh."
)
@click.option(
    "--ignore-unknown",
    is_flag=False,
    flag_value="true",
    default="false",
    metavar="[true|false]",
    help="Documents that cannot be read are no findings.",
)
@click.option(
    "-o",
    "--output",
    "output",
    type=click.Choice(["log", "text", "json", "yaml"]),
    default="log",
    show_default=True,
)
@click.option("--server", envvar="WEFT_SERVER", metavar="URL|SOCKET", help="The control plane, for --live.")
def analyze(
    paths: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    namespace: str,
    everywhere: bool,
    suppress: tuple[str, ...],
    output_threshold: str,
    failure_threshold: str,
    listing: bool,
    only: tuple[str, ...],
    live: str,
    partial: bool,
    mesh_file: str | None,
    networks_file: str | None,
    clusters: tuple[str, ...],
    ignore_unknown: str,
    output: str,
    server: str | None,
) -> int:
    """Find what will not work, in files or in the running mesh.

    PATHS are files, directories (recursively) or - for standard input; without any, the mesh that runs is
    analysed. The codes are Istio's, and weft's own. Resources can say themselves what to leave out, with
    the annotation galley.istio.io/analyze-suppress.
    """
    from weft.analysis.analyze import Filter, Input, worst
    from weft.analysis.analyze import analyze as run

    paths = (*files, *paths)
    if listing:
        _list(output)
        return 0
    _check_names(only)
    if live.lower() not in {"", "true", "false"}:
        raise UsageError(
            f"--live is true or false, not {live!r}", hint="write --live=true, and paths before it"
        )
    running = live.lower() == "true" or (not live and not paths)
    if not running and not paths:
        raise UsageError("no files are given", hint="name files or directories, or leave --live=false out")
    parts, problems = read([path for path in paths if not _skipped(path)])
    others = {name: read((path,))[0] for name, path in map(_named, clusters)}
    given = Input(
        parts=parts,
        problems=() if ignore_unknown.lower() == "true" else problems,
        live=_objects(server, namespace or "default") if running else (),
        others=others,
        namespace=namespace or "default",
        mesh=_settings(mesh_file) if mesh_file else None,
        networks=_settings(networks_file) if networks_file else None,
        running=running,
        partial=partial or live.lower() == "false",
    )
    wanted = Filter(
        namespace="" if everywhere else namespace,
        suppress=[_suppression(text) for text in suppress],
        only=only,
    )
    found = run(given, wanted)
    shown = worst(found, _level(output_threshold))
    _show(shown, output, len(parts) or len(given.live))
    if wanted.namespace and wanted.namespace not in _namespaces(given):
        click.echo(f"note: nothing here is in the namespace {wanted.namespace}", err=True)
    return 1 if worst(found, _level(failure_threshold)) else 0


def read(paths: Sequence[str]) -> tuple[list[Part], list[Problem]]:
    """All objects of the paths, as they are written, and what was wrong with reading them.

    Raises:
        UsageError: when a path does not exist or cannot be read.
    """
    from weft.model.files import read_paths
    from weft.model.parse import unwrap

    documents, found = read_paths(paths)
    parts: list[Part] = []
    problems = list(found)
    for document in documents:
        inside, wrong = unwrap(document)
        parts += inside
        problems += wrong
    return parts, problems


def _skipped(path: str) -> bool:
    """Whether a file's name says that it is no configuration; says so."""
    from pathlib import Path

    from weft.model.files import SUFFIXES

    suffix = Path(path).suffix
    if suffix in {"", *SUFFIXES} or not Path(path).is_file():
        return False
    click.echo(f"skipped {path}: configuration is in {', '.join(sorted(SUFFIXES))} files", err=True)
    return True


def _level(text: str) -> Severity:
    return next(level for level in Severity if level.value.lower() == text.lower())


def _check_names(only: Iterable[str]) -> None:
    from weft.analysis.analyzers import ANALYZERS
    from weft.errors import did_you_mean

    known = {analyzer.name for analyzer in ANALYZERS}
    for name in only:
        if name not in known and not name.startswith("schema.ValidationAnalyzer."):
            hint = did_you_mean(name, known) or "weft analyze -L lists them"
            raise UsageError(f"there is no analyzer {name!r}", hint=hint)


def _suppression(text: str) -> tuple[str, str]:
    from weft.analysis.codes import CODES

    code, found, resource = text.partition("=")
    if not found or not code.strip() or not resource.strip():
        raise UsageError(f"{text!r} says not what to suppress", hint="write -S 'IST0102=Namespace foo'")
    if code.strip() not in CODES and code.strip() != "*":
        click.echo(f"warning: no finding has the code {code.strip()}", err=True)
    return code.strip(), resource.strip()


def _named(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not found or not name or not path:
        raise UsageError(f"{text!r} names no cluster", hint="write --cluster east=files/")
    return name, path


def _settings(path: str) -> dict[str, Any]:
    from weft.analysis.tree import table
    from weft.model.files import read_file

    documents, problems = read_file(path)
    if problems or not documents:
        flaw = str(problems[0]) if problems else f"{path} is empty"
        raise UsageError(f"the settings cannot be read: {flaw}")
    data = documents[0].data
    return table(data, "spec") if "apiVersion" in data else data


_RBAC: Final = "rbac.authorization.k8s.io"


def _namespaces(given: Input) -> set[str]:
    """Those that objects are in, or that are declared."""
    files = ((part.data, given.namespace) for part in given.parts)
    found = set()
    for one, usual in (*files, *((one, "") for one in given.live)):
        metadata = one.get("metadata")
        if isinstance(metadata, dict):
            name = "name" if one.get("kind") == "Namespace" else "namespace"
            found.add(str(metadata.get(name) or usual))
    return found


def _objects(server: str | None, namespace: str) -> list[dict[str, Any]]:
    from weft.cli.server import connect

    return connect(server, lambda client: every_object(client, namespace))


async def every_object(client: ApiClient, namespace: str = "") -> list[dict[str, Any]]:
    """Every object of the mesh that the caller may read; what it may not is said, once.

    Who may not look at all of a kind sees those of ``namespace``. Roles and their bindings are no
    configuration of the mesh.

    Raises:
        RefusedError: when there is nothing that it may read.
    """
    from weft.client import RefusedError

    found: list[dict[str, Any]] = []
    withheld: dict[str, RefusedError] = {}
    partly = False
    wanted = [one for one in await client.resources() if one.group != _RBAC]
    for resource in wanted:
        places = (None, namespace) if resource.namespaced and namespace else (None,)
        for place in places:
            try:
                listed = await client.list(resource, place)
            except RefusedError as refusal:
                if refusal.code != 403:
                    raise
                withheld.setdefault(resource.full_name, refusal)
                continue
            withheld.pop(resource.full_name, None)
            partly = partly or place is not None
            # A list says once what its items are.
            head = {"apiVersion": listed["apiVersion"], "kind": str(listed["kind"]).removesuffix("List")}
            found += [{**head, **item} for item in listed["items"]]
            break
    if len(withheld) == len(wanted):
        raise next(iter(withheld.values()))
    if partly:
        click.echo(f"warning: you may look at the namespace {namespace} only", err=True)
    if withheld:
        names = ", ".join(withheld)
        click.echo(f"warning: you may not list {names}: what they say is not looked at", err=True)
    return found


def _show(found: Sequence[Finding], output: str, looked_at: int) -> None:
    if output == "json":
        click.echo(json.dumps([finding.as_json() for finding in found], indent=2, ensure_ascii=False))
        return
    if output == "yaml":
        from weft.cli.server import show

        click.echo(show([finding.as_json() for finding in found], "yaml"))
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for finding in found:
        level = finding.level.value
        shown = click.style(level, fg=_COLOURS[finding.level], bold=True) if colour else level
        about = " ".join(filter(None, (finding.origin, finding.reference)))
        click.echo(f"{shown} [{finding.code}]{f' ({about})' if about else ''} {finding.message}")
    if not found:
        click.echo(f"nothing to complain of in {looked_at} object{'s' * (looked_at != 1)}", err=True)


def _list(output: str) -> None:
    from weft.analysis.analyzers import ANALYZERS
    from weft.analysis.codes import CODES

    if output in {"json", "yaml"}:
        from weft.cli.server import show

        codes = [
            {"code": code.id, "level": code.level.value, "name": code.name, "description": code.about}
            | ({"silent": code.silent} if code.silent else {})
            | {"documentationUrl": code.url}
            for code in CODES.values()
        ]
        click.echo(show(codes, output))
        return
    width = max(len(code.name) for code in CODES.values())
    for code in CODES.values():
        silent = f" (never given: {code.silent})" if code.silent else ""
        click.echo(f"{code.id:<8}  {code.level.value:<7}  {code.name:<{width}}  {code.about}{silent}")
    click.echo("\nAnalyzers, for --analyzer:")
    for analyzer in ANALYZERS:
        click.echo(f"* {analyzer.name}\n    {analyzer.about}")
