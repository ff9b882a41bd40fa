"""``weft check``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from weft.cli.server import connect, server_option
from weft.errors import UsageError, WeftError
from weft.node.layout import DEFAULT_MESH

if TYPE_CHECKING:
    from weft.client import ApiClient
    from weft.node.doctor import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command()
@click.option("--mesh", default=DEFAULT_MESH, show_default=True, help="Name of the mesh on this machine.")
@click.option("--host", "host_only", is_flag=True, help="Only this host, before anything is installed.")
@server_option
@click.option("-o", "--output", type=click.Choice(["json"]), help="Machine-readable.")
@click.pass_context
def check(context: click.Context, mesh: str, host_only: bool, server: str | None, output: str | None) -> None:
    """Is this host ready, is the mesh well? Each line with its remedy; exit code 1 when one fails.

    With --server, the control plane there is asked too: do all proxies run the newest configuration, what of
    telemetry was lost, and do collectors take its metrics?
    """
    if host_only and context.get_parameter_source("server") is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--host looks at this host only", hint="leave out --host, or --server")
    from weft.node.doctor import check_host, check_node
    from weft.node.layout import Layout

    layout = Layout.of(mesh)
    findings = asyncio.run(check_host(layout))
    if not host_only:
        findings += asyncio.run(check_node(layout))
        findings += check_control_plane(server) if server else []
    if output:
        rows = [
            {
                "name": found.name,
                "status": found.status,
                "message": found.message,
                **({"remedy": found.remedy} if found.remedy else {}),
            }
            for found in findings
        ]
        click.echo(json.dumps(rows))
    else:
        for found in findings:
            mark, colour = _MARKS[found.status]
            click.echo(f"{click.style(mark, fg=colour)} {found.name}: {found.message}")
            if found.remedy:
                click.echo(f"    {found.remedy}")
    if any(found.status == "fail" for found in findings):
        sys.exit(1)


def check_control_plane(server: str) -> list[Finding]:
    """Whether the control plane answers there, and the proxies run what it has made."""
    from weft.node.doctor import Finding

    async def ask(client: ApiClient) -> Any:
        latest = (await client.raw("GET", "/weft/v1/convergence/0"))["latest"]
        answer = await client.raw("GET", f"/weft/v1/convergence/{latest}")
        try:
            return answer, await client.raw("GET", "/weft/v1/telemetry/health")
        except WeftError as error:
            return answer, error

    try:
        answer, health = connect(server, ask)
    except WeftError as error:
        return [Finding("API", "fail", error.message, error.hint)]
    about = Finding("API", "ok", f"{server} answers; the newest revision is {answer['revision']}")
    return [about, *of_proxies(answer), *of_telemetry(health)]


def of_telemetry(health: dict[str, Any] | WeftError) -> list[Finding]:
    """By the API's answer to ``telemetry/health``, or why there is none: what was lost, who is not told."""
    from weft.node.doctor import Finding

    if isinstance(health, WeftError):
        return [Finding("telemetry", "warn", health.message, health.hint)]
    lost = {name: count for name, count in health["lost"].items() if count}
    said = ", ".join(f"{count} {name}" for name, count in sorted(lost.items()))
    remedy = "weft_telemetry_lost_total in the control plane's /metrics tells when" if lost else ""
    findings = [
        Finding("telemetry", "warn" if lost else "ok", f"lost since it began: {said or 'nothing'}", remedy)
    ]
    for one in health.get("collectors", ()):
        name, where = f"metrics to {one['provider']}", one["endpoint"] or "nowhere"
        if one["error"]:
            remedy = "it is tried again by itself; look at the provider in the MeshConfig"
            findings.append(Finding(name, "warn", f"{where}: {one['error']}", remedy))
        elif one["up"]:
            findings.append(Finding(name, "ok", f"{where} takes them: {one['sent']} points so far"))
        else:
            findings.append(Finding(name, "ok", f"{where} is told in a moment"))
    return findings


def of_proxies(answer: dict[str, Any]) -> list[Finding]:
    """By the API's answer to ``convergence``."""
    from weft.node.doctor import Finding

    findings = []
    refused = sorted({one["proxy"] for one in answer["rejected"]})
    late = sorted(set(answer["missing"]) - set(refused))
    if refused:
        said = f"{len(refused)} of {answer['total']} refuse a part of their configuration: {_some(refused)}"
        findings.append(Finding("proxies", "fail", said, f"weft proxy status {refused[0]}"))
    if late:
        said = f"{len(late)} of {answer['total']} do not run it yet: {_some(late)}"
        findings.append(Finding("proxies", "warn", said, "weft proxy status; look again in a moment"))
    return findings or [Finding("proxies", "ok", f"all {answer['total']} that are connected run it")]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
