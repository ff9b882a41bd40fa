"""``weft status``: the status that resources would get, without a running mesh."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from weft.cli.documents import refuse_errors
from weft.cli.server import connect, files_option, server_option, show
from weft.errors import Severity, UsageError, WeftError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from weft.errors import Problem
    from weft.model.parse import Part
    from weft.model.resource import Key, Resource

Wire = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HIDDEN: Final = ("data", "stringData")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@files_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="The resources with their status.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where none is given.")
@click.option("--controller-name", default="", help="Serve GatewayClasses of this controller as well.")
@click.option(
    "--state",
    multiple=True,
    metavar="PATH",
    help="What the resources bore before: times, and what other controllers say, are kept.",
)
@click.option(
    "--time",
    default="",
    metavar="TIME",
    help="When what changed did so: 'now' or RFC 3339; else a second after the newest time in the files.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 when something is not as it should be.")
@server_option
def status(
    paths: tuple[str, ...],
    files: tuple[str, ...],
    output: str | None,
    namespace: str,
    controller_name: str,
    state: tuple[str, ...],
    time: str,
    strict: bool,
    server: str | None,
) -> int:
    """What weft would say of resources: accepted or not, by whom, and why.

    PATHS are files, directories (recursively) or - for standard input. Gateways and routes are judged by
    what the files say; without a running mesh whatever is sound counts as programmed. Documents with
    errors are left out and reported; then the exit code is 1. Without PATHS: what the mesh that runs says
    of all that it has.
    """
    from weft.cli.status_table import findings, table

    paths = (*files, *paths)
    if paths:
        found, problems = computed(paths, state, namespace, controller=controller_name, time=time)
    elif state or controller_name or time:
        raise UsageError("no files are given", hint="name files or directories, or - for standard input")
    else:
        found, problems = _stored(server), ()
    if output == "json":
        click.echo(show({"apiVersion": "v1", "kind": "List", "items": found}, "json"))
    elif output == "yaml":
        click.echo("\n---\n".join(show(item, "yaml") for item in found))
    else:
        click.echo(table(found, colour=sys.stdout.isatty()))
    try:
        for problem in refuse_errors(problems, "without which this was found"):
            click.echo(f"{problem.severity.lower()}: {problem}", err=True)
    except WeftError as error:
        from weft.cli import report

        report(error)
        return error.exit_code
    return 1 if strict and findings(found) else 0


def _stored(server: str | None) -> list[Wire]:
    """What a running mesh says of its objects, without those of which it says nothing."""
    from weft.cli.analyze import every_object

    return [item for item in connect(server, every_object) if item.get("status")]


def computed(
    paths: Iterable[str],
    state: Sequence[str] = (),
    namespace: str = "default",
    *,
    controller: str = "",
    time: str = "",
) -> tuple[list[Wire], tuple[Problem, ...]]:
    """Every object of the paths as it is written, with its status, and the problems of the files.

    ``state``: paths of what the objects bore before; without it what they bear in the files themselves.
    ``controller``: GatewayClasses of this controller are weft's too. Contents of Secrets are left out.

    Raises:
        UsageError: for a path that cannot be read, and for a ``time`` that is none.
    """
    from weft.analysis.analyze import Input, analyze
    from weft.cli.status_analysis import analysed
    from weft.compile.gatewayapi.conditions import merged
    from weft.compile.gatewayapi.status import statuses
    from weft.compile.istio.status import entry_statuses
    from weft.compile.world import World
    from weft.model.service_entry import ServiceEntry
    from weft.names import GATEWAY_CONTROLLER

    objects, problems = _read(paths, namespace)
    before = _earlier(state, namespace)
    now = _now(time, [*(part.data for part, _ in objects), *before.values()])
    resources = [_aged(part.data, one, before.get(one.key)) for part, one in objects if one is not None]
    world = World.build(resources)
    if controller:
        known = world.settings.controllers | {controller}
        world = World.build(resources, replace(world.settings, controllers=known))
    findings = analyze(Input(parts=[part for part, _ in objects], namespace=namespace))
    made = {
        **analysed(resources, findings),
        **statuses(world.gateway_facts, controller or GATEWAY_CONTROLLER),
    }
    for entry, addresses in entry_statuses(world.all(ServiceEntry), world.vips):
        made[entry] = {**made[entry], **addresses}
    found: list[Wire] = []
    for part, resource in objects:
        item = part.data
        key = resource.key if resource is not None else None
        old = _mapping((before.get(key, item) if key is not None else item).get("status"))
        new = made.get(key) if key is not None else None
        if key is not None and new is not None:
            old = merged(new, old, now, world.settings.controllers, key.namespace)
        wire = _without_secrets(item)
        found.append({**wire, "status": old} if old else wire)
    return found, problems


def _read(
    paths: Iterable[str], namespace: str
) -> tuple[list[tuple[Part, Resource | None]], tuple[Problem, ...]]:
    """Every object as it is written and, unless something is wrong with it, as it is understood."""
    from weft.model.files import read_paths
    from weft.model.parse import parse, unwrap
    from weft.model.untranslated import findings

    documents, broken = read_paths(paths)
    problems = list(broken)
    found: list[tuple[Part, Resource | None]] = []
    for document in documents:
        parts, wrong = unwrap(document)
        problems += wrong
        for part in parts:
            resource, wrong = parse(part, namespace)
            problems += wrong
            if resource is not None:
                problems += findings(resource, part.where)
            elif all(
                problem.path == "metadata.name" for problem in wrong if problem.severity is Severity.ERROR
            ):
                resource = _misnamed(part, namespace)
            found.append((part, resource))
    return found, tuple(problems)


def _misnamed(part: Part, namespace: str) -> Resource | None:
    """A resource that only its name is wrong with: it is judged all the same, since others refer to it."""
    from weft.model.parse import parse_object

    metadata = _mapping(part.data.get("metadata"))
    name = metadata.get("name")
    if not isinstance(name, str):
        return None
    resource, _ = parse_object({**part.data, "metadata": {**metadata, "name": "x"}}, part.where, namespace)
    if resource is None:
        return None
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"name": name})})


def _earlier(paths: Sequence[str], namespace: str) -> dict[Key, Wire]:
    """Objects of an earlier state by their key. Only their metadata and status need to be right."""
    from weft.model.catalog import by_kind
    from weft.model.files import read_paths
    from weft.model.parse import unwrap
    from weft.model.resource import Key

    documents, problems = read_paths(paths)
    refuse_errors(problems, "in the earlier state")
    found: dict[Key, Wire] = {}
    for part in (part for document in documents for part in unwrap(document)[0]):
        row = by_kind(str(part.data.get("apiVersion")), str(part.data.get("kind")))
        metadata = _mapping(part.data.get("metadata"))
        if row is not None:
            space = str(metadata.get("namespace") or namespace) if row.namespaced else ""
            found[Key(row.id, space, str(metadata.get("name")))] = part.data
    return found


def _aged(item: Wire, resource: Resource, before: Wire | None) -> Resource:
    """The resource at the generation that the API would give it after ``before``: a new spec is a new one."""
    metadata = resource.metadata
    if metadata.generation is not None:
        return resource
    known = before or item
    past = _mapping(known.get("metadata")).get("generation")
    if not isinstance(past, int):
        seen = (one.get("observedGeneration") for one in _conditions(known.get("status")))
        past = max((number for number in seen if isinstance(number, int)), default=1)
    if before is not None and before.get("spec") and not _within(item.get("spec"), before["spec"]):
        past += 1
    return resource.model_copy(update={"metadata": metadata.model_copy(update={"generation": past})})


def _within(new: object, old: object) -> bool:
    """Whether all that ``new`` says holds in ``old``, where the API has written defaults out."""
    if isinstance(new, dict) and isinstance(old, dict):
        return all(name in old and _within(value, old[name]) for name, value in new.items())
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(_within, new, old))
    return new == old


def _now(text: str, items: Iterable[Wire]) -> str:
    """When changes are said to have happened. Not the clock's time: the same files give the same output."""
    if text == "now":
        return _stamp(datetime.now(UTC))
    if text:
        moment = _moment(text)
        if moment is None:
            raise UsageError(f"{text!r} is not a time", hint="write now, or one like 2026-01-31T12:00:00Z")
        return _stamp(moment)
    times = [
        moment
        for item in items
        for word in (
            _mapping(item.get("metadata")).get("creationTimestamp"),
            *(one.get("lastTransitionTime") for one in _conditions(item.get("status"))),
        )
        if (moment := _moment(word)) is not None
    ]
    return _stamp(max(times) + timedelta(seconds=1) if times else _EPOCH)


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _conditions(status: object) -> Iterator[Mapping[str, Any]]:
    """All conditions in a status, those of its parts included."""
    if isinstance(status, dict):
        for name, value in status.items():
            if name == "conditions" and isinstance(value, list):
                yield from (item for item in value if isinstance(item, dict))
            else:
                yield from _conditions(value)
    elif isinstance(status, list):
        for item in status:
            yield from _conditions(item)


def _mapping(value: object) -> Wire:
    return value if isinstance(value, dict) else {}


def _without_secrets(item: Wire) -> Wire:
    if (item.get("apiVersion"), item.get("kind")) != ("v1", "Secret"):
        return item
    hidden = {name: dict.fromkeys(item[name], "") for name in _HIDDEN if isinstance(item.get(name), dict)}
    return {**item, **hidden}
