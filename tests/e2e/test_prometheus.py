"""A mesh under a real Prometheus: what a host shows, and the questions of people's dashboards."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e import counted
from tests.support.envoy import UnixConnection
from tests.support.mesh import ROOT, Mesh, up, wait_until
from tests.support.otlp_metrics import MetricCollector, running_metric_collector

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
  - overrides:
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
def collector() -> Iterator[MetricCollector]:
    with running_metric_collector() as running:
        yield running


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, collector: MetricCollector) -> Iterator[Mesh]:
    chosen = tmp_path_factory.mktemp("chosen") / "chosen.yaml"
    chosen.write_text(CHOSEN)
    # `weft` and the interpreter with weft's packages go first on the PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outcomes = chosen.with_name("counted.yaml")
    outcomes.write_text(counted.resources(collector))
    with up(EXAMPLE / "mesh.yaml", chosen, outcomes, env={"PATH": path}) as mesh:
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


def by(samples: Iterable[tuple[str, Labels, float]], label: str, **wanted: str) -> dict[str, int]:
    """Requests to the service with known outcomes, by a label."""
    found: Counter[str] = Counter()
    for name, has, value in samples:
        said = {"destination_service": counted.SERVICE, **wanted}
        if name.removeprefix("envoy_") == "istio_requests_total" and has.items() >= said.items():
            found[has.get(label, "")] += int(value)
    return dict(found)


def envoy(mesh: Mesh, workload: str) -> list[tuple[str, Labels, float]]:
    """Every sample of one Envoy itself."""
    families = text_string_to_metric_families(mesh.admin(workload, "/stats/prometheus?usedonly"))
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def stat(mesh: Mesh, *argv: str) -> dict[str, int]:
    """Requests as the command has them, as JSON; the table that people see has to say the same."""
    asked = ("stat", "svc/counted", "-n", "demo", "-t", "30m", *argv)
    rows = json.loads(mesh.weft(*asked, "-o", "json"))["rows"]
    said = {row["key"]: row["requests"] for row in rows if row["requests"]}
    cells = [re.split(r"  +", line.strip()) for line in mesh.weft(*asked).splitlines()[1:]]
    shown = {line[0]: line[1] for line in cells if len(line) > 1}
    assert said.items() <= {key: int(number) for key, number in shown.items() if number.isdigit()}.items()
    return said


def everywhere(mesh: Mesh, collector: MetricCollector, side: str) -> dict[str, tuple[Any, Any]]:
    """What one side counted, of HTTP by status and of gRPC by its own: by who says so."""
    proxy = {"source": "demo.shopper-0", "destination": "demo.counted-0"}[side]
    http = {"reporter": side, "request_protocol": "http"}
    grpc = {"reporter": side, "request_protocol": "grpc"}
    code, status = "response_code", "grpc_response_status"
    name, own, shown = "istio_requests_total", envoy(mesh, proxy), page(mesh)
    pushed = partial(collector.by, name, destination_service=counted.SERVICE)
    return {
        "its Envoy": (by(own, code, **http), by(own, status, **grpc)),
        "the host's page": (by(shown, code, **http), by(shown, status, **grpc)),
        "a collector": (pushed(code, **http), pushed(status, **grpc)),
    }


def all_say(mesh: Mesh, collector: MetricCollector, side: str, expected: Any) -> bool:
    said = everywhere(mesh, collector, side)
    return said == dict.fromkeys(said, expected)


def test_known_outcomes_are_as_many_everywhere(mesh: Mesh, collector: MetricCollector) -> None:
    """Last. One run of requests: at Envoys, on the host's page, by OTLP, in commands and in a page."""
    counted.ask_all(mesh.netns("demo/shopper-0"))
    sides = {
        "source": (counted.AT_SOURCE, counted.CALLS_AT_SOURCE),
        "destination": (counted.AT_DESTINATION, counted.CALLS_AT_DESTINATION),
    }
    for side, expected in sides.items():
        same = partial(all_say, mesh, collector, side, expected)
        wait_until(same, f"{side}: {everywhere(mesh, collector, side)}", 90)
    assert not collector.torn
    assert {"weft_node_workload_ready", "pilot_services"} <= collector.names()
    # A call counts once: as who was called saw it, and faults as the caller did.
    calls = {f"grpc {status}": number for status, number in counted.CALLS_AT_SOURCE.items()}
    once = {**counted.AT_DESTINATION, **calls, "418": counted.ABORTED}
    assert stat(mesh, "--by", "code") == once
    asked = ("svc/counted", "-n", "demo", "-t", "30m", "-o", "json")
    (whole,) = json.loads(mesh.weft("stat", *asked, "--by", "service"))["rows"]
    assert (whole["requests"], whole["opened"]) == (sum(once.values()), 1)
    assert whole["sent"] == whole["received"] == counted.BYTES
    edges = json.loads(mesh.weft("edges", *asked))["edges"]
    assert sum(edge["requests"] for edge in edges) == sum((*counted.AT_SOURCE.values(), *calls.values()))
    assert {edge["source"]["workload"] for edge in edges} == {"shopper"}
    assert in_dashboard(mesh, "/services/demo/counted?window=1h", "codes") == once


class Cells(HTMLParser):
    """The first number of each row of a table in a page, by the row's key."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self._table, self._inside, self._key, self._reads = table, False, "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "table":
            self._inside = said.get("id") == self._table
        elif tag == "tr":
            self._key = said.get("data-key") or ""
        elif tag == "td":
            self._reads = self._inside and "num" in (said.get("class") or "") and self._key not in self.found

    def handle_data(self, data: str) -> None:
        if self._reads and data.strip():
            self.found[self._key], self._reads = int(data.replace(",", "")), False


def in_dashboard(mesh: Mesh, path: str, table: str) -> dict[str, int]:
    """What a page of the dashboard shows, as a browser fetches it."""
    link = mesh.output.wait_for(r"dashboard, for one browser: (\S+)")[1]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    browser.open(link, timeout=20).close()
    with browser.open(link.partition("/enter")[0] + path, timeout=20) as answer:
        page = Cells(table)
        page.feed(answer.read().decode())
    return {key: number for key, number in page.found.items() if number}
