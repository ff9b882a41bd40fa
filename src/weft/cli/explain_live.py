"""``weft explain`` of what runs: proxies by their Envoys' dumps, requests by the access logs of this host."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click

from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.analysis.explain.live import Running
    from weft.analysis.explain.onward import Arrival, Journey
    from weft.analysis.explain.request import Sender
    from weft.client import ApiClient

_DUMP: Final = "/config_dump?include_eds"
_LOGS: Final = ("stdout.log", "stdout.log.1", "access.log", "access.log.1")


class Asking:
    """Proxies that run, each asked for its configuration once."""

    def __init__(self, server: str | None) -> None:
        self._server = server
        self._known: dict[tuple[str, str], Running] = {}
        self._identities: dict[str, str] = {}

    def explain(self, question: object) -> dict[str, Any]:
        """What becomes of a request, at the proxy that is asked and at those that it comes to; as JSON.

        Raises:
            WeftError: when the proxy cannot be asked.
        """
        from weft.analysis.explain.mesh import unanswered
        from weft.analysis.explain.request import read_request

        try:
            read = read_request(question)
        except ValueError as error:
            return unanswered(question, error)
        sender = read.sender
        key = sender.role.value, f"{sender.namespace}/{sender.name}"
        if key not in self._known:
            self._known[key] = self._running(sender)
        begun = self._known[key]
        journey = begun.begin(read, question, self._identity(begun))
        for arrival in journey.arrivals:
            self._arrive(journey, arrival)
        return journey.json()

    def _arrive(self, journey: Journey, arrival: Arrival) -> None:
        """Ask the proxy before an endpoint, on whatever host it is."""
        from weft.analysis.explain.live import OUTSIDE, bearer_of
        from weft.analysis.explain.request import Role

        name = bearer_of(arrival, self._entries)
        if name is None:
            journey.unjudged(arrival, OUTSIDE)
            return
        key = Role.INBOUND.value, name
        try:
            if key not in self._known:
                self._known[key] = running(name, self._server)
        except WeftError as error:
            journey.unjudged(arrival, f"{name} has no proxy that can be asked: {error.message}")
        else:
            self._known[key].arrive(journey, arrival, name)

    @cached_property
    def _entries(self) -> list[dict[str, Any]]:
        """All WorkloadEntries that the caller may read."""
        from weft.cli.server import connect, find_resource

        async def fetch(client: ApiClient) -> list[dict[str, Any]]:
            kind = find_resource(await client.resources(), "workloadentries")
            return list((await client.list(kind))["items"])

        try:
            return connect(self._server, fetch)
        except WeftError:
            return []

    def _identity(self, begun: Running) -> str:
        from weft.analysis.explain.live import identity_of

        if begun.name is None:
            return ""
        workload = f"{begun.name.namespace}/{begun.name.name}"
        if workload not in self._identities:
            from weft.cli.proxy import ask_admin

            answer = ask_admin(workload, "GET", "/certs", self._server)
            self._identities[workload] = identity_of(json.loads(answer))
        return self._identities[workload]

    def _running(self, sender: Sender) -> Running:
        """The first that there is of those that may be meant."""
        name = f"{sender.namespace}/{sender.name}"
        failures = []
        for workload in sender.proxies:
            try:
                return running(workload, self._server)
            except WeftError as error:
                failures.append(error)
        for workload in _serving(name, self._server) if sender.role.value == "gateway" else ():
            try:
                return running(workload, self._server)
            except WeftError as error:
                failures.append(error)
        raise WeftError(
            f"{name} cannot be asked: {failures[0].message}",
            hint=failures[0].hint or "weft proxy status lists those that run",
        )


def _serving(gateway: str, server: str | None) -> list[str]:
    """Workloads that the selector of an Istio Gateway chooses, as ``namespace/name``."""
    from weft.cli.server import connect, find_resource

    async def fetch(client: ApiClient) -> list[str]:
        kinds = await client.resources()
        namespace, _, name = gateway.partition("/")
        gateways = await client.list(find_resource(kinds, "gateways.networking.istio.io"), namespace)
        selectors = [
            one["spec"].get("selector") for one in gateways["items"] if one["metadata"]["name"] == name
        ]
        if not any(selectors):
            return []
        chosen = ",".join(f"{key}={value}" for key, value in selectors[0].items())
        entries = await client.list(find_resource(kinds, "workloadentries"), selector=chosen)
        return [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in entries["items"]]

    return connect(server, fetch)


def running(workload: str, server: str | None) -> Running:
    """A proxy by ``namespace/name``.

    Raises:
        WeftError: when it cannot be asked, or its answer is no dump.
    """
    from weft.analysis.explain.live import Running
    from weft.cli.proxy import ask_admin, read_dump

    dump = read_dump(ask_admin(workload, "GET", _DUMP, server), workload)
    try:
        return Running(dump)
    except ValueError as error:
        raise WeftError(f"{workload}: {error}") from error


def log_lines() -> Iterator[tuple[str, str]]:
    """Lines of the logs of this host's proxies that the caller may read, with ``namespace/name``."""
    from weft.client.locate import runtime_directories

    for directory in runtime_directories(os.environ, os.getuid()):
        for folder in sorted({*directory.glob("workloads/*"), *directory.glob("*/workloads/*")}):
            namespace, _, name = folder.name.partition(".")
            for file in _LOGS:
                try:
                    with (folder / file).open(errors="replace") as log:
                        yield from ((f"{namespace}/{name}", line) for line in log)
                except OSError:
                    continue


