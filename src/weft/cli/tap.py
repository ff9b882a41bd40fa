"""``weft tap``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from weft.cli.server import connect, server_option
from weft.cli.traffic import coloured, explained, find_target, namespace_options
from weft.errors import UsageError, WeftError

if TYPE_CHECKING:
    from weft.client import ApiClient

Wire = dict[str, Any]
_F = TypeVar("_F", bound=Callable[..., Any])


def filter_options(command: _F) -> _F:
    """Which requests."""
    for option in reversed(
        (
            click.option("--method", default="", help="As GET."),
            click.option("--path", default="", help="A beginning, or a pattern with *."),
            click.option("--host", default="", help="A beginning, or a pattern with *."),
            click.option("--status", default="", metavar="CODES", help="As 503, 5xx or 500-599,429."),
            click.option("--caller", default="", metavar="TEXT", help="A part of its identity or address."),
            click.option("--errors", is_flag=True, help="Only those that the server's side failed."),
            click.option(
                "--slow", default="", metavar="DURATION", help="Only those that took so long, as 100ms."
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="[SERVICE|WORKLOAD]", required=False)
@filter_options
@click.option("--max-rps", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True,
              help="Show no more than so many a second.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--for", "seconds", metavar="DURATION", help="End after this.")
@namespace_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one object a line.")  # fmt: skip
@server_option
def tap(
    target: str | None, method: str, path: str, host: str, status: str, caller: str, errors: bool, slow: str,
    max_rps: float, count: int | None, seconds: str | None, namespace: str, everywhere: bool, output: str,
    server: str | None,
) -> None:  # fmt: skip
    """Requests that workloads and gateways receive, as they happen.

    While it runs, their proxies tell of all requests, without a restart; above 2,000 a second of a share of
    them. That costs them CPU: 20 us a request. It is put back at the end, whatever ends it.

    \b
    weft tap reviews --errors
    weft tap -n shop --slow 250ms --path '/api/*' --caller sa/front
    weft tap istio-ingressgateway --status 404,5xx -o json
    """
    wanted = filters(
        method=method, path=path, host=host, status=status, caller=caller, errors=errors, slow=slow
    )
    shower = _Shower(max_rps, output, colour=coloured())
    limit = lasting(seconds)

    async def run(client: ApiClient) -> None:
        async with contextlib.aclosing(watch(client, target, namespace, everywhere, wanted, limit)) as lines:
            async for line in lines:
                if record := line.get("record"):
                    shower.show(record)
                    if count is not None and shower.shown >= count:
                        return

    with contextlib.suppress(KeyboardInterrupt):
        connect(server, run)
    if shower.hidden:
        click.echo(f"{shower.hidden} more were not shown: --max-rps {max_rps:g}, or choose fewer", err=True)


def filters(**said: str | bool) -> dict[str, str]:
    """What the API is asked for.

    Raises:
        UsageError: something cannot be read.
    """
    from weft.telemetry.taps import Wanted

    wanted = {name: "true" if text is True else text for name, text in said.items() if text}
    try:
        Wanted.of({name: str(text) for name, text in wanted.items()})
    except ValueError as error:
        raise UsageError(str(error)) from error
    return {name: str(text) for name, text in wanted.items()}


def lasting(text: str | None) -> float | None:
    """What ``--for`` says, in seconds.

    Raises:
        UsageError: it is no duration.
    """
    from weft.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise UsageError(f"--for: {error}") from error


async def watch(
    client: ApiClient, target: str | None, namespace: str, everywhere: bool, wanted: Mapping[str, str],
    seconds: float | None,
) -> AsyncGenerator[Wire]:  # fmt: skip
    """What ``GET /weft/v1/tap`` streams, after its beginning was told to people; until ``seconds`` are over.

    Raises:
        WeftError: nobody is there to be watched, the caller may not, or telemetry is gone.
    """
    from weft.client.api import RefusedError

    if namespace and everywhere:
        raise UsageError("-n and -A exclude each other")
    query = {**await _place(client, target, namespace), **wanted}
    lines = client.lines("/weft/v1/tap", query={key: text for key, text in query.items() if text})
    end = None if seconds is None else asyncio.get_running_loop().time() + seconds
    try:
        async with contextlib.aclosing(lines):
            while True:
                async with asyncio.timeout_at(end):
                    line = await anext(lines)
                if error := line.get("error"):
                    raise WeftError(str(error.get("message")), hint=str(error.get("hint") or ""))
                if started := line.get("started"):
                    _announce(started)
                yield line
    except TimeoutError:
        return
    except RefusedError as refusal:
        if refusal.code == 404:
            raise WeftError(refusal.message, hint="weft proxy status lists those that are") from refusal
        raise explained(refusal) from refusal
    except StopAsyncIteration as ended:
        raise WeftError(
            "the control plane ended the watch",
            hint="it was stopped, or you may watch no longer: try again",
        ) from ended


async def _place(client: ApiClient, target: str | None, namespace: str) -> dict[str, str]:
    """Where to look and for what. What nobody has told of yet may be watched as well."""
    from weft.telemetry.targets import Asked

    if target is None:
        return {"namespace": namespace}
    asked = Asked.of(target, namespace)
    if not asked.namespace:
        try:
            found = await find_target(client, target, "")
        except WeftError:
            return {"of": asked.name}
        return {"namespace": found.namespace, "of": found.name}
    return {"namespace": asked.namespace, "of": asked.name}


def _announce(started: Mapping[str, Any]) -> None:
    from weft.cli.traffic_text import inert

    failed = started["failed"]
    for proxy, why in failed.items():
        click.echo(f"warning: {inert(proxy)} cannot be watched: {inert(why)}", err=True)
    watched = [name for name in started["proxies"] if name not in failed]
    if not watched:
        raise WeftError("no proxy can be watched", hint="see weft proxy status")
    names = ", ".join(watched[:3]) + (f" and {len(watched) - 3} more" if len(watched) > 3 else "")
    click.echo(f"watching {inert(names)}; Ctrl-C ends it", err=True)


class _Shower:
    """Prints requests, and not more than so many a second."""

    def __init__(self, most_a_second: float, output: str, *, colour: bool) -> None:
        self.shown = self.hidden = 0
        self._most = most_a_second
        self._output = output
        self._colour = colour
        self._room = max(1.0, most_a_second)
        self._then = time.monotonic()

    def show(self, record: Wire) -> None:
        """One request."""
        now = time.monotonic()
        self._room = min(max(1.0, self._most), self._room + (now - self._then) * self._most)
        self._then = now
        if self._room < 1:
            self.hidden += 1
            return
        self._room -= 1
        self.shown += 1
        click.echo(json.dumps(record) if self._output == "json" else line(record, colour=self._colour))


def line(record: Mapping[str, Any], *, colour: bool = False) -> str:
    """One request for people."""
    from datetime import UTC, datetime

    from weft.analysis.response_flags import in_words
    from weft.cli.traffic_text import identity, inert, size, whole_ms
    from weft.telemetry.taps import failed

    when = datetime.fromtimestamp(record["time"] / 1_000, UTC)
    caller = identity(record["source"]) if record["source"] else f"{record['sourceIp'] or '?'} (no identity)"
    if workload := record.get("sourceWorkload"):
        caller = f"{caller.partition('/')[0]}/{workload}"
    if record["protocol"] == "tcp":
        code = "TCP"
        what = f"port {record['port']}, {size(record['sent'])} sent, {size(record['received'])} received"
    else:
        code = f"{record['code'] or 'none'}" + (f"/{record['grpc']}" if record["grpc"] is not None else "")
        what = f"{record['method']} {record['path']}"
    parts = [
        f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}",
        f"{code:<4}",
        f"{whole_ms(record['duration']):>7}",
        what,
        f"{caller} -> {record['namespace']}/{record['instance']}",
        record["tls"],
    ]
    if record["decision"] == "deny":
        parts.append(f"denied{' by ' + record['policy'] if record['policy'] else ''}")
    if record["flags"]:
        parts.append(f"{record['flags']}: {in_words(record['flags'])}")
    shown = inert("  ".join(parts))
    if not colour:
        return shown
    return click.style(shown, fg="red") if failed(record) else shown
