"""What each option of telemetry costs on the way through two sidecars, in CPU time of both.

    python bench/options.py [--seconds 1] [--rounds 5] [--only NAME …]

Two pairs of sidecars, as the configuration in ``OPTIONS`` is compiled for them, stand side by side: one with
the option, one without. wrk loads them in turn with keep-alive, off, on, off, on. What counts is the CPU time
(user and system) that both Envoys of a pair used for a request, and its difference within each turn: other
work on the machine hardly touches that. Metrics, flows and spans go to a real telemetry process (what it uses
for a request is ``store_us``), other OTLP and Zipkin to a collector of the tests.

``us``: microseconds of both Envoys together for a request, or CPU ms for 1,000, without and with the option,
medians; ``costs_us``: the median of the turns' differences, ``from_to_us`` the smallest and the largest;
``least_us``: the difference of the least of either: a busy machine only ever makes a request dearer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from path import BODY, Way, envoy, load, manager, started
from tests.envoy.mesh import spiffe
from tests.support.certificates import TestAuthority
from tests.support.collector import running_collector
from tests.support.envoy import Envoy, running_envoy, short_directory
from tests.support.telemetry import running_telemetry

from weft import ir
from weft.cli.documents import read_resources, refuse_errors
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bootstrap import Settings, bootstrap, environment
from weft.emit.bundle import emit
from weft.emit.static import static_bootstrap
from weft.names import LOCAL_CLUSTER, TELEMETRY_CLUSTER, ProxyName

PORT = 9080
HOST = "server.default.svc.cluster.local:9080"
SERVER = "control.test"
PLACES = """
apiVersion: v1
kind: Service
metadata: {name: server, namespace: default}
spec: {clusterIP: 240.240.0.1, selector: {app: server}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: server, namespace: default}
spec: {address: BASE.1, serviceAccount: server, labels: {app: server}, ports: {http: 9080}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: default}
spec:
  workloadSelector: {labels: {app: client}}
  egress:
  - {port: {number: 9080, name: http, protocol: HTTP}, bind: BASE.3, captureMode: NONE, hosts: ["./*"]}
  - {port: {number: 4317, name: grpc, protocol: GRPC}, bind: BASE.3, captureMode: NONE, hosts: ["./*"]}
  - {port: {number: 9411, name: zipkin, protocol: HTTP}, bind: BASE.3, captureMode: NONE, hosts: ["./*"]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: collector, namespace: default}
spec:
  hosts: [collector.shop]
  resolution: STATIC
  ports:
  - {number: 4317, name: grpc, protocol: GRPC, targetPort: GRPC_PORT}
  - {number: 9411, name: http, protocol: HTTP, targetPort: HTTP_PORT}
  endpoints: [{address: 127.0.0.1}]
