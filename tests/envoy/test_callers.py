"""Who calls, as the called workload's sidecar tells it; and how many gRPC messages went each way."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest

from tests.envoy.control import ControlPlane
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection, dial
from tests.support.envoy import Envoy, wait_until
from tests.support.rpc import SERVICE, serving_rpc, steered

PORTS = {"http": 9080, "tcp": 9000, "grpc": 9070}
SECONDS = 60.0
NAMED = (("grpc.default_authority", "reviews:9070"),)
LINE = re.compile(r"^envoy_(\w+)\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
SOURCE = {
    "source_workload": "web",
    "source_workload_namespace": "default",
    "source_app": "shop-web",
    "source_version": "v7",
    "source_cluster": "east",
    "source_canonical_service": "storefront",
    "source_canonical_revision": "v7",
    "source_principal": "spiffe://cluster.local/ns/default/sa/web",
}
LABELS = {
    "weft.dev/workload": "web",
    "app": "shop-web",
    "version": "v7",
    "topology.istio.io/cluster": "east",
    "service.istio.io/canonical-name": "storefront",
}
REQUESTS = (
    "istio_requests_total",
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_count",
    "istio_response_bytes_count",
)
STREAMS = (
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_received_bytes_total",
)


def _resource(group: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    }  # fmt: skip


def _resources(address: str) -> list[dict[str, Any]]:
    ports = [{"name": name, "port": port} for name, port in PORTS.items()]
    entry = {"address": address, "labels": {"app": "reviews"}, "serviceAccount": "reviews", "ports": PORTS}
    return [
        _resource("v1", "Service", "reviews", {"selector": {"app": "reviews"}, "ports": ports}),
        _resource("networking.istio.io/v1", "WorkloadEntry", "reviews", entry),
    ]


@dataclass
class Mesh:
    plane: ControlPlane
    web: Envoy
    reviews: Envoy
    stranger: str
    outbound: tuple[str, int]

    def destination(self, kind: str) -> tuple[str, int]:
        return self.plane.address("reviews"), PORTS[kind]


def _series(envoy: Envoy, name: str, **labels: str) -> list[tuple[dict[str, str], int]]:
    """What a metric counts in Envoy's own text, as far as these labels go."""
    found = [
        (dict(LABEL.findall(text)), int(float(value)))
        for metric, text, value in LINE.findall(envoy.admin("/stats/prometheus?usedonly"))
        if metric == name
    ]
    return [row for row in found if labels.items() <= row[0].items()]


