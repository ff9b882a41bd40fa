"""``weft gateway``."""

from __future__ import annotations

import asyncio

import click

from weft.errors import UsageError
from weft.names import GATEWAY_NAME_LABEL
from weft.node.layout import DEFAULT_MESH


@click.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--service-account", help="Its identity; default: as the gateway is named.")
@click.option(
    "-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="For Istio Gateways to select."
)
@click.option(
    "--port-map", "port_maps", multiple=True, metavar="A=B", help="Open gateway port A on host port B."
)
@click.option("--address", help="Listen at this address of the host only; default: at all of them.")
@click.option("--mesh", default=DEFAULT_MESH, show_default=True, help="Name of the mesh on this machine.")
def gateway(
    name: str,
    namespace: str,
    service_account: str | None,
    labels: tuple[str, ...],
    port_maps: tuple[str, ...],
    address: str | None,
    mesh: str,
) -> None:
    """Run an Envoy at the edge, under this host's node, for the Gateway NAME.

    It serves the Gateway API's Gateway of that name and namespace, and Istio's Gateways that select its
    labels (default: istio=ingressgateway). It runs until Ctrl-C or SIGTERM, then drains.
    """
    from weft.cli.nodes import find_socket

    pairs = [label.partition("=") for label in labels]
    if any(not separator or not key for key, separator, _ in pairs):
        raise UsageError("a label is KEY=VALUE", hint="write --label istio=ingressgateway")
    request: dict[str, object] = {
        "op": "add",
        "name": name,
        "namespace": namespace,
        "serviceAccount": service_account or name,
        "kind": "router",
        "labels": {
            "istio": "ingressgateway",
            GATEWAY_NAME_LABEL: name,
            **{key: value for key, _, value in pairs},
        },
        "portMap": dict(read_port_map(one) for one in port_maps),
        "address": address,
    }
    asyncio.run(_run(str(find_socket(mesh)), request))


def read_port_map(text: str) -> tuple[str, int]:
    """``80=10080`` -> ``("80", 10080)``.

    Raises:
        UsageError: the text has another form.
    """
    listener, separator, host = text.partition("=")
    if not separator or not listener.isdigit() or not host.isdigit():
        raise UsageError(f"{text!r} is no port map", hint="write --port-map 80=10080")
    return listener, int(host)


async def _run(path: str, request: dict[str, object]) -> None:
    from pathlib import Path

    from weft.app.nodesocket import NodeSocket
    from weft.runtime import notify_ready, stop_on_signals

    node = NodeSocket(Path(path))
    gateway_id = f"{request['namespace']}/{request['name']}"
    async with stop_on_signals() as stop:
        ready = await node.ask({**request}, "ready")
        click.echo(f"gateway {gateway_id} is ready at {ready['address']}", err=True)
        notify_ready()
        try:
            await stop.wait()
        finally:
            await node.ask({"op": "remove", "id": gateway_id}, "left")
