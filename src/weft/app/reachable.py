"""When the workloads of this machine can be called: the mesh counts them as healthy, every proxy knows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Any, Final

from weft.client import ApiClient, Resource
from weft.names import HEALTHY

_WITHIN_S: Final = 30
_MARGIN_S: Final = 10


async def wait_reachable(client: ApiClient, entries: Resource, ids: Collection[str]) -> tuple[str, ...]:
    """Wait until calls to the workloads with these ``ids`` (``namespace/name``) arrive from everywhere.

    A node is the first to know that a workload is ready. It is reachable once the control plane has heard of
    it (the ``Healthy`` condition of its WorkloadEntry, the kind ``entries``) and each proxy has acknowledged
    its endpoint. Gives the proxies that did not in 30 seconds.

    Raises:
        WeftError: the control plane went away meanwhile: ask again.
    """
    revision = await _healthy_since(client, entries, ids)
    path = f"/weft/v1/convergence/{revision}"
    state = await client.raw("GET", path, query={"timeout": f"{_WITHIN_S}s"}, seconds=_WITHIN_S + _MARGIN_S)
    return tuple(state["missing"])


async def _healthy_since(client: ApiClient, entries: Resource, ids: Collection[str]) -> int:
    wanted = set(ids)
    while True:  # a watch may end
        healthy: dict[str, int] = {}
        async with aclosing(client.watch(entries)) as events:
            async for event in events:
                metadata = event.object["metadata"]
                known = f"{metadata['namespace']}/{metadata['name']}"
                healthy.pop(known, None)
                if event.kind == "DELETED":
                    wanted.discard(known)
                elif _healthy(event.object):
                    healthy[known] = int(metadata["resourceVersion"])
                if healthy.keys() >= wanted:
                    return max(healthy.values(), default=0)


def _healthy(entry: Mapping[str, Any]) -> bool:
    conditions = (entry.get("status") or {}).get("conditions") or ()
    return any(one["type"] == HEALTHY and one["status"] == "True" for one in conditions)
