"""One HTTP request on its way through the filters of a connection manager."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from weft.analysis.explain.answer import Action, Answer, Failure
from weft.analysis.explain.origins import Cause, Origins
from weft.analysis.explain.request import Request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.match import MILLION, Scene, Values
from weft.units import format_duration

if TYPE_CHECKING:
    from weft.protos import route_v3, well_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that the proxy gives itself, whatever lies behind it.

    ``local``: one of Envoy's local replies, which are changed as the route says, and told to gRPC clients
    in their own way; a preflight's answer is none.
    """

    status: int
    detail: str
    step: str
    action: Action = Action.DIRECT
    failure: Failure | None = None
    headers: tuple[tuple[str, str], ...] = ()
    local: bool = True
    grpc_status: int | None = None


@dataclass(slots=True, kw_only=True)
class Passage:
    """``route`` is None when no route was found; ``on_answer`` change the answer on its way back.

    ``others`` are routes that take a share of such requests, in millionths, as ``share`` is this one's.
    ``unrouted``: what is answered when no filter answers before; ``anew`` looks for a route once more.
    ``asks``: clusters that are not there are asked for, and come. ``silent``: the proxy adds no headers of
    its own (``x-envoy-…``).
    """

    question: Request
    scene: Scene
    answer: Answer
    upstreams: Upstreams
    origins: Origins
    table: route_v3.RouteConfiguration | None = None
    host: route_v3.VirtualHost | None = None
    route: route_v3.Route | None = None
    cause: Cause | None = None
    share: int = MILLION
    others: tuple[tuple[route_v3.Route, int], ...] = ()
    asks: bool = False
    silent: bool = False
    unrouted: Reply | None = None
    anew: Callable[[], None] | None = None
    on_answer: list[Callable[[Values], None]] = field(default_factory=list)

    @property
    def forwards(self) -> bool:
        """Whether the route sends the request on; some filters look at no others."""
        return self.route is not None and self.route.HasField("route")

    def open(self, packed: well_known.Any) -> Any:
        """The message inside an ``Any``."""
        return self.upstreams.running.decoded.open(packed)

    def overrides(self, name: str) -> list[Any]:
        """What the route table, the virtual host and the route say of a filter; the most specific last."""
        found = []
        for level in (self.table, self.host, self.route):
            if level is not None and name in level.typed_per_filter_config:
                config = self.open(level.typed_per_filter_config[name])
                if config is not None:
                    found.append(config)
        return found


def duration(value: Any) -> str | None:
    """A Duration as ``1.5s``; zero is None: no limit."""
    made = timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    return format_duration(made) if made else None
