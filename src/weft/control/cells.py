"""Cells of ``kubectl get`` that show what weft knows of an object and the object itself does not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.compile.world import World
from weft.control.api.table import Cells
from weft.control.entry import SERVICE_KIND

Wire = dict[str, Any]


def cells(world: Callable[[], World]) -> Cells:
    """A Service's virtual address, which its name resolves to, and what Kubernetes shows by default.

    They are no part of the object: what is stored is what the user wrote.
    """

    def cluster_ip(wire: Wire) -> str | None:
        metadata = wire["metadata"]
        if (wire.get("spec") or {}).get("type") == "ExternalName":
            return None
        return world().vips.get((metadata.get("namespace", ""), metadata["name"]))

    return {
        (SERVICE_KIND, "Cluster-IP"): cluster_ip,
        (SERVICE_KIND, "Type"): lambda _: "ClusterIP",
        (SERVICE_KIND, "External-IP"): lambda _: "<none>",
        (SERVICE_KIND, "Selector"): lambda _: "<none>",
    }
