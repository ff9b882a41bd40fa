"""``weft validate``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import files_option
from weft.errors import UsageError

if TYPE_CHECKING:
    from weft.errors import Problem
    from weft.model.parse import Part
    from weft.model.resource import Resource
    from weft.yaml import Document


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH…")
@files_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Machine-readable.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where none is given.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
def validate(
    paths: tuple[str, ...], files: tuple[str, ...], output: str | None, namespace: str, strict: bool
) -> int:
    """Check files, folders or standard input (-), without a mesh.

    Exits with 1 when a document is not valid.
    """
    from weft.model.files import read_paths

    if not (files or paths):
        raise UsageError("no files are given", hint="name files or directories, or - for standard input")
    documents, broken = read_paths((*files, *paths))
    results = [result for document in documents for result in check(document, namespace)]
    results += unread(broken, results)
    results.sort(key=lambda item: (item["file"], item["doc"], item["line"]))
    if output:
        write({"results": results}, output)
    else:
        show(results)
    bad = any(not item["valid"] or (strict and item["warnings"]) for item in results)
    return 1 if bad else 0


def check(document: Document, namespace: str) -> list[dict[str, Any]]:
    """What INTERFACES calls a result, for each resource of a document (a List has several)."""
    from weft.errors import Severity
    from weft.model.parse import parse, unwrap
    from weft.model.untranslated import findings

    parts, problems = unwrap(document)
    results: list[tuple[Part | None, Resource | None, tuple[Problem, ...]]] = []
    for item in parts:
        resource, found = parse(item, namespace)
        if resource is not None:
            found = (*found, *findings(resource, item.where))
            if resource.kind == "EnvoyFilter":  # only then: it takes Envoy's own types
                from weft.analysis.envoy_filters import unfit

                found = (*found, *unfit(resource, item.where))
        results.append((item, resource, found))
    if problems:
        results.append((None, None, problems))
    rows = []
    for part, resource, found in results:
        data = part.data if part else document.data
        metadata = data.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        said = metadata.get("namespace")
        rows.append(
            {
                "file": document.file,
                "doc": document.index,
                "line": (part or document).where().line,
                "apiVersion": data.get("apiVersion"),
                "kind": data.get("kind"),
                "namespace": resource.metadata.namespace if resource else said or namespace,
                "name": metadata.get("name") or metadata.get("generateName"),
                "valid": not any(problem.severity is Severity.ERROR for problem in found),
                "errors": [row(problem) for problem in found if problem.severity is Severity.ERROR],
                "warnings": [row(problem) for problem in found if problem.severity is not Severity.ERROR],
            }
        )
    return rows


def unread(problems: tuple[Problem, ...], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds YAML's errors to the documents they stand in. Results of their own for what could not be read."""
    from weft.yaml import CONTENT

    extra: list[dict[str, Any]] = []
    for problem in problems:
        file, line = (problem.where.file, problem.where.line) if problem.where else ("", 0)
        before = [item for item in results if item["file"] == file and item["line"] <= line]
        home = max(before, key=lambda item: item["line"], default=None)
        if home is None or problem.code != CONTENT:
            number = home["doc"] + 1 if home else 0
            home = {"file": file, "doc": number, "line": line, "apiVersion": None, "kind": None}
            home |= {"namespace": None, "name": None, "valid": False, "errors": [], "warnings": []}
            extra.append(home)
        home["valid"] = False
        home["errors"].append(row(problem))
    return extra


def row(problem: Problem) -> dict[str, Any]:
    """A finding as JSON."""
    where = problem.where
    return {
        "path": problem.path,
        "line": where.line if where else 0,
        "column": where.column if where else 0,
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
    }


def write(value: dict[str, Any], output: str) -> None:
    """Print JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True), nl=False)


def show(results: list[dict[str, Any]]) -> None:
    """One line a finding, then how many."""
    colour = sys.stdout.isatty()
    counts = {"error": 0, "warning": 0}
    for item in results:
        for level, style in (("error", "red"), ("warning", "yellow")):
            for finding in item[f"{level}s"]:
                counts[level] += 1
                place = f"{item['file']}:{finding['line']}:{finding['column']}"
                shown = click.style(level, fg=style, bold=True) if colour else level
                path = f"{finding['path']}: " if finding["path"] else ""
                hint = f" ({finding['hint']})" if finding["hint"] else ""
                click.echo(f"{place}: {shown}: {path}{finding['message']}{hint}")
    good = sum(item["valid"] for item in results)
    parts = [f"{good} of {len(results)} valid" if good < len(results) else f"{good} valid"]
    parts += [f"{number} {level}{'s' * (number != 1)}" for level, number in counts.items() if number]
    click.echo(", ".join(parts))