"""
MESH: dict[str, Any] = {
    "flowSampling": 0,
    "enableTracing": False,
    "extensionProviders": [
        {"name": "records", "envoyOtelAls": {"service": "collector.shop", "port": 4317}},
        {"name": "entries", "envoyHttpAls": {"service": "collector.shop", "port": 4317}},
        {"name": "b3", "zipkin": {"service": "collector.shop", "port": 9411}},
        {"name": "lines", "envoyFileAccessLog": {"path": "lines.log"}},
        {
            "name": "text",
            "envoyFileAccessLog": {
                "path": "lines.log",
                "logFormat": {"text": "%START_TIME% %REQ(:METHOD)% %PATH(NQ)% %RESPONSE_CODE% %DURATION%\n"},
            },
        },
        {
            "name": "json",
            "envoyFileAccessLog": {
                "path": "lines.log",
                "logFormat": {
                    "labels": {"code": "%RESPONSE_CODE%", "path": "%PATH(NQ)%", "ms": "%DURATION%"}
                },
            },
        },
    ],
}


def _silent(told: ir.Telemetry) -> ir.Telemetry:
    """Nothing is told at all; no configuration says so, for errors are always told of."""
    return ir.Telemetry(client=ir.Reports(metrics=None), server=ir.Reports(metrics=None))


def _flowless(told: ir.Telemetry) -> ir.Telemetry:
    """Metrics alone."""
    return replace(told, flows_cluster=None)


def _as_it_is(told: ir.Telemetry) -> ir.Telemetry:
    return told


@dataclass(frozen=True)
class Config:
    """``mesh``: further fields of the MeshConfig. ``telemetry``: the spec of a Telemetry for all of it."""

    mesh: dict[str, Any]
    telemetry: dict[str, Any]
    change: Callable[[ir.Telemetry], ir.Telemetry] = _as_it_is


def _with(**telemetry: Any) -> Config:
    return Config({}, telemetry)


def _logs(provider: str, only: str = "") -> Config:
    entry: dict[str, Any] = {"providers": [{"name": provider}]}
    return _with(accessLogging=[{**entry, **({"filter": {"expression": only}} if only else {})}])


def _traces(percent: float, provider: str = "weft") -> Config:
    tracing = [{"providers": [{"name": provider}], "randomSamplingPercentage": percent}]
    return Config({"enableTracing": True}, {"tracing": tracing})


def _tags(**tags: dict[str, str]) -> Config:
    overrides = [{"match": {"metric": "ALL_METRICS", "mode": "CLIENT_AND_SERVER"}, "tagOverrides": tags}]
    return _with(metrics=[{"providers": [{"name": "prometheus"}], "overrides": overrides}])


NOTHING = Config({}, {}, _silent)
METRICS = Config({}, {}, _flowless)
BASE = Config({}, {})
OPTIONS: dict[str, tuple[Config, Config]] = {
    "metrics": (NOTHING, METRICS),
    "flows, errors only": (METRICS, BASE),
    "flows, 10 % (default)": (BASE, Config({"flowSampling": 10}, {})),
    "flows, 100 %": (BASE, Config({"flowSampling": 100}, {})),
    "all of the default": (NOTHING, Config({"flowSampling": 10, "enableTracing": True}, {})),
    "access log, JSON of 34 fields": (BASE, _logs("lines")),
    "access log, JSON of 3 fields": (BASE, _logs("json")),
    "access log, text": (BASE, _logs("text")),
    "access log, OTLP": (BASE, _logs("records")),
    "access log, gRPC (ALS)": (BASE, _logs("entries")),
    "access log, text, only errors": (BASE, _logs("text", "response.code >= 500")),
    "access log, text, by CEL": (BASE, _logs("text", "response.code >= 500 || request.url_path == '/x'")),
    "traces, 0 %": (BASE, _traces(0)),
    "traces, 1 % (default)": (BASE, _traces(1)),
    "traces, 10 %": (BASE, _traces(10)),
    "traces, 100 %": (BASE, _traces(100)),
    "traces, 10 %, Zipkin": (BASE, _traces(10, "b3")),
    "metrics with a tag more": (BASE, _tags(method={"value": "request.method"})),
    "metrics with a tag by CEL": (BASE, _tags(long={"value": "size(request.path) > 20 ? 'yes' : 'no'"})),
    "metrics with ten tags less": (
        BASE,
        _tags(
            **{
                f"{side}_{name}": {"operation": "REMOVE"}
                for side in ("source", "destination")
                for name in ("app", "version", "cluster", "canonical_service", "canonical_revision")
            }
        ),
    ),
}


def cpu_us(pids: list[int]) -> float:
    """CPU time of processes, of all their threads, to the nanosecond."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e3
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


@contextmanager
def sidecar(
    name: str, world: World, config: Config, address: str, authority: TestAuthority, telemetry_port: int
) -> Iterator[Envoy]:
    """As ``tests.envoy.mesh`` runs one, with the way to the telemetry process that a node gives it."""
    attachment = ir.Attachment(capture=ir.Capture.NONE)
    if name == "server":
        attachment = ir.Attachment(
            capture=ir.Capture.SECCOMP, outbound_address=address, outbound_port=15001,
            inbound_address=address, app_address=f"{address.rpartition('.')[0]}.2",
        )  # fmt: skip
    identity = ir.ProxyIdentity(
        name=ProxyName("sidecar", address, name, "default"), service_account=name, labels=(("app", name),),
        attachment=attachment,
    )  # fmt: skip
    proxy, problems = compile_proxy(world, identity)
    assert not problems, [str(problem) for problem in problems]
    proxy = replace(proxy, telemetry=config.change(proxy.telemetry))
    endpoints = [
        endpoint_set(world, one.name) for one in proxy.clusters if one.discovery is ir.Discovery.EDS
    ] + [ir.EndpointSet(cluster=LOCAL_CLUSTER, endpoints=())]
    settings = Settings(
        name=identity.name, metadata={"LABELS": {"app": name}, "SERVICE_ACCOUNT": name},
        telemetry_port=telemetry_port, control_plane=(SERVER,),
    )  # fmt: skip
    whole = bootstrap(settings)
    made = static_bootstrap(emit(proxy), endpoints, settings, None, proxy)
    made["static_resources"]["clusters"] += [
        one for one in whole["static_resources"]["clusters"] if one["name"] == TELEMETRY_CLUSTER
    ]
    if proxy.telemetry.client.metrics is not None:
        made["stats_sinks"] = whole["stats_sinks"]
    with short_directory(f"bench-{name}-") as directory:
        authority.write_identity(directory, spiffe(name))
        with running_envoy(directory, made, environment(settings)) as running:
            yield running


