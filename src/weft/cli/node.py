"""``weft node``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weft.errors import UsageError, WeftError
from weft.names import API_PORT

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from weft.node.app import NodeOptions
    from weft.node.claims import Claim
    from weft.node.enrolment import Membership
    from weft.node.layout import Layout
    from weft.node.metrics.serve import Place

_CONNECT_S = 5.0


@click.command()
@click.option("--join", "--token", "token", envvar="WEFT_TOKEN", help="A join token: weft token create.")
@click.option(
    "--server",
    "--control-plane",
    "server",
    envvar="WEFT_CONTROL_PLANE",
    metavar="URL",
    help="https://HOST:15017",
)
@click.option("--name", help="Of this node; default: the host's name.")
@click.option("--mesh", default="default", show_default=True, help="Name of the mesh on this machine.")
@click.option("--config", type=click.Path(path_type=Path), help="Who may claim what: [[claim]] tables, TOML.")
@click.option(
    "--capture",
    type=click.Choice(["auto", "nft", "seccomp", "env", "none"]),
    default="auto",
    show_default=True,
)
@click.option("--advertise", metavar="ADDRESS", help="Where peers reach this host; default: found.")
@click.option("--locality", default="", metavar="REGION/ZONE/SUBZONE", help="Where this host is.")
@click.option("--network", default="", help="Hosts of one network reach each other directly.")
@click.option("--ephemeral", is_flag=True, help="Remove every workload at the end; keep nothing.")
@click.option("--adopt", is_flag=True, help="With --ephemeral: take over what one that was killed left.")
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Where series are shown, or off. Default: port 15020, root's node on every address. "
    "On a loopback address it is open, on others TLS with a token.",
)
@click.option("--proxy-log-level", default="warning", show_default=True)
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def node(
    token: str | None,
    server: str | None,
    name: str | None,
    mesh: str,
    config: Path | None,
    capture: str,
    advertise: str | None,
    locality: str,
    network: str,
    ephemeral: bool,
    adopt: bool,
    metrics: str | None,
    proxy_log_level: str,
    verbose: int,
) -> None:
    """Supervise this host's sidecars; serve `weft run`.

    A node joins once, with a token; from then on its certificate renews itself. A node that stops leaves what
    runs to its successor, unless it is --ephemeral.
    """
    from weft.node.app import NodeOptions
    from weft.node.claims import read_claims
    from weft.node.layout import Layout
    from weft.runtime import log_to_stderr

    log_to_stderr(verbose)
    options = NodeOptions(
        name=name or socket.gethostname().partition(".")[0].lower(),
        capture=capture,
        advertise=advertise,
        locality=locality,
        network=network,
        keep_workloads=not ephemeral,
        adopt=adopt or not ephemeral,
        log_level=proxy_log_level,
    )
    claims = read_claims(config) if config else ()
    layout = Layout.of(mesh)
    if ephemeral:
        layout = replace(layout, state=layout.runtime / "state")
    from weft.node.metrics.serve import Place

    place = Place.parse(metrics or (":" if os.geteuid() == 0 else "127.0.0.1"))
    joining = membership(layout, options, server, token, named=bool(name))
    asyncio.run(_serve(layout, options, claims, place, joining))


async def _serve(
    layout: Layout,
    options: NodeOptions,
    claims: tuple[Claim, ...],
    place: Place | None,
    joining: Awaitable[Membership],
) -> None:
    from weft.node.app import Node
    from weft.node.capture.choose import Host, choose
    from weft.node.metrics.admission import Admission
    from weft.node.metrics.meter import Meter, measured
    from weft.node.metrics.scrape import Scraper
    from weft.node.metrics.serve import serve as show_series
    from weft.node.metrics.serve import take
    from weft.node.remote import serving_context
    from weft.node.serve import serve
    from weft.node.session import Session
    from weft.node.sidecar import proxy_uid
    from weft.node.workloadapi.serve import serve as serve_identities
    from weft.runtime import notify_ready, stop_on_signals

    layout.prepare(proxy_uid=proxy_uid())
    member = await joining
    options = replace(options, name=member.node)
    address = options.advertise or _own_address()
    door = take(place) if place is not None else None
    session = Session(
        member,
        layout.state,
        addresses=(address,),
        capture=options.capture,
        metrics=door[1].url(address) if door else "",
    )

    def shown() -> tuple[str, str, str]:
        mine = session.membership.credential
        return mine.bundle, mine.key, mine.certificate

    running = asyncio.create_task(session.run(), name="session")
    try:
        async with stop_on_signals() as stop:
            await session.wait_connected(_CONNECT_S)
            async with (
                Node(layout, session, options) as agent,
                serve_identities(agent, session),
                show_series(
                    scraper := Scraper(agent),
                    layout.metrics_socket,
                    door,
                    Admission(session.may_scrape),
                    lambda: serving_context(shown),
                ),
                serve(agent, claims),
            ):
                session.on_usage(Meter(lambda: measured(agent)).look)
                session.on_series(scraper.host)
                choice = choose(options.capture, Host.look(), own_network=False)
                click.echo(f"node {options.name}: {choice}", err=True)
                notify_ready()
                waiting = asyncio.create_task(stop.wait())
                await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        if running.done():
            running.result()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await session.close()


def _own_address() -> str:
    from weft.node.place import host_address

    return host_address()


async def membership(
    layout: Layout, options: NodeOptions, server: str | None, token: str | None, *, named: bool
) -> Membership:
    """Who this node is: as it joined before, or as it joins now. ``named``: its name was asked for.

    An expired membership is no reason to stop: what runs here is adopted and goes on without a session.

    Raises:
        UsageError: it has not joined, or has under another name.
        WeftError: it cannot join.
    """
    from weft.node.enrolment import Membership, join

    url = _url(server) if server else None
    known = None if not options.adopt and token else Membership.load(layout.state)
    if known is not None and named and known.node != options.name:
        raise UsageError(
            f"this host joined the mesh as node {known.node!r}, not as {options.name!r}",
            hint=f"leave --name out, or move {layout.state} away and join again",
        )
    address = options.advertise or _own_address()
    if known is None:
        if url is None or token is None:
            lacks = "--server" if url is None else "--join"
            raise UsageError(
                f"this host has not joined a mesh yet, and {lacks} is missing",
                hint="weft node --server https://HOST:15017 --join TOKEN (weft token create)",
            )
        return await join(url, token, options.name, (address,), layout.state)
    wanted = url or known.api
    expired = _expired(known)
    if token is not None and not expired and wanted == known.api:
        known, expired = await _renewed(known, layout.state)
    if token is not None and (expired or wanted != known.api):
        try:
            return await join(wanted, token, known.node, (address,), layout.state)
        except WeftError as error:
            if not expired:
                raise
            expired = error
    if expired:
        hint = f" ({expired.hint})" if expired.hint else ""
        click.echo(f"warning: {expired.message}{hint}; what runs here is adopted and goes on", err=True)
    return replace(known, api=wanted)


async def _renewed(known: Membership, state: Path) -> tuple[Membership, WeftError | None]:
    """The membership, and why it is one no more: then the token is needed, else it is spared."""
    from weft.node.enrolment import renew
    from weft.node.remote import Denied, Disowned

    try:
        return await renew(known, known.api, state), None
    except (Denied, Disowned) as error:
        return known, error
    except (WeftError, TimeoutError):
        return known, None


def _expired(known: Membership) -> WeftError | None:
    from datetime import UTC, datetime

    try:
        known.check(datetime.now(UTC))
    except WeftError as error:
        return error
    return None


def _url(server: str) -> str:
    """``host``, ``host:port`` or a URL."""
    if "://" in server:
        return server.rstrip("/")
    host, colon, port = server.rpartition(":")
    if colon and port.isdigit() and not host.endswith(":"):
        return f"https://{server}"
    return f"https://{server}:{API_PORT}"
