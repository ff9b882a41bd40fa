"""Whether a flood of spans delays configuration, and what the telemetry process makes of it.

    python bench/telemetry.py [--rate 10000] [--streams 200] [--rounds 30] [--workloads 1000]

The real ``weft control-plane`` with 200 services and so many simulated proxies (``control_plane.py``). Route
changes are applied and waited for, first in peace, then while another process sends spans with a workload's
certificate: so many a second, 100 a message, 15 attributes a span, which is what Envoy sends of a request.
The sender shares the two cores with all the rest.

With ``--workloads`` it sends metrics instead: every 5 s what the sidecars of so many workloads tell, each a
message of six series (counter and histogram), and the questions of a dashboard are asked and timed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import grpc
import grpc.aio
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from control_plane import Proxies, identity, route_change
from host import cpu_seconds, host, memory, objects

from weft.client import ApiClient
from weft.emit.bootstrap import MILLISECONDS
from weft.names import CONTROL_PLANE_HOST
from weft.protos import otlp_metrics_service_v1, otlp_metrics_v1, otlp_trace_service_v1
from weft.telemetry.server import METRICS, TRACES

MESSAGE = 100
_FLUSH_S = 5.0
_TIMES = 5
QUESTIONS = (
    ("workloads", "workloads?window=1m"),
    ("edges", "edges?window=1m"),
    ("stat by workload", "stat?by=workload&window=1m"),
    ("stat of one", "stat?by=caller&of=default/w7&window=1m"),
    ("series of all", "series?since=1h"),
    ("series of one", "series?metric=p95&of=default/w7&since=1h"),
    ("workloads of a day", "workloads?window=24h"),
)


def _child(parent: int) -> int:
    """The process of ``weft.telemetry`` below a control plane."""
    for line in Path("/proc").glob("[0-9]*/stat"):
        fields = line.read_text().rpartition(")")[2].split()
        if int(fields[1]) == parent and b"weft.telemetry" in (line.parent / "cmdline").read_bytes():
            return int(line.parent.name)
    raise RuntimeError("the control plane has no telemetry process")


def _message(turn: int) -> bytes:
    request = otlp_trace_service_v1.ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    now = time.time_ns()
    for number in range(MESSAGE):
        span = scope.spans.add(
            trace_id=os.urandom(16), span_id=os.urandom(8), name=f"GET /{turn % 50}",
            start_time_unix_nano=now - 5_000_000, end_time_unix_nano=now,
        )  # fmt: skip
        for key in range(15):
            span.attributes.add(key=f"http.attribute.{key}").value.string_value = f"a usual value {number}"
    return request.SerializeToString()


def _metrics(workload: int, workloads: int) -> bytes:
    """What the sidecar of a workload tells of three callers and of three that it calls."""
    request = otlp_metrics_service_v1.ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    said = {"service.instance.id": f"w{workload}", "weft.workload": f"w{workload}", "weft.kind": "sidecar"}
    for key, value in said.items():
        part.resource.attributes.add(key=key).value.string_value = value
    metrics = part.scope_metrics.add().metrics
    uptime = metrics.add(name="server.uptime").gauge.data_points.add(as_int=100)
    uptime.time_unix_nano = time.time_ns()
    delta = otlp_metrics_v1.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for turn in range(6):
        side, peer = ("source", "destination") if turn % 2 else ("destination", "source")
        other = f"w{(workload * 7 + turn * 13 + 1) % workloads}"
        called = other if side == "source" else f"w{workload}"
        labels = {
            "reporter": side, "request_protocol": "http", "response_code": "200", "response_flags": "-",
            "connection_security_policy": "mutual_tls", "destination_service_name": called,
            "destination_service": f"{called}.default.svc.cluster.local",
            "destination_service_namespace": "default",
            **_end(side, f"w{workload}"), **_end(peer, other),
        }  # fmt: skip
        counter = metrics.add(name="istio_requests_total").sum
        histogram = metrics.add(name="istio_request_duration_milliseconds").histogram
        counter.aggregation_temporality = histogram.aggregation_temporality = delta
        points = (
            counter.data_points.add(as_int=50),
            histogram.data_points.add(
                count=50, sum=350.0, explicit_bounds=MILLISECONDS, bucket_counts=[5] * 10 + [0] * 6
            ),
        )
        for point in points:
            for key, value in labels.items():
                point.attributes.add(key=key).value.string_value = value
    return request.SerializeToString()


def _end(side: str, name: str) -> dict[str, str]:
    return {
        f"{side}_workload": name, f"{side}_workload_namespace": "default", f"{side}_app": name,
        f"{side}_version": "v1", f"{side}_cluster": "unknown", f"{side}_canonical_service": name,
        f"{side}_canonical_revision": "v1",
        f"{side}_principal": f"spiffe://cluster.local/ns/default/sa/{name}",
    }  # fmt: skip


async def send(folder: Path, port: int, rate: int, workloads: int) -> None:
    """Send spans (or metrics) until killed; falls behind rather than sends in bursts."""
    given = json.loads((folder / "identity.json").read_text())
    credentials = grpc.ssl_channel_credentials(
        given["bundle"].encode(), given["key"].encode(), given["certificate"].encode()
    )
    options = (("grpc.ssl_target_name_override", CONTROL_PLANE_HOST),)
    if workloads:
        bodies = [_metrics(workload, workloads) for workload in range(workloads)]
    else:
        bodies = [_message(turn) for turn in range(50)]
    pause = _FLUSH_S / workloads if workloads else MESSAGE / rate
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call = channel.unary_unary(METRICS if workloads else TRACES)
        turn, began = 0, time.monotonic()
        while True:
            await asyncio.sleep(began + turn * pause - time.monotonic())
            await call(bodies[turn % len(bodies)])
            turn += 1


async def asked(client: ApiClient, question: str) -> float:
    """The median of some answers, in ms, through the API."""
    times = []
    for _ in range(_TIMES):
        began = time.monotonic()
        path, _, query = question.partition("?")
        await client.raw("GET", f"/weft/v1/telemetry/{path}", query=dict(parse_qsl(query)))
        times.append((time.monotonic() - began) * 1e3)
    return round(statistics.median(times), 1)


async def changes(client: ApiClient, rounds: int, first: int) -> dict[str, float]:
    """Route changes, each until every proxy has acknowledged it."""
    times = []
    for turn in range(first, first + rounds):
        began = time.monotonic()
        answer = await client.apply([route_change(turn)], wait=True, seconds=60)
        assert answer["convergence"]["converged"], answer
        times.append((time.monotonic() - began) * 1e3)
    return {"median_ms": round(statistics.median(times), 1), "worst_ms": round(max(times), 1)}


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    async with host(node=False) as made, made.client() as client:
        control = made.children["control"].pid
        await client.apply(objects(200, 5), wait=True, seconds=60)
        (made.directory / "identity.json").write_text(json.dumps(await identity(made, client)))
        proxies = Proxies(made.directory, 5)
        result: dict[str, Any] = {"rate": given.rate, "streams": given.streams}
        try:
            await proxies.connect(given.streams)
            child = _child(control)
            await changes(client, 5, 0)
            result["in_peace"] = await changes(client, given.rounds, 5)
            said = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            address = said[said.index(b"--address") + 1].decode()
            sender = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--send", str(made.directory),
                "--port", address.rpartition(":")[2], "--rate", str(given.rate),
                "--workloads", str(given.workloads),
            )  # fmt: skip
            try:
                await asyncio.sleep(3)
                began, cpu, own = time.monotonic(), cpu_seconds(child), cpu_seconds(control)
                before = await client.raw("GET", "/weft/v1/telemetry/health")
                result["flooded"] = await changes(client, given.rounds, 5 + given.rounds)
                await asyncio.sleep(max(0.0, began + 20 - time.monotonic()))
                after = await client.raw("GET", "/weft/v1/telemetry/health")
                seconds = time.monotonic() - began
                result["telemetry"] = {
                    "spans_per_s": round(
                        (after["received"]["spans"] - before["received"]["spans"]) / seconds
                    ),
                    "points_per_s": round(
                        (after["received"]["points"] - before["received"]["points"]) / seconds
                    ),
                    "series": after["series"],
                    "left_out_per_s": round(
                        (after["lost"]["spans_left_out"] - before["lost"]["spans_left_out"]) / seconds
                    ),
                    "refused_messages": after["lost"]["refused_messages"],
                    "not_written": after["lost"]["not_written"],
                    "cpu_share": round((cpu_seconds(child) - cpu) / seconds, 2),
                    "disk_mb": round(after["diskBytes"] / 1e6, 1),
                    **memory(child),
                }
                if given.workloads:
                    result["questions_ms"] = {name: await asked(client, path) for name, path in QUESTIONS}
                result["control_plane_cpu_share"] = round((cpu_seconds(control) - own) / seconds, 2)
            finally:
                sender.kill()
                await sender.wait()
        finally:
            await proxies.close()
        return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workloads", type=int, default=0, help="send metrics of so many, and no spans")
    parser.add_argument("--send", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send:
        uvloop.run(send(given.send, given.port, given.rate, given.workloads))
    else:
        print(json.dumps(asyncio.run(measure(given))))


if __name__ == "__main__":
    main()
