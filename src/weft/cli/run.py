"""``weft run``: prefix a command, and it is in the mesh."""

from __future__ import annotations

import json
import os
import re

import click

from weft.errors import UsageError

_CAPTURES = ("auto", "nft", "seccomp", "env", "none")
_PORT_MAX = 65535


def read_ports(values: tuple[str, ...]) -> dict[str, int]:
    """``http:9080`` or ``9080`` -> ``{"http": 9080}``, ``{"tcp-9080": 9080}``.

    Raises:
        UsageError: of another form.
    """
    ports: dict[str, int] = {}
    for value in values:
        name, colon, number = value.rpartition(":")
        if not number.isascii() or not number.isdigit() or not 0 < int(number) <= _PORT_MAX:
            raise UsageError(f"--port {value}: {number!r} is no port", hint="write NAME:PORT, as http:9080")
        if colon and not name:
            raise UsageError(f"--port {value}: the name is missing", hint="write NAME:PORT, as http:9080")
        if (name := name or f"tcp-{number}") in ports:
            raise UsageError(f"--port {value}: {name!r} is given twice")
        ports[name] = int(number)
    return ports


def read_pairs(option: str, values: tuple[str, ...]) -> dict[str, str]:
    """``app=web`` or ``app=web,version=v1`` -> a mapping.

    Raises:
        UsageError: a part has no ``=``.
    """
    pairs = {}
    for part in (part for value in values for part in value.split(",") if part):
        key, equals, text = part.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {part}: no '='", hint="write KEY=VALUE")
        pairs[key] = text
    return pairs


def read_scrape(text: str) -> dict[str, object]:
    """``9090/metrics`` as the node is told it.

    Raises:
        UsageError: it does not begin with a port.
    """
    port, slash, path = text.partition("/")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"--scrape {text}: no port", hint="write PORT, or PORT/PATH as 9090/metrics")
    return {"port": int(port), "path": slash + path or "/metrics"}


def default_name(command: tuple[str, ...]) -> str:
    """A workload's name from its program: ``/usr/bin/Python3 -m http.server`` -> ``python3``."""
    base = command[0].rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9]+", "-", base).strip("-")[:50] or "app"


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--name", help="The workload's name; by default the program's.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--service-account", default="default", show_default=True, help="Its identity in the mesh.")
@click.option("--service", help="A Service to make for it, with its ports.")
@click.option("--group", help="A WorkloadGroup to take labels, ports and service account from.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option(
    "-p", "--port", "ports", multiple=True, metavar="NAME:PORT", help="What it listens on, as http:9080."
)
@click.option(
    "--scrape", metavar="PORT[/PATH]", help="Where it shows series of its own: 9090, or 9090/metrics/all."
)
@click.option("--capture", type=click.Choice(_CAPTURES), default="auto", show_default=True)
@click.option("--token", envvar="WEFT_TOKEN", help="A join token, where the node asks for one.")
@click.option("--mesh", default="default", show_default=True, help="Which node of this host.")
@click.option(
    "--control-plane", envvar="WEFT_CONTROL_PLANE", help="For a node of this user's own: HOST:PORT."
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say how the traffic is captured.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    name: str | None,
    namespace: str,
    service_account: str,
    service: str | None,
    group: str | None,
    labels: tuple[str, ...],
    ports: tuple[str, ...],
    scrape: str | None,
    capture: str,
    token: str | None,
    mesh: str,
    control_plane: str | None,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in the mesh: registered, with an identity, its traffic through a sidecar.

    Everything of the command passes through: streams, terminal, signals, exit code.
    """
    from weft.node.run import PLAN_VARIABLE, launcher

    name = name or default_name(command)
    # By the environment: a command line can be read by every user of the host.
    given = {"WEFT_TOKEN": token, "WEFT_CONTROL_PLANE": control_plane}
    node = {key: value for key, value in given.items() if value}
    plan = {
        "mesh": mesh,
        "quiet": quiet,
        "node": node if os.getuid() else None,
        "join": {
            "name": name,
            "namespace": namespace,
            "serviceAccount": service_account,
            "service": service,
            "group": group,
            "labels": {"app": service or name, **read_pairs("--label", labels)},
            "ports": read_ports(ports),
            "scrape": read_scrape(scrape) if scrape else None,
            "capture": capture,
            "token": token,
        },
    }
    argv = [*launcher(), "--", *command]
    os.execve(argv[0], argv, {**os.environ, PLAN_VARIABLE: json.dumps(plan)})  # noqa: S606 - the wrapper