class Bench:
    """``run`` measures one option."""

    def __init__(self, stack: ExitStack, seconds: int, rounds: int) -> None:
        self._stack, self._seconds, self._rounds = stack, seconds, rounds
        self._authority = TestAuthority()
        directory = stack.enter_context(short_directory())
        self._telemetry = stack.enter_context(running_telemetry(directory, self._authority))
        self._collector = stack.enter_context(running_collector())

    @contextmanager
    def pair(self, config: Config) -> Iterator[tuple[str, Way]]:
        """Where requests enter the client's sidecar, and the two Envoys."""
        base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
        spec = {**MESH, **config.mesh}
        documents: list[dict[str, Any]] = [
            {"apiVersion": "weft.dev/v1alpha1", "kind": "MeshConfig", "spec": spec},
        ]  # fmt: skip
        if config.telemetry:
            documents.append(
                {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "spec": config.telemetry}
            )
        for one in documents:
            one["metadata"] = {"name": "default", "namespace": "istio-system"}
        text = PLACES.replace("BASE", base).replace("GRPC_PORT", str(self._collector.port))
        text = text.replace("HTTP_PORT", str(self._collector.http_port))
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            file = Path(folder) / "mesh.yaml"
            file.write_text(text + "".join(f"---\n{json.dumps(one)}\n" for one in documents))
            resources, problems = read_resources([str(file)])
            refuse_errors(problems)
            world = World.build(resources)
            answer = {"direct_response": {"status": 200, "body": {"inline_string": BODY}}}
            application = envoy(PORT, manager(answer))
            listener = application["static_resources"]["listeners"][0]
            listener["address"]["socket_address"]["address"] = f"{base}.2"
            stack.enter_context(started("application", application))
            envoys = tuple(
                stack.enter_context(
                    sidecar(name, world, config, address, self._authority, self._telemetry.port)
                )
                for name, address in (("server", f"{base}.1"), ("client", f"{base}.3"))
            )
            yield f"{base}.3", Way(PORT, envoys)

    def run(self, off: Config, on: Config) -> dict[str, Any]:
        """Turns of both, and what they tell."""
        with self.pair(off) as without, self.pair(on) as with_:
            for address, _ in (without, with_):
                load(PORT, 1, address, HOST)
            costs: list[tuple[float, float]] = []
            stores = []
            for _ in range(self._rounds):
                turn = []
                for address, way in (without, with_):
                    pids = [running.pid for running in way.envoys]
                    before, store = cpu_us(pids), cpu_us([self._telemetry.pid])
                    requests = load(PORT, self._seconds, address, HOST).requests
                    turn.append((cpu_us(pids) - before) / requests)
                    stores.append((cpu_us([self._telemetry.pid]) - store) / requests)
                costs.append((turn[0], turn[1]))
        differences = [after - before for before, after in costs]
        self._collector.spans.clear()
        self._collector.records.clear()
        self._collector.zipkin.clear()
        return {
            "us": [round(statistics.median(each), 1) for each in zip(*costs, strict=True)],
            "costs_us": round(statistics.median(differences), 1),
            "least_us": round(min(after for _, after in costs) - min(before for before, _ in costs), 1),
            "from_to_us": [round(min(differences), 1), round(max(differences), 1)],
            "store_us": round(max(0.0, statistics.median(stores[1::2])), 1),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], help=", ".join(OPTIONS))
    options = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with ExitStack() as stack:
        bench = Bench(stack, options.seconds, options.rounds)
        found = {}
        for name, (off, on) in OPTIONS.items():
            if not options.only or name in options.only:
                found[name] = bench.run(off, on)
                print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
