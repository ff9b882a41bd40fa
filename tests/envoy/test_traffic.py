"""Requests through two real sidecars: each claim is read out of Envoy's access logs or the backend."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.envoy.mesh import (
    HTTP_PORT,
    Client,
    Running,
    Service,
    blackhole,
    client_listeners,
    endpoints,
    host,
    mesh_cluster,
    run_proxy,
    run_service,
    spiffe,
    table,
)
from tests.support.certificates import TestAuthority
from tests.support.envoy import wait_until
from tests.support.ports import free_port
from weft import ir

V1 = mesh_cluster("reviews", subset="v1")
V2 = mesh_cluster("reviews", subset="v2")
BOTH = mesh_cluster("reviews")
IMPOSTOR = mesh_cluster("impostor")
NOWHERE = mesh_cluster("nowhere")
MILLION = 1_000_000


def _to(*destinations: ir.Cluster | tuple[ir.Cluster, int], **more: object) -> ir.Forward:
    targets = tuple(
        ir.Destination(cluster=target[0].name, weight=target[1])
        if isinstance(target, tuple)
        else ir.Destination(cluster=target.name)
        for target in destinations
    )
    return ir.Forward(destinations=targets, **more)  # type: ignore[arg-type]


def _route(
    prefix: str, action: ir.Forward | ir.Redirect | ir.Respond, fault: ir.Fault | None = None, **more: object
) -> ir.Route:
    path = ir.PathMatch(test=ir.PathTest.PATH_PREFIX, value=prefix)
    match = ir.RequestMatch(path=path, **more)  # type: ignore[arg-type]
    return ir.Route(name=prefix.strip("/") or "default", match=match, action=action, fault=fault)


def _header(name: str, value: str) -> tuple[ir.HeaderMatch, ...]:
    return (ir.HeaderMatch(name=name, match=ir.TextMatch(test=ir.TextTest.EXACT, value=value)),)


RETRY = ir.Retry(attempts=3, on=("5xx",), back_off=ir.BackOff(base=timedelta(milliseconds=1)))
ROUTES = (
    _route("/by", _to(V2), headers=_header("end-user", "jason")),
    _route("/by", _to(V1)),
    _route("/weighted", _to((V1, 90), (V2, 10))),
    _route("/retried", _to(V1, retry=RETRY)),
    _route("/once", _to(V1)),
    _route("/delayed", _to(V1), ir.Fault(delay=timedelta(milliseconds=400), delay_fraction=MILLION)),
    _route("/aborted", _to(V1), ir.Fault(abort_status=418, abort_fraction=MILLION)),
    _route("/sometimes", _to(V1), ir.Fault(abort_status=503, abort_fraction=MILLION // 2)),
    _route("/moved", ir.Redirect(code=302, host="other.example.com", prefix="/")),
    _route("/gone", ir.Respond(status=410, body=b"no more")),
    _route("/rooted", _to(V1, rewrite=ir.Rewrite(prefix="/"))),
    _route("/replaced", _to(V1, rewrite=ir.Rewrite(full="/new"))),
    _route("/named", _to(V1, host_rewrite="inner.example.com")),
    _route("/limited", _to(V1, timeout=timedelta(milliseconds=300))),
    _route(
        "/tried",
        _to(
            V1,
            retry=ir.Retry(attempts=2, on=("5xx",), per_try_timeout=timedelta(milliseconds=200)),
            timeout=timedelta(seconds=5),
        ),
    ),
    _route("/impostor", _to(IMPOSTOR)),
    _route("/nowhere", _to(NOWHERE)),
    _route("/missing", ir.Forward(destinations=(ir.Destination(cluster="no-such-cluster"),))),
    _route("/", _to(BOTH)),
)


@dataclass(frozen=True, slots=True)
class Mesh:
    client: Client
    v1: Service
    v2: Service


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    authority = TestAuthority()
    with ExitStack() as stack:
        v1 = stack.enter_context(run_service("v1", authority, account="reviews"))
        v2 = stack.enter_context(run_service("v2", authority, account="reviews"))
        other = stack.enter_context(run_service("other", authority, account="mallory"))
        port = free_port()
        client = stack.enter_context(
            run_proxy(
                "productpage",
                client_listeners(port, "9080"),
                routes=(table(*ROUTES),),
                clusters=(V1, V2, BOTH, IMPOSTOR, NOWHERE, blackhole()),
                endpoints=(
                    endpoints(V1, v1.sidecar.address),
                    endpoints(V2, v2.sidecar.address),
                    endpoints(BOTH, v1.sidecar.address, v2.sidecar.address),
                    endpoints(IMPOSTOR, other.sidecar.address),
                ),
                authority=authority,
                kept_stats=("http.9080", "cluster.outbound"),
            )
        )
        yield Mesh(Client(Running(client, ("127.0.0.1", port))), v1, v2)


def test_both_sides_know_who_the_other_is(mesh: Mesh) -> None:
    reply = mesh.client.open().ask("/by/identity", host="reviews:9080")
    assert reply.status == 200
    request = str(reply.body["headers"]["x-request-id"])
    (out,) = mesh.client.envoy.requests(request_id=request)
    (received,) = mesh.v1.sidecar.envoy.requests(request_id=request)
    assert out["upstream_peer_principal"] == spiffe("reviews")
    assert out["upstream_local_principal"] == spiffe("productpage")
    assert out["upstream_cluster"] == V1.name
    assert out["upstream_tls_version"] == "TLSv1.3"
    assert out["route_name"] == "by"
    assert received["downstream_peer_principal"] == spiffe("productpage")
    assert received["downstream_local_principal"] == spiffe("reviews")
    assert received["requested_server_name"] == f"outbound_.9080_.v1_.{host('reviews')}"
    assert received["protocol"] == "HTTP/2"
    assert received["reporter"] == "destination"


def test_the_application_is_told_who_calls(mesh: Mesh) -> None:
    headers = mesh.client.open().ask("/by/xfcc", host="reviews").body["headers"]
    assert f"URI={spiffe('productpage')}" in headers["x-forwarded-client-cert"]
    assert f"By={spiffe('reviews')}" in headers["x-forwarded-client-cert"]


def test_a_header_chooses_the_version(mesh: Mesh) -> None:
    connection = mesh.client.open()
    assert connection.ask("/by/header", host="reviews", end_user="jason").body["name"] == "v2"
    assert connection.ask("/by/header", host="reviews", end_user="jane").body["name"] == "v1"


def test_weights_hold_over_2000_requests(mesh: Mesh) -> None:
    count, share = 2_000, 0.1
    connection = mesh.client.open()
    answered = Counter(connection.ask("/weighted").body["name"] for _ in range(count))
    sigma = math.sqrt(count * share * (1 - share))
    assert answered.total() == count
    assert abs(answered["v2"] - count * share) <= 3 * sigma, answered


def test_endpoints_share_the_load(mesh: Mesh) -> None:
    connection = mesh.client.open()
    answered = Counter(connection.ask("/shared").body["name"] for _ in range(100))
    assert set(answered) == {"v1", "v2"}


def test_failures_are_retried_as_often_as_allowed(mesh: Mesh) -> None:
    connection = mesh.client.open()
    assert connection.ask("/retried/a?fail=3&key=a").status == 200
    assert mesh.v1.backend.seen["/retried/a"] == 4
    assert connection.ask("/retried/b?fail=9&key=b").status == 503
    assert mesh.v1.backend.seen["/retried/b"] == 4
    assert connection.ask("/once/c?fail=1&key=c").status == 503
    assert mesh.v1.backend.seen["/once/c"] == 1
    (line,) = mesh.client.envoy.requests(path="/retried/b?fail=9&key=b")
    assert line["response_flags"] == "URX"
    assert line["upstream_request_attempt_count"] == 4


def test_a_fault_delays(mesh: Mesh) -> None:
    begun = time.monotonic()
    assert mesh.client.open().ask("/delayed").status == 200
    assert time.monotonic() - begun >= 0.39  # Envoy's timer and ours are not one clock
    (line,) = mesh.client.envoy.requests(path="/delayed")
    assert line["response_flags"] == "DI"


def test_a_fault_aborts_before_the_service_is_reached(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/aborted").status == 418
    assert mesh.v1.backend.seen["/aborted"] == 0
    (line,) = mesh.client.envoy.requests(path="/aborted")
    assert line["response_flags"] == "FI"


def test_a_fault_hits_its_share(mesh: Mesh) -> None:
    count, share = 400, 0.5
    connection = mesh.client.open()
    failed = sum(connection.ask("/sometimes").status == 503 for _ in range(count))
    assert abs(failed - count * share) <= 4 * math.sqrt(count * share * (1 - share))


def test_redirects_and_answers_of_the_proxys_own(mesh: Mesh) -> None:
    connection = mesh.client.open()
    moved = connection.ask("/moved/on?x=1", host="reviews")
    assert moved.status == 302
    assert moved.headers["location"] == "http://other.example.com/on?x=1"
    gone = connection.ask("/gone")
    assert (gone.status, gone.text) == (410, "no more")


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("/rooted/a?x=1", "/a?x=1"),
        ("/rooted", "/"),
        ("/rooted/", "/"),
        ("/replaced/a/b?x=1", "/new?x=1"),
    ],
)
def test_paths_are_rewritten(mesh: Mesh, asked: str, seen: str) -> None:
    assert mesh.client.open().ask(asked).body["path"] == seen


def test_the_host_is_rewritten(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/named", host="reviews").body["headers"]["host"] == "inner.example.com"


def test_a_slow_answer_is_cut_off(mesh: Mesh) -> None:
    begun = time.monotonic()
    assert mesh.client.open().ask("/limited?delay=3").status == 504
    assert time.monotonic() - begun < 2
    (line,) = mesh.client.envoy.requests(path="/limited?delay=3")
    assert line["response_flags"] == "UT"
    assert mesh.client.open().ask("/limited").status == 200


def test_each_try_has_its_own_limit(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/tried/x?delay=1").status == 504
    wait_until(lambda: mesh.v1.backend.seen["/tried/x"] == 3, what="three tries")


def test_an_identity_that_the_service_does_not_have_is_refused(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/impostor").status == 503
    (line,) = mesh.client.envoy.requests(path="/impostor")
    assert "CERTIFICATE_VERIFY_FAILED" in line["upstream_transport_failure_reason"]


def test_a_service_without_endpoints_answers_503(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/nowhere").status == 503
    (line,) = mesh.client.envoy.requests(path="/nowhere")
    assert line["response_flags"] == "UH"


def test_a_route_to_a_cluster_that_does_not_exist_answers_503(mesh: Mesh) -> None:
    assert mesh.client.open().ask("/missing").status == 503
    (line,) = mesh.client.envoy.requests(path="/missing")
    assert line["response_flags"] == "NC"


def test_other_destinations_go_into_the_black_hole(mesh: Mesh) -> None:
    with pytest.raises(OSError):
        mesh.client.open(port=1234).ask("/")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
def test_nothing_loops_where_connections_are_tracked(mesh: Mesh) -> None:
    """A nat chain makes the kernel track connections, as beside Docker: it then knows an "original
    destination" of every connection, though nobody redirected it."""
    table_name = f"weft-test-{secrets.token_hex(4)}"
    chain = f"add chain inet {table_name} output {{ type nat hook output priority -100; }}"
    subprocess.run(["nft", "-f", "-"], input=f"add table inet {table_name}\n{chain}\n", text=True, check=True)
    try:
        assert mesh.client.open().ask("/by/tracked", host="reviews").body["name"] == "v1"
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table_name], check=True)


