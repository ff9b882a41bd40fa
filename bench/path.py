"""The way through two sidecars, against the same way through Envoys configured by hand.

Five ways to one server (an Envoy that answers 1 KB itself), loaded by wrk with keep-alive, in turn, several
rounds, medians: ``direct``; ``bare``, two hand-written Envoys with mutual TLS and nothing else; ``same``,
that pair with weft's filters and metrics; ``weft``, the emitted pair; ``unmetered``, that without metrics.
``--access-log`` gives the last three an access log as well. All Envoys have one worker.
Run: ``python bench/path.py [--seconds 3] [--rounds 5]``.
The last line is JSON; targets: weft >= 0.95 same, weft >= 0.80 bare.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.envoy.mesh import (
    endpoints,
    inbound,
    mesh_cluster,
    run_proxy,
    server_listener,
    spiffe,
    table,
)
from tests.support.certificates import TestAuthority
from tests.support.envoy import Envoy, running_envoy, short_directory
from tests.support.ports import free_port

from weft import ir
from weft.emit.filters.table import chain
from weft.emit.telemetry import http_logs
from weft.protos.wire import to_dict

PREFIX = "type.googleapis.com/envoy.extensions."
CONNECTIONS = 16
BODY = "x" * 1024
HANDLER = ir.HttpHandler(stat_prefix="http", routes="http")
Json = dict[str, Any]


def typed(name: str, **fields: Any) -> Json:
    return {"@type": PREFIX + name, **fields}


def socket(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def manager(route: Json, **fields: Any) -> Json:
    filters = [{"name": "router", "typed_config": typed("filters.http.router.v3.Router")}]
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
    config = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        route_config={"virtual_hosts": [host]},
        **{"http_filters": filters, **fields},
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def envoy(port: int, filter_: Json, tls: Json | None = None, clusters: tuple[Json, ...] = ()) -> Json:
    chain_: Json = {"filters": [filter_]}
    if tls is not None:
        chain_["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed("transport_sockets.tls.v3.DownstreamTlsContext", **tls),
        }
    return {
        "node": {"id": "hand", "cluster": "hand"},
        "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "static_resources": {
            "listeners": [{"name": "in", "address": socket(port), "filter_chains": [chain_]}],
            "clusters": list(clusters),
        },
    }


def cluster(port: int, tls: Json | None = None, *, http2: bool = False) -> Json:
    made: Json = {
        "name": "next",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(port)}}]}],
        },
    }
    if http2:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}},
            )
        }
    if tls is not None:
        made["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed("transport_sockets.tls.v3.UpstreamTlsContext", **tls),
        }
    return made


def common_tls(authority: TestAuthority, account: str, peer: str) -> Json:
    pair = authority.issue(spiffe(account)).secret("x")["tls_certificate"]
    return {
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [pair],
            "validation_context": {
                "trusted_ca": {"inline_string": authority.pem},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": spiffe(peer)}}],
            },
        }
    }


@contextmanager
def started(name: str, bootstrap: Json) -> Iterator[Envoy]:
    with short_directory(f"bench-{name}-") as directory, running_envoy(directory, bootstrap) as envoy_:
        yield envoy_


@dataclass(frozen=True)
class Way:
    """``port`` leads through these Envoys."""

    port: int
    envoys: tuple[Envoy, ...] = ()

    def cpu_us(self) -> float:
        """What the Envoys have used so far."""
        used = 0
        for running in self.envoys:
            fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
        return used / os.sysconf("SC_CLK_TCK") * 1e6


def same_features(direction: ir.Direction, telemetry: ir.Telemetry) -> Json:
    """weft's filters and logs, put into a configuration that is otherwise written by hand."""
    return {
        "http_filters": [to_dict(row) for row in chain(HANDLER, direction)],
        "access_log": [
            to_dict(row) for row in http_logs(telemetry, direction, mutual=direction is ir.Direction.INBOUND)
        ],
    }


@contextmanager
def hand_written(
    authority: TestAuthority, application: int, telemetry: ir.Telemetry | None = None
) -> Iterator[Way]:
    inner, outer = free_port(), free_port()
    to_next = {"route": {"cluster": "next"}}
    server = envoy(
        inner,
        manager(to_next, **(same_features(ir.Direction.INBOUND, telemetry) if telemetry else {})),
        {**common_tls(authority, "app", "client"), "require_client_certificate": True},
        (cluster(application),),
    )
    client = envoy(
        outer,
        manager(to_next, **(same_features(ir.Direction.OUTBOUND, telemetry) if telemetry else {})),
        None,
        (cluster(inner, common_tls(authority, "client", "app"), http2=True),),
    )
    with started("server", server) as first, started("client", client) as second:
        yield Way(outer, (first, second))


