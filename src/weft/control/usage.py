"""What workloads use of their hosts, asked of the nodes that run them.

``GET /weft/v1/usage?namespace=NS`` -> ``{"usage": [{"namespace", "name", "workload", "node", "application",
"proxy", "wrapper"}], "failed": {node: why}}``; each part is ``{"cpu", "memory", "processes", "seconds"}`` or
null: CPUs (the average of so many seconds; null when it has just begun) and bytes. ``name``: of one replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weft.control.api.permission import Access
from weft.control.api.rules import Ask
from weft.control.nodes import answer
from weft.instance import Instance
from weft.model.catalog import WEFT
from weft.names import workload_name

Meters = Callable[[str], Iterable[tuple[str, tuple[Instance, ...], Awaitable[bytes]]]]
"""Nodes, what each runs of a namespace (empty: of all), and its answer (``NodeService.meters``)."""

_PARTS: Final = ("application", "proxy", "wrapper")


class _Part(msgspec.Struct):
    """As a node tells of it. What it says is believed of its own instances only."""

    instance: str
    part: Literal["application", "proxy", "wrapper"]
    cpu: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None
    memory: Annotated[int, msgspec.Meta(ge=0)]
    processes: Annotated[int, msgspec.Meta(ge=0)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class UsageRoutes:
    """The handler."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def routes(self) -> list[Route]:
        """For the API's application."""
        return [Route("/weft/v1/usage", answer(self._usage), methods=["GET"])]

    async def _usage(self, request: Request) -> Response:
        access: Access = request.state.access
        namespace = request.query_params.get("namespace", "")
        await access.require(Ask(verb="get", group=WEFT, resource="telemetry", namespace=namespace))
        asked = list(self._meters(namespace))
        answers = await asyncio.gather(*(_heard(asking) for _, _, asking in asked))
        rows: list[dict[str, Any]] = []
        failed: dict[str, str] = {}
        for (node, instances, _), heard in zip(asked, answers, strict=True):
            if isinstance(heard, str):
                failed[node] = heard
            else:
                parts: dict[str, dict[str, _Part]] = {}
                for part in heard:
                    parts.setdefault(part.instance, {})[part.part] = part
                rows += (_row(node, one, parts.get(one.id, {})) for one in instances)
        return JSONResponse({"usage": sorted(rows, key=_by_name), "failed": failed})


async def _heard(asking: Awaitable[bytes]) -> list[_Part] | str:
    """What a node tells, or why it does not."""
    try:
        return msgspec.json.decode(await asking, type=list[_Part])
    except LookupError as error:
        return str(error.args[0])
    except TimeoutError:
        return "it does not answer, or is older than this control plane"
    except msgspec.MsgspecError:
        return "its answer cannot be read"


def _row(node: str, one: Instance, parts: Mapping[str, _Part]) -> dict[str, Any]:
    return {
        "namespace": one.namespace,
        "name": one.name,
        "workload": workload_name(one.labels, one.name),
        "node": node,
        **{part: _part(parts.get(part)) for part in _PARTS},
    }


def _part(one: _Part | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"cpu": one.cpu, "memory": one.memory, "processes": one.processes, "seconds": one.seconds}


def _by_name(row: dict[str, Any]) -> tuple[str, str]:
    return row["namespace"], row["name"]