def print_hops(request_id: str, output: str) -> None:
    """Which proxies of this host a request passed, and what each did with it.

    Raises:
        WeftError: when no log of this host has it.
    """
    from weft.analysis.explain.hops import describe, hops_of

    hops = hops_of(request_id, log_lines())
    if not hops:
        raise WeftError(
            f"no proxy of this host has logged the request {request_id}",
            hint="logs are written within a second, where the MeshConfig has an accessLogFile or evidenceLog",
        )
    known: dict[str, Running | None] = {}
    rows = []
    for hop in hops:
        if hop.proxy not in known:
            known[hop.proxy] = _maybe(hop.proxy)
        rows.append(describe(hop, known[hop.proxy]))
    if output == "json":
        click.echo(json.dumps({"requestId": request_id, "hops": rows}, indent=2))
    elif output == "yaml":
        import yaml

        yaml.safe_dump({"requestId": request_id, "hops": rows}, sys.stdout, sort_keys=False)
    else:
        for number, row in enumerate(rows, 1):
            for line in _text(number, row):
                click.echo(line)


def _maybe(workload: str) -> Running | None:
    """The proxy, if it still runs."""
    try:
        return running(workload, None)
    except WeftError:
        return None


def _text(number: int, row: dict[str, Any]) -> Iterator[str]:
    flags = f" ({row['flags']})" if row["flags"] else ""
    yield f"{number}  {row['proxy']}, {row['direction']}: {row['status']}{flags} after {row['durationMs']} ms"
    route = row["route"]
    resource = f"{route['kind']} {route['namespace']}/{route['name']}" if route["kind"] else row["routeName"]
    if route["rule"] is not None:
        resource = f"{resource} rule {route['rule']}"
    shown = {
        "request": f"{row['method']} {row['authority']} {row['path']}",
        "peer": row["peer"],
        "virtualHost": row["virtualHost"],
        "route": resource,
        "cluster": row["cluster"],
        "endpoint": row["endpoint"],
        "policy": _judged(row["authz"], "decision", "policy", "rule"),
        "dry run": _judged(row["authz"], "dryRun", "dryRunPolicy", "dryRunRule"),
        "flags": row["meaning"],
        "details": row["details"],
    }
    yield from (f"   {name:<12} {value}" for name, value in shown.items() if value)


def _judged(authz: dict[str, Any], decision: str, policy: str, rule: str) -> str:
    """``deny by shop/no-admin rule 0``; empty where no policy was asked."""
    if authz[decision] is None:
        return ""
    by = f" by {authz[policy]}" if authz[policy] else ", no policy fits"
    return f"{authz[decision]}{by}" + (f" rule {authz[rule]}" if authz[rule] is not None else "")
