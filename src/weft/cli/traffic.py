"""What the commands that look at traffic share: whom they ask, whom a name means, how they go on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from weft.errors import UsageError, WeftError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from weft.client import ApiClient
    from weft.telemetry.targets import Target

Wire = dict[str, Any]
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

REFRESH_S: Final = 2.0
_WORKLOADS: Final = "/apis/weft.dev/v1alpha1"

window_option = click.option(
    "--window", "-t", default="1m", show_default=True, metavar="DURATION", help="How far back to look."
)
output_option = click.option(
    "-o",
    "--output",
    "output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
)
watch_option = click.option("-w", "--watch", is_flag=True, help=f"Again every {REFRESH_S:g} s.")


def namespace_options(command: _F) -> _F:
    """``-n`` and ``-A``; the default is all of them."""
    command = click.option(
        "-A", "--all-namespaces", "everywhere", is_flag=True, help="All namespaces; the default."
    )(command)
    return click.option("-n", "--namespace", default="", metavar="NAMESPACE", help="Only this one.")(command)


def check(window: str, namespace: str, everywhere: bool, option: str = "--window") -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: for it.
    """
    from weft.units import parse_duration

    if namespace and everywhere:
        raise UsageError("-n and -A exclude each other")
    try:
        parse_duration(window)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


async def question(client: ApiClient, name: str, **asked: str) -> Wire:
    """An answer of the telemetry process; what is empty is left out of the question.

    Raises:
        WeftError: it does not run, it refuses, or the caller may not ask; with what to do.
    """
    from weft.client.api import RefusedError

    query = {key: text for key, text in asked.items() if text}
    try:
        answer: Wire = await client.raw("GET", f"/weft/v1/telemetry/{name}", query=query)
    except RefusedError as refusal:
        raise explained(refusal) from refusal
    return answer


def explained(refusal: Any) -> WeftError:
    """A refusal, with what to do about it where that is known here."""
    if refusal.code == 400:
        return UsageError(refusal.message)
    hints = {
        403: "ask about one namespace: -n NAMESPACE; an administrator may give you the role 'view'",
        404: "the control plane may be older than this command: compare weft version",
        503: "the telemetry process is started again by itself: try again, or see the control plane's log",
    }
    hint = str(refusal.status.get("hint") or "") or hints.get(refusal.code, refusal.hint)
    return WeftError(refusal.message, hint=hint)


async def find_target(client: ApiClient, text: str, namespace: str) -> Target:
    """The service or workload that is meant: one that was told of, else one of the configuration.

    Raises:
        UsageError, WeftError: the name is none, nobody bears it, or several do.
    """
    from weft.telemetry.targets import Asked, NobodyError, find

    asked = Asked.of(text, namespace)
    told = await question(client, "workloads", window="1h", namespace=asked.namespace)
    try:
        return find(asked, told)
    except NobodyError:
        silent = await _configured(client, asked.namespace)
        return find(asked, {part: [*told[part], *silent[part]] for part in silent})


async def _configured(client: ApiClient, namespace: str) -> Wire:
    """Services and workloads that may have had no traffic yet, as the question ``workloads`` has them."""
    from weft.client.api import RefusedError

    found: dict[str, list[Wire]] = {"services": [], "workloads": []}
    place = f"/namespaces/{namespace}" if namespace else ""
    for base, part, field in (("/api/v1", "services", "name"), (_WORKLOADS, "workloads", "workload")):
        try:
            answer = await client.raw("GET", f"{base}{place}/{part}")
        except RefusedError:  # who may look at traffic need not see the configuration
            continue
        for item in answer["items"]:
            about = item["metadata"]
            found[part].append({"namespace": about["namespace"], field: about["name"]})
    return found


def nothing(window: str, about: str = "") -> str:
    """For the reader of an empty table."""
    of = f" of {about}" if about else ""
    return (
        f"no traffic{of} was told of in the last {window}; look further back with --window, or see weft check"
    )


def coloured() -> bool:
    """Whether standard output wants colours."""
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def print_again(
    server: str | None, fetch: Callable[[ApiClient], Awaitable[_T]], show: Callable[[_T], str], watch: bool
) -> None:
    """Print once, or again and again until Ctrl-C: in place on a terminal, one below the other in a pipe."""
    from weft.cli.server import connect

    if not watch:
        click.echo(show(connect(server, fetch)))
        return

    async def follow(client: ApiClient) -> None:
        import asyncio

        with screen() as draw:
            while True:
                began = time.monotonic()
                draw(show(await fetch(client)))
                await asyncio.sleep(max(0.0, REFRESH_S - (time.monotonic() - began)))

    with contextlib.suppress(KeyboardInterrupt):
        connect(server, follow)


@contextlib.contextmanager
def screen() -> Any:
    """Gives a function that shows a text: in place of the one before on a terminal, after it elsewhere."""
    if not sys.stdout.isatty():
        yield lambda text: click.echo(f"{text}\n")
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop") as live:

        def draw(text: str) -> None:
            shown: RenderableType = Text.from_ansi(text, no_wrap=True, overflow="crop")
            live.update(shown, refresh=True)

        yield draw


def rows_in(rows: Iterable[Mapping[str, Any]], namespace: str) -> list[Mapping[str, Any]]:
    """Those of a namespace; all without one."""
    return [row for row in rows if not namespace or row["namespace"] == namespace]
