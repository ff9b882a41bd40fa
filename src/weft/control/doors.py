"""Where nodes show their series, and what Prometheus is told of it: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import urlsplit

from weft.instance import Instance
from weft.names import ROOT_NAMESPACE

ROLES: Final = ("node", "control-plane", "workload", "gateway")
_META: Final = "__meta_weft_"

Target = dict[str, Any]
"""One entry of http_sd: ``targets`` (addresses) and ``labels``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """``address`` is ``host:port``, ``scheme`` is ``http`` (a loopback address) or ``https``."""

    node: str
    scheme: str
    address: str
    instances: tuple[Instance, ...] = ()

    @classmethod
    def parse(cls, node: str, url: str, *, near: bool) -> Self | None:
        """Read what a node said, or None.

        Prometheus shows its token there: so plain HTTP is believed on loopback addresses only, and those only
        of a node that is ``near``, on this very host. Of others the certificate is verified.
        """
        try:
            parts = urlsplit(url)
            host, port = ip_address(parts.hostname or ""), parts.port
        except ValueError:
            return None
        if not port or parts.scheme not in {"http", "https"} or host.is_loopback != (parts.scheme == "http"):
            return None
        if host.is_loopback and not near:
            return None
        written = f"[{host}]" if host.version == 6 else str(host)
        return cls(node=node, scheme=parts.scheme, address=f"{written}:{port}")


def of_nodes(doors: Iterable[Door]) -> Iterator[Target]:
    """One target a host."""
    for door in doors:
        yield _target(door.address, door.scheme, role="node", node=door.node)


def of_workloads(doors: Iterable[Door], role: str) -> Iterator[Target]:
    """One target a workload (``role`` ``workload``) or gateway, each a part of what its node shows."""
    wanted = "router" if role == "gateway" else "sidecar"
    for door in doors:
        for one in door.instances:
            if one.kind != wanted:
                continue
            target = _target(
                door.address, door.scheme, role=role, node=door.node, namespace=one.namespace, name=one.name
            )
            named = {key: one.labels[key] for key in ("app", "version") if key in one.labels}
            # The series bear both already: written here too they would be called exported_pod there.
            target["labels"] |= {"__param_workload": one.id, **_meta(named)}
            yield target


def of_control_plane(address: str, host: str) -> Target:
    """A control plane on ``host``, with the labels by which dashboards find Istio's."""
    target = _target(address, "https", role="control-plane")
    target["labels"] |= {"app": "istiod", "namespace": ROOT_NAMESPACE, "pod": f"istiod-{host}"}
    return target


def _target(address: str, scheme: str, **about: str) -> Target:
    labels = {"__scheme__": scheme, "__metrics_path__": "/metrics", **_meta(about)}
    if "node" in about:
        labels["node"] = about["node"]
    return {"targets": [address], "labels": labels}


def _meta(about: dict[str, str]) -> dict[str, str]:
    return {f"{_META}{key}": value for key, value in about.items()}
