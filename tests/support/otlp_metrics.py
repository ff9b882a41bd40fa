"""A collector of metrics by OTLP, gRPC or HTTP, as other people's are: what came, by series."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from weft.protos import otlp_metrics_service_v1

CUMULATIVE = 2
Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels, Labels]
"""Name, resource and attributes, sorted."""


@dataclass(frozen=True)
class Point:
    """``value``: of a sum or gauge, or the count of a histogram. Times in ns."""

    began: int
    time: int
    value: float
    total: float = 0.0
    counts: tuple[int, ...] = ()


def _pairs(attributes: Any) -> Labels:
    return tuple(sorted((one.key, one.value.string_value) for one in attributes))


@dataclass
class MetricCollector:
    """``port``: of gRPC, ``http_port``. ``refuse``: answer so many messages as one that is out of order.

    ``gate``: while it is cleared, nothing is answered. ``torn``: series whose sums went back without a new
    beginning, or whose messages were of another temporality: there must be none.
    """

    port: int = 0
    http_port: int = 0
    refuse: int = 0
    messages: int = 0
    metadata: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    points: dict[Series, list[Point]] = field(default_factory=lambda: defaultdict(list))
    torn: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: Callable[[], None] = lambda: None

    def take(self, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Whether it wants the message."""
        self.gate.wait(60)
        request = otlp_metrics_service_v1.ExportMetricsServiceRequest.FromString(body)
        with self.lock:
            self.messages += 1
            if self.refuse:
                self.refuse -= 1
                return False
            self.metadata.append(dict(metadata))
            for batch in request.resource_metrics:
                resource = _pairs(batch.resource.attributes)
                for scope in batch.scope_metrics:
                    for metric in scope.metrics:
                        self._add(resource, metric)
        return True

    def _add(self, resource: Labels, metric: Any) -> None:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        if kind != "gauge" and data.aggregation_temporality != CUMULATIVE:
            self.torn.append(f"{metric.name} is no sum")
        for one in data.data_points:
            if kind == "histogram":
                point = Point(
                    one.start_time_unix_nano, one.time_unix_nano, one.count, one.sum, tuple(one.bucket_counts)
                )
            else:
                value = one.as_int if one.WhichOneof("value") == "as_int" else one.as_double
                point = Point(one.start_time_unix_nano, one.time_unix_nano, value)
            known = self.points[metric.name, resource, _pairs(one.attributes)]
            if known and kind != "gauge":
                last = known[-1]
                if point.began == last.began and (point.value < last.value or point.time < last.time):
                    self.torn.append(f"{metric.name} went from {last} to {point}")
                if point.began != last.began and point.began < last.time and point.began < last.began:
                    self.torn.append(f"{metric.name} began anew before it ended: {last}, {point}")
            if not point.began <= point.time:
                self.torn.append(f"{metric.name} ends before it begins: {point}")
            known.append(point)

    def by(self, name: str, label: str, /, **wanted: str) -> dict[str, float]:
        """What series of a name came to over all their lives, added up by a label.

        ``wanted``: labels and attributes of resources (``service_name`` is ``service.name``) to be had.
        """
        found: dict[str, float] = defaultdict(float)
        with self.lock:
            for (known, resource, attributes), points in self.points.items():
                said = {**{key.replace(".", "_"): value for key, value in resource}, **dict(attributes)}
                if known == name and all(said.get(key) == value for key, value in wanted.items()):
                    ends: dict[int, float] = {}
                    for point in points:
                        ends[point.began] = point.value
                    found[said.get(label, "")] += sum(ends.values())
        return {key: value for key, value in found.items() if value}

    def labels(self, name: str, **wanted: str) -> dict[str, str]:
        """Of one series of a name that has these."""
        with self.lock:
            found = (dict(labels) for known, _, labels in self.points if known == name)
            return next(one for one in found if one.items() >= wanted.items())

    def resources(self) -> list[dict[str, str]]:
        """What told something."""
        with self.lock:
            return [dict(one) for one in {resource for _, resource, _ in self.points}]

    def names(self) -> set[str]:
        """Of metrics."""
        with self.lock:
            return {name for name, _, _ in self.points}


@contextmanager
def running_metric_collector(
    *, port: int = 0, tls: grpc.ServerCredentials | None = None, collector: MetricCollector | None = None
) -> Iterator[MetricCollector]:
    """It listens on two ports of the loopback address: gRPC (``port``, with ``tls`` if that is given), HTTP.

    ``collector``: one that ran before, and is started anew.
    """
    known = collector or MetricCollector()
    known.gate.set()
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=(("grpc.so_reuseport", 0),))

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        said = {key: str(value) for key, value in context.invocation_metadata()}
        if not known.take(body, said):
            context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")
        return b""

    handler = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.metrics.v1.MetricsService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    place = f"127.0.0.1:{port}"
    known.port = server.add_secure_port(place, tls) if tls is not None else server.add_insecure_port(place)

    class Http(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            known.paths.append(self.path)
            wanted = known.take(body, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(200 if wanted else 503)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    known.http_port = web.server_address[1]
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server.start()
    known.stop = lambda: server.stop(None).wait()
    try:
        yield known
    finally:
        known.gate.set()
        known.stop()
        web.shutdown()
        web.server_close()
