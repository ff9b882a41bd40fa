"""The port of the telemetry process under attack, and its life beside its parent. No Envoy: gRPC by hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.x509 import load_pem_x509_certificate

from tests.support.certificates import Pair, TestAuthority
from tests.support.envoy import short_directory, wait_until
from tests.support.telemetry import SERVER, Telemetry, running_telemetry
from weft.protos import otlp_trace_service_v1
from weft.telemetry.limits import MEBIBYTE, Room
from weft.telemetry.server import LOGS, TRACES

WORKLOAD = "spiffe://cluster.local/ns/default/sa/web"
ROOT = Path(__file__).parents[2]


def _send(
    telemetry: Telemetry, authority: TestAuthority, pair: Pair | None, body: bytes = b"", method: str = TRACES
) -> grpc.StatusCode:
    """What comes of one call."""
    credentials = grpc.ssl_channel_credentials(
        authority.pem.encode(),
        pair.key.encode() if pair else None,
        pair.certificate.encode() if pair else None,
    )
    options = (("grpc.ssl_target_name_override", SERVER), ("grpc.use_local_subchannel_pool", 1))
    with grpc.secure_channel(f"127.0.0.1:{telemetry.port}", credentials, options) as channel:
        try:
            channel.unary_unary(method)(body, timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture(scope="module")
def telemetry(authority: TestAuthority) -> Iterator[Telemetry]:
    room = Room(disk=64 * MEBIBYTE)
    with short_directory() as directory, running_telemetry(directory, authority, room=room) as running:
        yield running


def test_it_has_the_room_that_it_is_granted(telemetry: Telemetry) -> None:
    assert telemetry.ask("health")["diskBytesMost"] == 64 * MEBIBYTE


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://elsewhere/ns/default/sa/web",
        "spiffe://cluster.local/weft/node/n1",
        "spiffe://cluster.local/weft/admin/root",
        "spiffe://cluster.local/ns/default",
        "web.example.com",
    ],
)
def test_only_workloads_of_this_mesh_may_tell(
    telemetry: Telemetry, authority: TestAuthority, name: str
) -> None:
    before = telemetry.ask("health")["lost"]["strangers"]
    assert _send(telemetry, authority, authority.issue(name)) is grpc.StatusCode.PERMISSION_DENIED
    assert telemetry.ask("health")["lost"]["strangers"] == before + 1


def test_who_shows_no_certificate_or_another_mesh_s_comes_nowhere(
    telemetry: Telemetry, authority: TestAuthority
) -> None:
    assert _send(telemetry, authority, None) is grpc.StatusCode.UNAVAILABLE
    forged = TestAuthority("test root").issue(WORKLOAD)
    assert _send(telemetry, authority, forged) is grpc.StatusCode.UNAVAILABLE


def test_rubbish_is_counted_and_no_more(telemetry: Telemetry, authority: TestAuthority) -> None:
    pair = authority.issue(WORKLOAD)
    before = telemetry.ask("health")["lost"]["unreadable"]
    for method in (TRACES, LOGS):
        assert _send(telemetry, authority, pair, b"\xff" * 1000, method) is grpc.StatusCode.OK
    wait_until(lambda: telemetry.ask("health")["lost"]["unreadable"] == before + 2, 60, "the count")
    huge = b"\0" * (5 * 1024 * 1024)
    assert _send(telemetry, authority, pair, huge) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _send(telemetry, authority, pair, method="/no.such/Method") is grpc.StatusCode.UNIMPLEMENTED
    assert telemetry.answers()


def test_spans_are_told_to_the_metrics(telemetry: Telemetry, authority: TestAuthority) -> None:
    request = otlp_trace_service_v1.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=time.time_ns()
    )
    assert _send(telemetry, authority, authority.issue(WORKLOAD), request.SerializeToString()) is (
        grpc.StatusCode.OK
    )
    wait_until(lambda: telemetry.metrics.spans.value() >= 1, 60, "the metric")
    assert len(telemetry.ask("trace", id=(b"t" * 16).hex())["spans"]) == 1


def test_it_goes_before_others_when_something_runs_out(telemetry: Telemetry) -> None:
    process = Path(f"/proc/{telemetry.pid}")
    (limit,) = re.findall(r"Max data size +(\d+)", (process / "limits").read_text())
    assert int(limit) <= 1024**3
    assert int((process / "oom_score_adj").read_text()) >= 500
    nice = int((process / "stat").read_text().rpartition(")")[2].split()[16])
    assert nice >= 10


def test_a_new_root_holds_without_a_restart(authority: TestAuthority) -> None:
    other = TestAuthority("another root")
    with short_directory() as directory, running_telemetry(directory, authority) as running:
        assert _send(running, authority, authority.issue(WORKLOAD)) is grpc.StatusCode.OK
        running.renew(other)
        pair = other.issue(WORKLOAD)
        wait_until(lambda: _send(running, other, pair) is grpc.StatusCode.OK, 60, "the new root")
        assert _send(running, other, authority.issue(WORKLOAD)) is grpc.StatusCode.UNAVAILABLE
        assert running.metrics.telemetry_restarts.value() == 0


def test_a_revoked_workload_tells_nothing(telemetry: Telemetry, authority: TestAuthority) -> None:
    pair, other = authority.issue(WORKLOAD), authority.issue(WORKLOAD)
    assert _send(telemetry, authority, pair) is grpc.StatusCode.OK
    telemetry.revoked.append(f"{load_pem_x509_certificate(pair.certificate.encode()).serial_number:x}")
    wait_until(
        lambda: _send(telemetry, authority, pair) is grpc.StatusCode.PERMISSION_DENIED, 60, "the refusal"
    )
    assert _send(telemetry, authority, other) is grpc.StatusCode.OK


_PARENT = """
import sys, time
from pathlib import Path
from tests.support.certificates import TestAuthority
from tests.support.telemetry import running_telemetry
with running_telemetry(Path(sys.argv[1]), TestAuthority()) as running:
    print(running.pid, flush=True)
    time.sleep(600)
"""


def test_it_ends_with_its_parent_however_that_ends() -> None:
    with short_directory() as directory:
        parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT, str(directory)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        )  # fmt: skip
        assert parent.stdout is not None
        with parent.stdout:
            child = int(parent.stdout.readline())
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            wait_until(lambda: not _runs(child), 60, "its end")


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
