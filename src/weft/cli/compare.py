"""``weft compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, server_option
from weft.cli.traffic import (
    check,
    coloured,
    find_target,
    namespace_options,
    output_option,
    question,
    window_option,
)
from weft.errors import UsageError, WeftError, did_you_mean

if TYPE_CHECKING:
    from weft.client import ApiClient
    from weft.telemetry.compare import Finding, Sample
    from weft.telemetry.targets import Target

Wire = dict[str, Any]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[SERVICE] BASELINE CANDIDATE | WORKLOAD WORKLOAD")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True), default=0.01, show_default=True,
              help="The chance of taking luck for a difference.")  # fmt: skip
@click.option("--fail-on-regression", is_flag=True, help="Exit 1 when the candidate is worse.")
@window_option
@namespace_options
@output_option
@server_option
def compare(
    names: tuple[str, ...], alpha: float, fail_on_regression: bool, window: str, namespace: str,
    everywhere: bool, output: str, server: str | None,
) -> None:  # fmt: skip
    """Is one version better than the other, or is it chance?

    Two versions of a service, or two workloads. The service need not be said if only one has both versions.
    Success by a two-proportion z-test, of few failures Fisher's exact test; latency by a Mann-Whitney test of
    all requests and a z-test of the slowest twentieth.

    \b
    weft compare reviews v1 v2 --window 15m
    weft compare shop/reviews-v1 shop/reviews-v2 --fail-on-regression
    """
    from weft.telemetry.compare import compare as judge
    from weft.telemetry.compare import regressed
    from weft.telemetry.targets import NobodyError

    check(window, namespace, everywhere)
    if len(names) not in {2, 3}:
        raise UsageError(
            "compare what?", hint="weft compare SERVICE v1 v2, or weft compare WORKLOAD WORKLOAD"
        )

    async def fetch(client: ApiClient) -> tuple[Sample, Sample]:
        if len(names) == 3:
            target = await find_target(client, names[0], namespace)
            return await _versions(client, target, names[1:], window)
        try:
            targets = [await find_target(client, name, namespace) for name in names]
        except NobodyError as nobody:
            answer = await question(client, "workloads", window=window, namespace=namespace)
            target = bearer(answer, names, nobody)
            return await _versions(client, target, names, window)
        first, second = [await _sample(client, one.name, [one.of], window) for one in targets]
        return first, second

    base, other = connect(server, fetch)
    findings = judge(base, other, alpha)
    if output != "table":
        from weft.cli.server import show

        found = {
            "window": window, "alpha": alpha, "baseline": base.to_dict(), "candidate": other.to_dict(),
            "findings": [finding.to_dict() for finding in findings], "regression": regressed(findings),
        }  # fmt: skip
        click.echo(show(found, output))
    else:
        click.echo(text(base, other, findings, colour=coloured()))
    if fail_on_regression and regressed(findings):
        raise click.exceptions.Exit(1)


async def _versions(
    client: ApiClient, target: Target, versions: Sequence[str], window: str
) -> tuple[Sample, Sample]:
    known = members(await question(client, "workloads", window=window), target)
    for version in versions:
        if version not in known:
            raise WeftError(
                f"no version {version!r} of {target} was heard of",
                hint=did_you_mean(version, known) or f"it has {', '.join(sorted(known)) or 'none'}",
            )
    first, second = [await _sample(client, version, known[version], window) for version in versions]
    return first, second


def bearer(answer: Wire, versions: Sequence[str], nobody: WeftError) -> Target:
    """The only service that has all of these versions.

    Raises:
        WeftError: there is none, or there are several.
    """
    from weft.telemetry.targets import Target

    services = [
        Target(kind="service", namespace=row["namespace"], name=row["name"]) for row in answer["services"]
    ]
    found = [one for one in services if members(answer, one).keys() >= set(versions)]
    if len(found) == 1:
        return found[0]
    words = " ".join(versions)
    if not found:
        raise WeftError(
            nobody.message, hint=f"for versions, say of which service: weft compare SERVICE {words}"
        )
    names = ", ".join(sorted(map(str, found)))
    raise WeftError(
        f"{' and '.join(versions)} are versions of {names}", hint=f"say which: weft compare SERVICE {words}"
    )


def members(answer: Wire, target: Target) -> dict[str, list[str]]:
    """The workloads of each version of a service, as questions name them; of a workload itself alone."""
    from weft.telemetry.targets import behind

    names = {target.name}
    if target.kind == "service":
        names = {one.name for one in behind(answer, target)}
    found: dict[str, list[str]] = {}
    for row in answer["workloads"]:
        if row["namespace"] == target.namespace and row["workload"] in names and row["version"]:
            found.setdefault(row["version"], []).append(f"workload:{row['namespace']}/{row['workload']}")
    return found


async def _sample(client: ApiClient, name: str, of: Sequence[str], window: str) -> Sample:
    """What these workloads answered, together."""
    from weft.telemetry.compare import Sample

    requests, errors, rps = 0, 0, 0.0
    bounds: tuple[float, ...] = ()
    counts: list[int] = []
    for one in of:
        total = (await question(client, "stat", of=one, window=window))["total"]
        requests, errors = requests + total["requests"], errors + total["errors"]
        rps += total["rps"]
        heat = await question(client, "series", metric="latency", of=one, since=window)
        bounds = tuple(heat["bounds"])
        counts = counts or [0] * (len(bounds) + 1)
        for step in (step for series in heat["series"] for step in series["counts"]):
            counts = [before + more for before, more in zip(counts, step, strict=True)]
    return Sample(
        name=name, requests=round(requests), errors=round(errors), rps=rps, bounds=bounds,
        counts=tuple(round(count) for count in counts),
    )  # fmt: skip


def text(base: Sample, other: Sample, findings: Sequence[Finding], *, colour: bool = False) -> str:
    """Both beside each other, and what is to be said of it."""
    from weft.cli.traffic_text import inert, ms, rate, share, table

    rows = [
        [
            one.name,
            f"{one.requests:,}",
            rate(one.rps),
            share(one.success),
            *(ms(one.quantile(part)) for part in (0.5, 0.95, 0.99)),
        ]
        for one in (base, other)
    ]
    lines = [table(("VERSION", "REQUESTS", "RPS", "SUCCESS", "P50", "P95", "P99"), rows), ""]
    colours = {"worse": "red", "better": "green", "unknown": "yellow"}
    for finding in findings:
        words = inert(finding.words)
        lines.append(
            click.style(words, fg=colours[finding.verdict])
            if colour and finding.verdict in colours
            else words
        )
        if finding.p is not None:
            lines.append(f"  by {finding.method}")
    return "\n".join(lines)
