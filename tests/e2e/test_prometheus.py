"""A mesh under a real Prometheus: what a host shows, and the questions of people's dashboards."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.envoy import UnixConnection
from tests.support.mesh import ROOT, Mesh, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

EXAMPLE = ROOT / "examples" / "observability"
HOSTILE = '"} 1\nup{job="x\\"} 7,pod="nobody",le="'
# A label out of a header: whoever calls chooses what stands there.
CHOSEN = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: chosen, namespace: demo}
spec:
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      tagOverrides: {said: {value: "request.headers['x-said']"}, pod: {value: "request.headers['x-pod']"}}
"""
CHANGE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: demo}}
spec:
  hosts: [web]
  http: [{{timeout: {seconds}s, route: [{{destination: {{host: web}}}}]}}]
"""

# A call of gRPC; names are resolved as everybody does it.
ASK = """
import os
os.environ["GRPC_DNS_RESOLVER"] = "native"
import grpc
with grpc.insecure_channel("store:6001") as store:
    store.unary_unary("/shop.Store/Ask")(b"what is there?", timeout=9)
"""

Labels = dict[str, str]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    chosen = tmp_path_factory.mktemp("chosen") / "chosen.yaml"
    chosen.write_text(CHOSEN)
    # `weft` and the interpreter with weft's packages go first on the PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with up(EXAMPLE / "mesh.yaml", chosen, env={"PATH": path}) as mesh:
        yield mesh


def page(mesh: Mesh, query: str = "") -> list[tuple[str, Labels, float]]:
    """Every sample of a host, read by Prometheus' own strict parser."""
    with UnixConnection(mesh.runtime / "metrics.sock") as connection:
        connection.request("GET", f"/metrics{query}")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        text = answer.read().decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names)), "a name stands at two places"
    families = text_string_to_metric_families(text)
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def total(samples: list[tuple[str, Labels, float]], name: str, **labels: str) -> float:
    return sum(
        value
        for found, has, value in samples
        if found == name and all(has.get(key) == wanted for key, wanted in labels.items())
    )


def call(mesh: Mesh, url: str, *argv: str, count: int) -> Counter[str]:
    """Requests out of the shopper's sidecar, by their status."""
    found = mesh.run(
        "call",
        "--mesh",
        mesh.name,
        "--from",
        "shopper-0.demo",
        url,
        *argv,
        "--count",
        str(count),
        "-o",
        "json",
    )
    statuses: dict[str, int] = json.loads(found.stdout)["summary"]["statuses"]
    return Counter(statuses)


def outcome(samples: list[tuple[str, Labels, float]], reporter: str) -> Counter[str]:
    """Requests to the service as one side counted them, by status."""
    found: Counter[str] = Counter()
    for name, labels, value in samples:
        if name == "istio_requests_total" and labels["reporter"] == reporter:
            assert labels["destination_service"] == "web.demo.svc.cluster.local"
            found[labels["response_code"]] += int(value)
    return found


def test_counts_are_exact_on_both_sides_and_in_the_application(mesh: Mesh) -> None:
    call(mesh, "http://web:8080/", count=20)
    call(mesh, "http://web:8080/?responseCode=503", count=10)
    expected = Counter({"200": 20, "503": 10})

    def counted() -> list[tuple[str, Labels, float]]:
        samples = page(mesh)
        return samples if outcome(samples, "source") == expected else []

    samples = wait_until(counted, "the caller's sidecar counts")
    assert sum(outcome(samples, "destination").values()) >= 30
    assert outcome(samples, "destination")["200"] == 20
    workloads = {has["destination_workload"] for name, has, _ in samples if name == "istio_requests_total"}
    assert workloads == {"web-v1", "web-v2"}
    sold = total(samples, "shop_orders_total", pod="web-v2-0", namespace="demo", app="web", version="v2")
    assert sold == total(samples, "istio_requests_total", reporter="destination", pod="web-v2-0")
    assert total(samples, "istio_build", component="proxy") == total(samples, "weft_node_workload_ready")
    assert not [has for name, has, _ in samples if name.startswith("istio_") and "" in has.values()]


