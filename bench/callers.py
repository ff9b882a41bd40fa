"""What it costs an Envoy to know who calls, and to count messages of gRPC: CPU time of one Envoy, in turns.

``request_us``: a plain request without metrics, with them and a caller that is unknown, and with the caller's
labels. ``connection_us``: a new connection with mutual TLS, without and with the filter that remembers the
caller. ``grpc_us``: a unary call of gRPC, without and with the filters that count its messages.
Run: ``python bench/callers.py [--seconds 2] [--rounds 5]``. The last line is JSON: the median and the least
of all rounds: a busy machine only ever makes things dearer.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import grpc
from path import cluster, envoy, load, manager, started
from tests.support.certificates import TestAuthority
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.rpc import SERVICE, serving_rpc

from weft.card import NAMESPACE, REMEMBERED, Card
from weft.emit.caller import remembered
from weft.emit.filters import grpc_messages
from weft.emit.metrics import MUTUAL, http_metrics
from weft.ir.listener import Direction
from weft.ir.tls import DownstreamTls
from weft.protos.wire import pack, to_dict

SPIFFE = "spiffe://cluster.local/ns/default/sa/web"
CARD = Card.of("web", {"app": "shop-web", "version": "v7"})
ANSWER = {"direct_response": {"status": 200, "body": {"inline_string": "x" * 100}}}
STATE = "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"
Json = dict[str, Any]


def cpu_us(run: Envoy, work: Callable[[], int]) -> float:
    """CPU time for one of what ``work`` does so many times."""

    def used() -> float:
        fields = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 10_000.0

    before = used()
    count = work()
    return (used() - before) / count


def with_filters(bootstrap: Json, *filters: Json) -> Json:
    """The same with network filters before all others."""
    for listener in bootstrap["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            chain["filters"] = [*filters, *chain["filters"]]
    return bootstrap


def known() -> Json:
    """A connection that remembers a caller without TLS, so that nothing but labels is measured."""
    fields = {**CARD._asdict(), NAMESPACE: "default"}
    values = [
        {
            "object_key": f"{REMEMBERED}.{name}",
            "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": value}},
        }
        for name, value in fields.items()
    ]
    return {"name": "known", "typed_config": {"@type": STATE, "on_new_connection": values}}


def requests(seconds: int) -> dict[str, Callable[[], float]]:
    def measured(policy: str | None, *filters: Json) -> Callable[[], float]:
        def measure() -> float:
            port = free_port()
            logs = [to_dict(log) for log in http_metrics("destination", policy)] if policy else []
            made = with_filters(envoy(port, manager(ANSWER, access_log=logs)), *filters)
            with started("requests", made) as run:
                return cpu_us(run, lambda: load(port, seconds).requests)

        return measure

    return {"unmetered": measured(None), "unknown": measured("none"), "known": measured(MUTUAL, known())}


def connections(authority: TestAuthority) -> dict[str, Callable[[], float]]:
    tls: Json = {
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [authority.issue(SPIFFE).secret("server")["tls_certificate"]],
            "validation_context": {"trusted_ca": {"inline_string": authority.pem}},
        },
    }
    pair = authority.issue(SPIFFE, card=str(CARD))
    filters = remembered(DownstreamTls(certificates=(), peer_trust_domains=("x",)), Direction.INBOUND)

    def measured(*more: Json) -> Callable[[], float]:
        def measure() -> float:
            port = free_port()
            made = with_filters(envoy(port, manager(ANSWER), tls), *more)
            with ExitStack() as stack:
                run = stack.enter_context(started("connections", made))
                (file := run.directory / "client.pem").write_text(pair.key + pair.certificate)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.load_cert_chain(file)

                def connect() -> int:
                    for _ in range(200):
                        with (
                            socket.create_connection(("127.0.0.1", port)) as plain,
                            context.wrap_socket(plain) as secured,
                        ):
                            secured.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                            secured.recv(4096)
                    return 200

                return cpu_us(run, connect)

        return measure

    return {"without": measured(), "with": measured(*map(to_dict, filters))}


def calls(backend: int) -> dict[str, Callable[[], float]]:
    filters = [
        {"name": name, "typed_config": to_dict(pack(made))}
        for name, made in (
            (grpc_messages.NOTE, grpc_messages.note()),
            (grpc_messages.COUNT, grpc_messages.count()),
        )
    ]

    def measured(*more: Json) -> Callable[[], float]:
        def measure() -> float:
            port = free_port()
            handler = manager({"route": {"cluster": "next"}})
            config = handler["typed_config"]
            config["http_filters"] = [*more, *config["http_filters"]]
            made = envoy(port, handler, clusters=(cluster(backend, http2=True),))
            with started("calls", made) as run, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                unary = channel.unary_unary(f"/{SERVICE}/Unary")

                def ask() -> int:
                    for _ in range(1_000):
                        unary(b"x" * 100, timeout=20)
                    return 1_000

                return cpu_us(run, ask)

        return measure

    return {"without": measured(), "with": measured(*filters)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    backend = free_port()
    with serving_rpc("127.0.0.1", backend):
        groups = {
            "request_us": requests(given.seconds),
            "connection_us": connections(TestAuthority()),
            "grpc_us": calls(backend),
        }
        taken: dict[str, dict[str, list[float]]] = {
            group: {name: [] for name in ways} for group, ways in groups.items()
        }
        for _ in range(given.rounds):
            for group, ways in groups.items():
                for name, measure in ways.items():
                    taken[group][name].append(measure())
    figures = {
        group: {
            name: {"median": round(statistics.median(values), 1), "least": round(min(values), 1)}
            for name, values in ways.items()
        }
        for group, ways in taken.items()
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