@contextmanager
def emitted(authority: TestAuthority, application: int, telemetry: ir.Telemetry) -> Iterator[Way]:
    inner, outer = free_port(), free_port()
    upstream = mesh_cluster("app")
    forward = ir.Forward(
        destinations=(ir.Destination(cluster=upstream.name),),
        retry=ir.Retry(attempts=2, on=("connect-failure", "refused-stream", "unavailable", "cancelled")),
    )
    route = ir.Route(name="default", match=ir.RequestMatch(), action=forward)
    http = ir.HttpHandler(stat_prefix="9080", routes="9080")
    listener = ir.Listener(
        name="0.0.0.0_9080",
        direction=ir.Direction.OUTBOUND,
        address="127.0.0.1",
        port=outer,
        receive=ir.Receive.BOUND,
        chains=(ir.FilterChain(name="http", match=ir.ChainMatch(), handler=http),),
    )
    with ExitStack() as stack:
        first = stack.enter_context(
            run_proxy(
                "app",
                (server_listener(inner, application, strict=True),),
                clusters=(inbound(application, "app", ir.UpstreamProtocol.HTTP1),),
                authority=authority,
                telemetry=telemetry,
            )
        )
        second = stack.enter_context(
            run_proxy(
                "client",
                (listener,),
                routes=(table(route),),
                clusters=(upstream,),
                endpoints=(endpoints(upstream, ("127.0.0.1", inner)),),
                authority=authority,
                telemetry=telemetry,
            )
        )
        yield Way(outer, (first, second))


@dataclass(frozen=True)
class Load:
    """``rate``: requests per second; ``median_us``: of their latencies."""

    requests: int
    rate: float
    median_us: float


def load(port: int, seconds: int, address: str = "127.0.0.1", host: str = "") -> Load:
    """Requests one after another on some connections, for so long."""
    done = subprocess.run(
        [
            "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency",
            *(("-H", f"Host: {host}") if host else ()), f"http://{address}:{port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"answers were not 200:\n{done.stdout}")
    requests = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)
    assert requests, done.stdout
    assert rate, done.stdout
    assert median, done.stdout
    unit_us = {"us": 1, "ms": 1e3, "s": 1e6}[median[2]]
    return Load(int(requests[1]), float(rate[1]), float(median[1]) * unit_us)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--access-log", action="store_true")
    options = parser.parse_args()
    logs = (ir.AccessLog(to=ir.FileLog(path="access.log")),) if options.access_log else ()
    told = ir.Reports(logs=logs)
    telemetry = ir.Telemetry(client=told, server=told)
    silent = replace(told, metrics=None)
    authority = TestAuthority()
    with ExitStack() as stack:
        application = free_port()
        answer = {"direct_response": {"status": 200, "body": {"inline_string": BODY}}}
        stack.enter_context(started("application", envoy(application, manager(answer))))
        ways = {
            "direct": Way(application),
            "bare": stack.enter_context(hand_written(authority, application)),
            "same": stack.enter_context(hand_written(authority, application, telemetry)),
            "weft": stack.enter_context(emitted(authority, application, telemetry)),
            "unmetered": stack.enter_context(
                emitted(authority, application, ir.Telemetry(client=silent, server=silent))
            ),
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            load(way.port, 1)
        for _ in range(options.rounds):
            for name, way in ways.items():
                before = way.cpu_us()
                done = load(way.port, options.seconds)
                measured[name].append((done.rate, done.median_us))
                costs[name].append((way.cpu_us() - before) / done.requests)
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in measured.items()}
    result = {
        "connections": CONNECTIONS,
        "access_log": options.access_log,
        "requests_per_second": {name: round(rate) for name, rate in rates.items()},
        "median_us": {
            name: round(statistics.median(latency for _, latency in runs)) for name, runs in measured.items()
        },
        # What a request costs both proxies together: other work on the machine hardly touches it.
        "cpu_us_per_request": {name: round(statistics.median(values), 1) for name, values in costs.items()},
        "weft_to_same": round(rates["weft"] / rates["same"], 3),
        "weft_to_bare": round(rates["weft"] / rates["bare"], 3),
        # Rounds are measured close together: their ratios wander less than the rates.
        "weft_to_same_by_round": [
            round(ours[0] / theirs[0], 3)
            for ours, theirs in zip(measured["weft"], measured["same"], strict=True)
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