def test_what_a_workload_uses_is_told_by_its_parts(mesh: Mesh) -> None:
    samples = page(mesh, "?workload=demo/web-v1-0")
    assert {has["pod"] for _, has, _ in samples if "pod" in has} == {"web-v1-0"}
    for container in ("istio-proxy", "web-v1"):
        labels = {"pod": "web-v1-0", "container": container}
        assert total(samples, "container_memory_working_set_bytes", **labels) > 1_000_000
        assert total(samples, "container_cpu_usage_seconds_total", **labels) > 0
    assert total(samples, "weft_node_certificate_expiration_timestamp_seconds") > 1_700_000_000


def test_labels_that_a_caller_chooses_are_inert(mesh: Mesh) -> None:
    said = HOSTILE.replace("\n", " ")
    call(mesh, "http://web:8080/", "-H", f"x-said: {said}", "-H", "x-pod: another", count=1)

    def found() -> list[Labels]:
        return [
            has
            for name, has, _ in page(mesh)
            if name == "istio_requests_total" and has.get("said", "unknown") != "unknown"
        ]

    (labels,) = wait_until(found, "the label")
    assert labels["said"] == said
    assert (labels["pod"], labels["exported_pod"]) == ("shopper-0", "another")


def test_a_sidecar_that_hangs_holds_nobody_up(mesh: Mesh) -> None:
    pid = mesh.rows()["demo/store-0"]["proxyPid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        samples = page(mesh)
    finally:
        os.kill(pid, signal.SIGCONT)
    proxies = {has["pod"]: value for name, has, value in samples if name == "weft_node_source_up"}
    assert proxies.pop("store-0") == 0
    assert set(proxies.values()) == {1}
    assert total(samples, "istio_requests_total") > 0
    wait_until(lambda: total(page(mesh), "weft_node_source_up", pod="store-0") == 1, "it answers again")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian: prometheus)")
def test_prometheus_answers_what_dashboards_ask(mesh: Mesh, tmp_path: Path) -> None:
    argv = [sys.executable, str(EXAMPLE / "observe.py"), "--mesh", mesh.name, "--port", "0"]
    argv += ["--check", "-o", "json", "--interval", "1s", "--seconds", "60"]
    checking = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    sending = threading.Thread(target=shop, args=(mesh, checking, tmp_path / "change.yaml"))
    sending.start()
    try:
        answers: dict[str, list[dict[str, Any]]] = json.loads(checking.communicate(timeout=100)[0])
    finally:
        checking.kill()
        sending.join()
    assert not [what for what, result in answers.items() if not result]
    assert len(answers) > 50
    edges = [one["metric"] for one in answers["kiali: TCP edges"]]
    assert [(edge["source_workload"], edge["destination_workload"]) for edge in edges] == [
        ("shopper", "store")
    ]
    callers = answers["service dashboard: requests over mutual TLS by caller"]
    assert {one["metric"]["source_workload"] for one in callers} == {"shopper", "istio-ingressgateway"}
    asked = [one["metric"] for one in answers["kiali: messages that servers of gRPC answered"]]
    assert {(one["source_workload"], one["destination_workload"]) for one in asked} == {("shopper", "store")}


def shop(mesh: Mesh, until: subprocess.Popen[str], change: Path) -> None:
    """Requests of every kind, and changes of the mesh, until a process ends."""
    namespace = f"--net={mesh.netns('demo/shopper-0')}"
    seconds = 10
    while until.poll() is None:
        call(mesh, "http://web:8080/", count=5)
        for path in ("/", "/?responseCode=503"):
            front = http.client.HTTPConnection("127.0.0.1", mesh.gateway_port, timeout=20)
            front.request("GET", path)
            front.getresponse().read()
            front.close()
        talk = "import socket; s = socket.create_connection(('store', 6000), 9); s.send(b'hello'); s.recv(9)"
        for said in (talk, ASK):
            subprocess.run(["nsenter", namespace, sys.executable, "-c", said], check=False, timeout=20)
        seconds += 1
        change.write_text(CHANGE.format(seconds=seconds))
        mesh.weft("apply", str(change))
