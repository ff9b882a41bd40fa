"""``weft call``: a request as a workload would make it."""

from __future__ import annotations

import asyncio
import json
import sys

import click


@click.command()
@click.option(
    "--from", "source", required=True, metavar="WORKLOAD", help="NAME, NAMESPACE/NAME or NAME.NAMESPACE."
)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="May be repeated.")
@click.option("-X", "--method", help="By default GET, with -d POST.")
@click.option("-d", "--data", help="The body.")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, metavar="N")
@click.option("-k", "--insecure", is_flag=True, help="https: do not check the server's certificate.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Machine-readable.")
@click.option("--mesh", default="default", show_default=True, help="Which node of this host.")
@click.argument("url")
def call(
    source: str,
    headers: tuple[str, ...],
    method: str | None,
    data: str | None,
    count: int,
    insecure: bool,
    output: str | None,
    mesh: str,
    url: str,
) -> int:
    """Send requests to URL through the sidecar of a workload, and say who answered.

    Exits 1 when a request got no answer at all; a status like 503 is an answer.
    """
    from weft.app.call import Caller, Request, Workload, summary
    from weft.cli.nodes import find_socket

    request = Request.of(url, method, headers, data)
    workload = asyncio.run(Workload.find(source, find_socket(mesh)))
    workload.enter()
    caller = Caller(workload, request, insecure=insecure)
    replies = []
    for number in range(count):
        reply = caller.call()
        replies.append(reply)
        if output:
            continue
        if count == 1 and reply.status:
            click.echo(reply.body.rstrip("\n"))
        else:
            said = reply.error or reply.answered_by
            click.echo(f"{number + 1:>4}  {reply.status or 'none'}  {reply.ms:8.1f} ms  {said}".rstrip())
    caller.close()
    found = summary(replies)
    if output:
        rows = {"replies": [reply.to_json() for reply in replies], "summary": found}
        click.echo(json.dumps(rows, indent=2))
    else:
        # A single reply's body may go into a pipe; of many, the sums are what was asked for.
        alone = count == 1
        statuses = ", ".join(f"{number} x {status}" for status, number in found["statuses"].items())
        failed = f"{found['failed']} without an answer" if found["failed"] else ""
        click.echo("; ".join(part for part in (statuses, failed) if part), err=alone)
        if found["p50Ms"] is not None:
            click.echo(f"p50 {found['p50Ms']} ms, p99 {found['p99Ms']} ms", err=alone)
        for who, number in found["answeredBy"].items():
            click.echo(f"{number:>6}  {who}", err=alone)
    sys.stdout.flush()
    return 1 if found["failed"] else 0
