"""``weft echo``: the test backend."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from pathlib import Path

import click

_PORTS = click.IntRange(0, 65535)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--name", default="echo", show_default=True, help="The service that it says it is.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--pod", help="The instance that it says it is; by default $HOSTNAME.")
@click.option("--host", help="Address to listen on; by default $HOST if that is one, else all.")
@click.option(
    "-p", "--port", "http", type=_PORTS, multiple=True, help="HTTP/1.1, h2c, gRPC, WebSocket [$PORT, 8080]."
)
@click.option("--tls-port", "tls", type=_PORTS, multiple=True, help="The same inside TLS.")
@click.option("--tcp-port", "tcp", type=_PORTS, multiple=True, help="Sends back what it gets.")
@click.option("--udp-port", "udp", type=_PORTS, multiple=True, help="Sends back what it gets.")
@click.option("--certificate", type=_FILE, help="For TLS, PEM; by default one of its own.")
@click.option("--key", type=_FILE, help="Its key, PEM.")
@click.option("--client-ca", type=_FILE, help="Check clients' certificates, if they have one.")
def echo(
    name: str,
    namespace: str,
    pod: str | None,
    host: str | None,
    http: tuple[int, ...],
    tls: tuple[int, ...],
    tcp: tuple[int, ...],
    udp: tuple[int, ...],
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None,
) -> None:
    """Answer every request with what was asked, in JSON.

    Queries: delay=250ms, responseCode=503, succeedAfter=2 (the first two tries fail with responseCode, or
    break without one, after delayRetry). Header X-Echo-Set-Header: name:value sets headers of the answer.
    Ports may be repeated; 0 takes a free one.
    """
    from weft.app.echo.answer import Echo
    from weft.app.echo.server import Ports, serving, tls_context

    if not (http or tls or tcp or udp):
        http = (_port(os.environ.get("PORT", "")) or 8080,)
    ports = Ports(host=host or _address(os.environ.get("HOST", "")), http=http, tls=tls, tcp=tcp, udp=udp)
    who = Echo(name=name, namespace=namespace, pod=pod or os.environ.get("HOSTNAME") or socket.gethostname())
    context = tls_context(certificate, key, client_ca) if tls else None

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(who, ports, tls=context) as bound:
            said = ", ".join(f"{kind} {port}" for kind, found in bound.items() for port in found)
            click.echo(f"{who.pod} listens: {said}", err=True)
            await stop.wait()

    asyncio.run(serve())


def _address(text: str) -> str | None:
    """HOST is what a node tells an application without capture; elsewhere it may be anything."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 65536 else None