def test_a_websocket_shares_a_connection_of_the_mesh_with_requests(mesh: Mesh) -> None:
    held = mesh.client.open()
    held.request("GET", "/by/beside?held")
    wait_until(lambda: mesh.v1.backend.seen["/by/beside"] == 1, what="a request on its way")
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    socket = mesh.client.open()
    socket.request("GET", "/by/socket", headers={**upgrade, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="})
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += socket.sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    for text in (b"one", b"two"):
        socket.sock.sendall(text)
        assert socket.sock.recv(100) == text
    mesh.v1.backend.gate.set()
    assert held.getresponse().status == 200
    socket.close()


def test_http_1_0_is_served(mesh: Mesh) -> None:
    connection = mesh.client.open()
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    assert connection.ask("/by/old", host="reviews").status == 200


def test_istios_metrics_tell_both_ends(mesh: Mesh) -> None:
    for _ in range(3):
        mesh.client.open().ask("/by/metrics", host="reviews")
    source = mesh.client.envoy.admin("/stats?format=prometheus&filter=istio_requests_total")
    line = next(row for row in source.splitlines() if 'response_code="200"' in row and 'version="v1"' in row)
    for label in (
        'reporter="source"',
        'source_workload="productpage"',
        'source_workload_namespace="default"',
        'source_canonical_service="productpage"',
        f'source_principal="{spiffe("productpage")}"',
        'destination_workload="reviews-0"',
        'destination_canonical_service="reviews"',
        f'destination_principal="{spiffe("reviews")}"',
        f'destination_service="{host("reviews")}"',
        'destination_service_name="reviews"',
        'destination_service_namespace="default"',
        'request_protocol="http"',
        'source_cluster="unknown"',
        'connection_security_policy="unknown"',
        'response_flags="-"',
    ):
        assert label in line, label
    server = mesh.v1.sidecar.envoy.admin("/stats?format=prometheus&filter=istio_requests_total")
    assert 'reporter="destination"' in server
    assert 'connection_security_policy="mutual_tls"' in server
    assert f'source_principal="{spiffe("productpage")}"' in server
    assert 'source_workload="productpage"' in server


def test_istios_histograms_count_every_request(mesh: Mesh) -> None:
    mesh.client.open().ask("/by/histogram", host="reviews")

    def buckets() -> bool:
        shown = mesh.client.envoy.admin("/stats?format=prometheus&filter=istio_request_duration_milliseconds")
        return "istio_request_duration_milliseconds_bucket" in shown and 'le="1000"' in shown

    wait_until(buckets, 15, "a flush of the histograms")


def test_the_port_of_the_mesh_is_the_only_listener(mesh: Mesh) -> None:
    shown = mesh.client.envoy.admin("/listeners")
    assert f"0.0.0.0_{HTTP_PORT}" in shown
    assert mesh.client.envoy.admin("/ready").strip() == "LIVE"