def _sum(envoy: Envoy, name: str, label: str, **labels: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row, value in _series(envoy, name, **labels):
        counts[row.get(label, "")] += value
    return dict(counts)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    base = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    authority = TestAuthority()
    with ExitStack() as stack:
        stack.enter_context(serving(HttpBackend(f"{base}.2", PORTS["http"], "reviews")))
        stack.enter_context(serving(TcpBackend(f"{base}.2", PORTS["tcp"], "tcp")))
        stack.enter_context(serving_rpc(f"{base}.2", PORTS["grpc"]))
        plane = stack.enter_context(ControlPlane(tmp_path_factory.mktemp("store"), authority))
        plane.apply(*_resources(f"{base}.1"))

        def sidecar(name: str, address: str, own: str, labels: dict[str, str] | None = None) -> Envoy:
            weft = {
                "outboundAddress": address, "outboundPort": 15001,
                "inboundAddress": address, "appAddress": own,
            }  # fmt: skip
            return stack.enter_context(plane.sidecar(name, address, weft, account=name, labels=labels))

        reviews = sidecar("reviews", f"{base}.1", f"{base}.2")
        web = sidecar("web", f"{base}.3", f"{base}.4", LABELS)
        plane.settle(2)
        yield Mesh(plane, web, reviews, f"{base}.1", (f"{base}.3", 15001))


@pytest.fixture(scope="module")
def channel(mesh: Mesh) -> Iterator[grpc.Channel]:
    with (
        steered(mesh.destination("grpc"), mesh.outbound) as target,
        grpc.insecure_channel(target, NAMED) as made,
    ):
        yield made


def _holds(condition: Callable[[], object], expected: object, what: str) -> None:
    try:
        wait_until(lambda: condition() == expected, SECONDS, what)
    except TimeoutError:
        assert condition() == expected


def test_the_called_sidecar_knows_the_workload_that_calls(mesh: Mesh) -> None:
    connection = Connection(mesh.destination("http"), through=mesh.outbound)
    for _ in range(5):
        assert connection.ask("/").status == 200
    for name in REQUESTS:
        _holds(lambda name=name: _sum(mesh.reviews, name, "source_workload", **SOURCE), {"web": 5}, name)  # type: ignore[misc]


def test_a_caller_in_plain_text_is_unknown(mesh: Mesh) -> None:
    # Names in headers are a stranger's word.
    said = {"x_envoy_peer_metadata_id": "web", "x_envoy_peer_metadata": "ChQK", "x_weft_caller": "web"}
    assert Connection((mesh.stranger, PORTS["http"])).ask("/", **said).status == 200
    _holds(
        lambda: (
            _series(mesh.reviews, "istio_requests_total", connection_security_policy="none")[0][0].items()
            >= dict.fromkeys(SOURCE.keys() - {"source_principal"}, "unknown").items()
        ),
        True,
        "the stranger",
    )


def test_connections_have_the_same_labels_from_their_beginning(mesh: Mesh) -> None:
    for _ in range(4):
        with dial(mesh.destination("tcp"), through=mesh.outbound) as connection:
            connection.sendall(b"x" * 100)
            got = b""
            while len(got) < 100 + len(b"hello from tcp\n") and (more := connection.recv(65536)):
                got += more
    expected = dict(zip(STREAMS, (4, 4, 4 * 115, 4 * 100), strict=True))
    for name, count in expected.items():
        _holds(lambda name=name: _sum(mesh.reviews, name, "source_workload"), {"web": count}, name)  # type: ignore[misc]
        assert _sum(mesh.reviews, name, "source_workload", **SOURCE) == {"web": count}


CALLS = {"Unary": 6, "Count": 2, "Repeat": 2, "Twice": 2, "Refuse": 1}
# What each call sends and gets; Refuse has no answer but its status.
MESSAGES = {
    "istio_request_messages_total": 6 * 1 + 2 * 5 + 2 * 1 + 2 * 3 + 1,
    "istio_response_messages_total": 6 * 1 + 2 * 1 + 2 * 120 + 2 * 6,
}


def _call(channel: grpc.Channel) -> None:
    for _ in range(CALLS["Unary"]):
        assert channel.unary_unary(f"/{SERVICE}/Unary")(b"one", timeout=SECONDS) == b"one"
    for _ in range(CALLS["Count"]):
        assert channel.stream_unary(f"/{SERVICE}/Count")(iter([b"x"] * 5), timeout=SECONDS) == b"5"
    for _ in range(CALLS["Repeat"]):
        assert len(list(channel.unary_stream(f"/{SERVICE}/Repeat")(b"120", timeout=SECONDS))) == 120
    for _ in range(CALLS["Twice"]):
        assert len(list(channel.stream_stream(f"/{SERVICE}/Twice")(iter([b"x"] * 3), timeout=SECONDS))) == 6
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/Refuse")(b"", timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_grpc_messages_are_counted_at_both_ends(mesh: Mesh, channel: grpc.Channel) -> None:
    _call(channel)
    by_status = {"0": sum(CALLS.values()) - 1, "5": 1}
    for reporter, envoy in (("source", mesh.web), ("destination", mesh.reviews)):
        labels = {**SOURCE, "reporter": reporter, "request_protocol": "grpc"}
        labels |= {"destination_service_name": "reviews", "destination_workload": "reviews"}

        def by(name: str, envoy: Envoy = envoy, labels: dict[str, str] = labels) -> dict[str, int]:
            return _sum(envoy, name, "grpc_response_status", **labels)

        _holds(partial(by, "istio_requests_total"), by_status, reporter)
        for name, expected in MESSAGES.items():
            _holds(lambda by=by, name=name: sum(by(name).values()), expected, name)  # type: ignore[misc]
            assert by(name).keys() == {"0", "5"}


def test_a_stream_that_is_broken_off_is_counted_as_far_as_it_came(mesh: Mesh, channel: grpc.Channel) -> None:
    def counted(envoy: Envoy) -> dict[str, int]:
        return {
            name: sum(_sum(envoy, name, "reporter", request_protocol="grpc").values()) for name in MESSAGES
        }

    before = counted(mesh.reviews)
    more: list[bytes] = [b"x"] * 4
    done = threading.Event()

    def requests() -> Iterator[bytes]:
        for each in more:
            yield each
            done.wait(SECONDS)
            done.clear()
        done.wait(SECONDS)

    call = channel.stream_stream(f"/{SERVICE}/Twice")(requests(), timeout=SECONDS)
    for _ in more:
        assert [next(call), next(call)] == [b"x", b"x"]
        done.set()
    call.cancel()
    done.set()
    wanted = {name: before[name] + count for name, count in zip(MESSAGES, (4, 8), strict=True)}
    _holds(lambda: counted(mesh.reviews), wanted, "what had come")
    assert "isn't a number" not in mesh.reviews.log + mesh.web.log
    assert "non-number" not in mesh.reviews.log + mesh.web.log


def test_a_port_of_plain_http_has_no_filter_for_messages(mesh: Mesh) -> None:
    shown = mesh.reviews.admin("/config_dump?resource=dynamic_listeners")
    assert shown.count("weft.filters.http.grpc_messages") > 0
    for listener in json.loads(shown)["configs"]:
        for chain in listener["active_state"]["listener"].get("filter_chains", []):
            port = chain.get("filter_chain_match", {}).get("destination_port", 0)
            if port == PORTS["http"] or str(PORTS["http"]) in chain.get("name", ""):
                assert "grpc_messages" not in json.dumps(chain)
