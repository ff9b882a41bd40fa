"""Names of Services' ports (IST0118, IST0150)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.analysis.analyzers.deployments import of_control_plane
from weft.analysis.scene import Found, Scene
from weft.analysis.tree import number, rows, word
from weft.compile.protocol import Protocol, protocol_of

_MANAGED: Final = frozenset(
    {"istio.io-gateway-controller", "istio.io-mesh-controller", "istio.io-eastwest-controller"}
)


def port_names(scene: Scene) -> Iterator[Found]:
    """Ports whose name does not tell their protocol."""
    for service in scene.of("/Service"):
        if of_control_plane(service) or service.labels.get("gateway.istio.io/managed") in _MANAGED:
            continue
        external = word(service.spec, "type") == "ExternalName"
        for index, row in rows(service.spec, "ports"):
            port, name = number(row, "port") or 0, word(row, "name")
            said = word(row, "appProtocol") if row.get("appProtocol") is not None else None
            known = protocol_of(port, name, word(row, "protocol") or "TCP", said) is not Protocol.AUTO
            path = ("spec", "ports", index, "port")
            if external and (name == "tcp" or not known):
                message = f"the port {port} is named {name!r}: an ExternalName needs a name like http or tls"
                yield Found(service, "IST0150", message, path)
            elif not known:
                target = word(row, "targetPort") or str(port)
                message = (
                    f"the name {name!r} of port {port} (to {target}) does not tell the protocol, which is "
                    "detected: begin it with http-, grpc-, tcp- or the like, or set appProtocol"
                )
                yield Found(service, "IST0118", message, path)
