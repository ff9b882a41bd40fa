"""``weft policy``: policies with evidence, out of the traffic that the mesh has seen."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, files_option, server_option
from weft.errors import UsageError

if TYPE_CHECKING:
    from weft.analysis.policy.judge import Read
    from weft.analysis.policy.observed import Observed
    from weft.client import ApiClient

Wire = dict[str, Any]

# Metrics of so long a time are looked at.
_METRICS_WINDOW = "24h"

_SAMPLED = "not all requests are told of (flowSampling): what is used rarely may look unused"

since_option = click.option(
    "--since", default="24h", show_default=True, metavar="DURATION", help="How far back to look."
)
flows_option = click.option(
    "--flows",
    "recorded",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Flows that 'weft policy flows -o json' printed, instead of the mesh's.",
)
paths_argument = click.argument("paths", nargs=-1, metavar="[PATH…]")
namespace_option = click.option(
    "-n", "--namespace", metavar="NAMESPACE", help="Of the workloads called. Default: all."
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text",
    show_default=True, help="How to print.",
)  # fmt: skip


@click.group()
def policy() -> None:
    """What policies would do to the traffic that was seen, and which it asks for.

    Every proxy that enforces policies tells of failures and denials, and of a share of all other requests:
    MeshConfig's flowSampling, 10 % unless you say otherwise. Set it to 100 while you write policies.
    """


@policy.command()
@since_option
@namespace_option
@output_option
@server_option
def flows(since: str, namespace: str | None, output: str, server: str | None) -> None:
    """Who called which workload with what, how often, and what was decided."""
    rows = _fetch_flows(since, namespace, server)
    if output != "text":
        _show({"flows": rows}, output)
        return
    from weft.analysis.policy.observed import read_flows

    for flow in read_flows(rows):
        click.echo(f"{flow.count:>8}  {flow.decision:<5}  {_line(flow)}")
    if not rows:
        click.echo(_nothing(since))


@policy.command()
@files_option
@click.option(
    "--without", multiple=True, metavar="NAMESPACE/NAME", help="As if this AuthorizationPolicy were removed."
)
@paths_argument
@since_option
@namespace_option
@flows_option
@output_option
@server_option
def replay(
    files: tuple[str, ...],
    without: tuple[str, ...],
    paths: tuple[str, ...],
    since: str,
    namespace: str | None,
    recorded: Path | None,
    output: str,
    server: str | None,
) -> None:
    """What a change would newly allow or deny of the traffic that was seen.

    -f names what would be applied: policies, and any other resources. Each flow is judged by the
    configuration that its destination would run, before the change and after it. PATHS are files of the mesh
    as it is; without any, the running mesh is asked. Exits 1 when anything changes, or may change.
    """
    from weft.analysis.policy.judge import replaced
    from weft.analysis.policy.replay import replay as run
    from weft.cli.documents import read_parts, refuse_errors
    from weft.cli.server import warn

    if not files and not without:
        raise UsageError("nothing would change", hint="name the candidate: weft policy replay -f FILE")
    candidate, problems = read_parts(files)
    warn(refuse_errors(problems))
    before = _read_mesh(paths, server)
    names = {
        f"{resource.metadata.namespace}/{resource.metadata.name}"
        for _, resource in before
        if resource.kind == "AuthorizationPolicy"
    }
    for name in without:
        if name not in names:
            raise UsageError(f"there is no AuthorizationPolicy {name}", hint="write NAMESPACE/NAME")
    known = _flows(recorded, since, namespace, server)
    outcome = run(known, before, replaced(before, candidate, without))
    if output != "text":
        _show({"since": since, **outcome.json()}, output)
    else:
        if not known:
            click.echo(_nothing(since))
        for title, kind in (
            ("would be denied", "denied"),
            ("would be allowed", "allowed"),
            ("may change: it depends on what is not recorded", "unknown"),
            ("would be decided otherwise by a dry run", "dryRun"),
        ):
            changes = outcome.of(kind)
            if changes:
                click.echo(f"{title}:")
            for change in changes:
                click.echo(f"{change.flow.count:>8}  {_line(change.flow)}")
                some = "" if change.whole else "only some of it, "
                for path in change.paths[:2] if some or "{" in change.flow.path else ():
                    click.echo(f"          {some}as {path}")
                if kind == "dryRun":
                    word = f"dry run: {change.after.dry_run} by {change.after.dry_run_policy or 'no policy'}"
                    click.echo(f"          {word}")
                else:
                    click.echo(f"          {change.after.why or change.after.word}")
        words = f"{outcome.looked_at} flows, {outcome.requests} requests"
        changed = len(outcome.changes)
        click.echo(f"{words}: {changed} would change" if changed else f"{words}: none would change")
    if outcome.changes:
        sys.exit(1)


@policy.command()
@paths_argument
@since_option
@namespace_option
@click.option("--workload", metavar="NAME", help="Only for this one.")
@flows_option
@output_option
@server_option
def suggest(
    paths: tuple[str, ...],
    since: str,
    namespace: str | None,
    workload: str | None,
    recorded: Path | None,
    output: str,
    server: str | None,
) -> None:
    """The least that allows what was seen, as AuthorizationPolicies to look at and apply.

    One for each workload that was called: callers exactly, methods, path templates, ports. With --namespace
    whatever else is there may be called by nobody. Nothing that was seen would be denied.
    """
    from weft.analysis.policy.suggest import suggest as run

    known = [
        flow
        for flow in _flows(recorded, since, namespace, server)
        if workload is None or flow.workload == workload
    ]
    read = _read_mesh(paths, server)
    close = (namespace,) if namespace and workload is None else ()
    made, lacking = run(known, read, close=close)
    untold = _untold(known, namespace, workload, server) if recorded is None else ()
    for message in (*lacking, *untold):
        click.echo(f"warning: {message}", err=True)
    if not any(one.counts for one in made):
        click.echo(_only_refused(known) if known else _nothing(since), err=True)
        return
    if output == "json":
        _show([one.policy for one in made], "json")
        return
    from weft.cli.policy_text import documents

    click.echo(documents(made, since), nl=False)


@policy.command()
@paths_argument
@since_option
@namespace_option
@flows_option
@output_option
@server_option
def unused(
    paths: tuple[str, ...],
    since: str,
    namespace: str | None,
    recorded: Path | None,
    output: str,
    server: str | None,
) -> None:
    """Rules of AuthorizationPolicies, and callers, paths, methods in them, that nobody used.

    Exits 1 when there are some.
    """
    import time
    from datetime import UTC, datetime

    from weft.analysis.policy.unused import unused as run
    from weft.units import parse_duration

    try:
        since_ms = int((time.time() - parse_duration(since).total_seconds()) * 1_000)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from error
    known = _flows(recorded, "", None, server)
    found = [
        grant
        for grant in run(known, _read_mesh(paths, server), since_ms)
        if namespace is None or grant.policy.namespace == namespace
    ]
    if output != "text":
        _show([grant.json() for grant in found], output)
    for grant in found if output == "text" else ():
        last = "never used"
        if grant.last is not None:
            last = f"last used {datetime.fromtimestamp(grant.last / 1_000, UTC):%Y-%m-%d %H:%M} UTC"
        where = f"{grant.policy.namespace}/{grant.policy.name} {grant.path}"
        click.echo(f"{where}{f' {grant.value}' if grant.value else ''}: {last}")
    if found:
        if any(flow.kept < flow.count for flow in known):
            click.echo(f"warning: {_SAMPLED}", err=True)
        sys.exit(1)


def _fetch_flows(since: str, namespace: str | None, server: str | None) -> list[Wire]:
    async def fetch(client: ApiClient) -> list[Wire]:
        query = {"since": since} if since else {}
        if namespace:
            query["namespace"] = namespace
        rows: list[Wire] = (await client.raw("GET", "/weft/v1/telemetry/flows", query=query))["flows"]
        return rows

    return connect(server, fetch)


def _untold(
    known: Sequence[Observed], namespace: str | None, workload: str | None, server: str | None
) -> list[str]:
    """Callers that metrics count and no flow tells of: sampling has passed them over.

    Metrics are never sampled, and say neither method nor path.
    """
    from weft.analysis.policy.observed import uncovered

    async def fetch(client: ApiClient) -> list[Wire]:
        query = {"window": _METRICS_WINDOW}
        edges: list[Wire] = (await client.raw("GET", "/weft/v1/telemetry/edges", query=query))["edges"]
        return edges

    callers = [
        (
            edge["source"]["principal"],
            edge["destination"]["namespace"],
            edge["destination"]["app"],
            edge["requests"] + edge["opened"],
        )
        for edge in connect(server, fetch)
        if "destination" in edge["toldBy"]
    ]
    return [
        message
        for place, message in uncovered(callers, known)
        if namespace in {None, place[0]} and workload in {None, place[1]}
    ]


def _flows(
    recorded: Path | None, since: str, namespace: str | None, server: str | None
) -> tuple[Observed, ...]:
    from weft.analysis.policy.observed import read_flows

    if recorded is None:
        rows = _fetch_flows(since, namespace, server)
    else:
        try:
            text = sys.stdin.read() if str(recorded) == "-" else recorded.read_text()
            rows = list(json.loads(text)["flows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{recorded} holds no flows: {error!r}") from error
    try:
        found = read_flows(rows)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return tuple(flow for flow in found if namespace is None or flow.namespace == namespace)


def _read_mesh(paths: Sequence[str], server: str | None) -> Read:
    """The mesh of files, or the one that runs."""
    from weft.cli.documents import read_parts, refuse_errors
    from weft.model.parse import Part, parse
    from weft.yaml import Document

    if paths:
        read, problems = read_parts(paths)
        refuse_errors(problems)
        return read
    from weft.cli.analyze import every_object

    found = []
    for number, data in enumerate(connect(server, every_object)):
        part = Part(Document("the mesh", number, data, {}), data)
        resource, _ = parse(part)
        if resource is not None:
            found.append((part, resource))
    return tuple(found)


def _line(flow: Observed) -> str:
    source = flow.source.removeprefix("spiffe://") or "(no identity)"
    host = f" at {flow.host}" if flow.kind == "router" and flow.host else ""
    return f"{source} -> {flow.namespace}/{flow.workload}:{flow.port} {flow.title}{host}"


def _nothing(since: str) -> str:
    return f"no traffic was told of in the last {since}: is there any, and does the telemetry process run?"


def _only_refused(known: Sequence[Observed]) -> str:
    requests = sum(flow.count for flow in known)
    return f"of {requests} requests that were told of none was let pass: there is nothing to allow"


def _show(value: object, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    from weft.cli.server import show

    click.echo(show(value, "yaml"))
