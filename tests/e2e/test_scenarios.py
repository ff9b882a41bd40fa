"""The shop's scenarios, applied to a running mesh as their comments say; what each promises is measured."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import os
import secrets
import shutil
import socket
import statistics
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.load import load
from tests.support.mesh import SHOP, Mesh, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

SCENARIOS = SHOP / "scenarios"
RECOMMENDATIONS = "http://recommendations:8080/recommendations/ada"
V1, V2 = "recommendations-v1-0", "recommendations-v2-0"


@pytest.fixture(scope="module")
def shop() -> Iterator[Mesh]:
    with up(SHOP / "mesh.yaml", SHOP / "gateway.yaml") as mesh:
        yield mesh


@pytest.fixture
def scenario(shop: Mesh, request: pytest.FixtureRequest) -> Iterator[Path]:
    """One file, live on every proxy; deleted afterwards as its comment says, and that is looked at too."""
    file = SCENARIOS / request.param
    shop.weft("apply", "--wait", str(file))
    yield file
    shop.weft("delete", "-f", str(file))
    assert shop.weft("get", "virtualservice", "-n", "shop", "-o", "name").split() == [
        "virtualservice.networking.istio.io/shop"
    ]


def call(
    shop: Mesh, url: str, *argv: str, source: str = "front-v1-0.shop", count: int = 20
) -> dict[str, Any]:
    """The summary of ``weft call``."""
    found = shop.run(
        "call", "--mesh", shop.name, "--from", source, url, *argv, "--count", str(count), "-o", "json"
    )
    assert found.returncode == 0, found.stderr
    summary: dict[str, Any] = json.loads(found.stdout)["summary"]
    return summary


def unique(name: str) -> str:
    """A user agent of its own for every try: what an earlier one left in the access log is not counted."""
    return f"{name}-{secrets.token_hex(4)}"


def near(found: int, share: float, count: int) -> bool:
    """Within three standard deviations of a binomial distribution."""
    return abs(found - share * count) <= 3 * math.sqrt(count * share * (1 - share))


def resolve(shop: Mesh, name: str) -> str:
    """A name as the front service's application sees it."""
    found = subprocess.run(
        ["nsenter", f"--net={shop.netns('shop/front-v1-0')}", "getent", "ahostsv4", name],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return found.stdout.split()[0]


def weights(v1: int, v2: int) -> str:
    """The canary with other weights."""
    documents = list(yaml.safe_load_all((SCENARIOS / "canary-90-10.yaml").read_text()))
    for route, weight in zip(documents[0]["spec"]["http"][0]["route"], (v1, v2), strict=True):
        route["weight"] = weight
    return yaml.safe_dump_all(documents)


@pytest.mark.parametrize("scenario", ["canary-90-10.yaml"], indirect=True)
def test_one_in_ten_goes_to_the_canary(shop: Mesh, scenario: Path) -> None:
    count, agent = 2000, unique("canary-test")
    found = call(shop, RECOMMENDATIONS, "-H", f"user-agent: {agent}", count=count)
    assert found["statuses"] == {"200": count}
    assert found["answeredBy"].keys() == {V1, V2}
    assert near(found["answeredBy"][V2], 0.1, count), found
    # The Envoy in front of v2 saw as many.
    wait_until(
        lambda: len(shop.requests(f"shop.{V2}", user_agent=agent)) == found["answeredBy"][V2],
        "the access log of v2 is written",
    )


@pytest.mark.parametrize("scenario", ["canary-90-10.yaml"], indirect=True)
def test_a_change_of_weights_fails_no_request(shop: Mesh, scenario: Path) -> None:
    host, netns = resolve(shop, "recommendations"), shop.netns("shop/front-v1-0")
    with load(host, 8080, "/recommendations/ada", netns=netns) as traffic:
        traffic.wait_for(100)
        for v1, v2 in ((50, 50), (0, 100), (100, 0), (20, 80)):
            shop.weft("apply", "--wait", "-", stdin=weights(v1, v2))
            before = traffic.servers.copy()
            traffic.wait_for(100)
            served = traffic.servers - before
            if not v1 or not v2:
                assert set(served) == {V1 if v1 else V2}, (v1, v2)
    assert traffic.failures == []
    assert set(traffic.answers) == {200}


@pytest.mark.parametrize(
    ("scenario", "header"),
    [("ab-by-cookie.yaml", "cookie: theme=dark; group=b"), ("header-routing.yaml", "x-shop-user: jason")],
    indirect=["scenario"],
)
def test_a_header_chooses_the_version(shop: Mesh, scenario: Path, header: str) -> None:
    assert call(shop, RECOMMENDATIONS, "-H", header)["answeredBy"] == {V2: 20}
    assert call(shop, RECOMMENDATIONS, "-H", f"{header}x")["answeredBy"] == {V1: 20}
    assert call(shop, RECOMMENDATIONS)["answeredBy"] == {V1: 20}
    # From outside, through the gateway and the front page, which hands the header on.
    name, _, value = header.partition(": ")
    connection = http.client.HTTPConnection("127.0.0.1", shop.gateway_port, timeout=15)
    connection.request("GET", "/", headers={name: value})
    page = connection.getresponse().read().decode()
    connection.close()
    assert V2 in page
    assert V1 not in page


def test_after_a_delete_all_is_as_before(shop: Mesh) -> None:
    assert call(shop, RECOMMENDATIONS, count=40)["answeredBy"].keys() == {V1, V2}


@pytest.mark.parametrize("scenario", ["fault-injection.yaml"], indirect=True)
def test_faults_hit_as_many_as_they_say(shop: Mesh, scenario: Path) -> None:
    host, netns = resolve(shop, "catalog"), shop.netns("shop/front-v1-0")
    agent = unique("fault-test")
    with load(host, 8080, "/products", headers={"user-agent": agent}, netns=netns, threads=16) as traffic:
        traffic.wait_for(400)
    wait_until(
        lambda: len(shop.requests("shop.front-v1-0", user_agent=agent)) == traffic.count,
        "the access log has every request",
    )
    lines = shop.requests("shop.front-v1-0", user_agent=agent)
    delayed = [line for line in lines if "DI" in line["response_flags"].split(",")]
    aborted = [line for line in lines if "FI" in line["response_flags"].split(",")]
    assert near(len(delayed), 0.2, len(lines)), (len(delayed), len(lines))
    assert near(len(aborted), 0.1, len(lines)), (len(aborted), len(lines))
    # Envoy's timer may fire some milliseconds early; without the fault a request takes a few.
    assert min(line["duration"] for line in delayed) >= 1900
    assert traffic.answers[503] == len(aborted)
    assert set(traffic.answers) == {200, 503}


def test_flaky_payments_are_tried_again_with_growing_pauses(shop: Mesh) -> None:
    charges = "http://payments:8080/charges"
    old = shop.rows()["shop/payments-v1-0"]["pid"]
    shop.weft("apply", "--wait", str(SCENARIOS / "payments-flaky-retries.yaml"))
    wait_until(
        lambda: (row := shop.rows().get("shop/payments-v1-0")) and row["ready"] and row["pid"] != old,
        "payments runs with its new environment",
    )
    wait_until(
        lambda: call(shop, charges, source="orders-v1-0.shop", count=1)["statuses"].keys() & {"200"},
        "orders reaches the new payments",
    )
    count, agent = 300, unique("retry-test")
    body = json.dumps({"id": "o-1", "user": "ada", "cents": 100})
    found = call(
        shop, charges, "-d", body, "-H", f"user-agent: {agent}", source="orders-v1-0.shop", count=count
    )
    # Six tries at 0.3: seven in ten thousand fail.
    assert found["statuses"].get("200", 0) >= count - 3, found

    def logged() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        sent = shop.requests("shop.orders-v1-0", user_agent=agent, reporter="source")
        came = shop.requests("shop.payments-v1-0", user_agent=agent, reporter="destination")
        return sent, came

    def complete() -> bool:
        sent, came = logged()
        attempts = sum(line["upstream_request_attempt_count"] for line in sent)
        return len(sent) == count and len(came) == attempts

    wait_until(complete, "every attempt of orders is in the log of payments")
    sent, came = logged()
    assert near(sum(line["response_code"] == 500 for line in came), 0.3, len(came))
    tries: dict[str, list[datetime]] = defaultdict(list)
    for line in came:
        tries[line["request_id"]].append(datetime.fromisoformat(line["start_time"]))
    assert Counter(map(len, tries.values())) == Counter(
        line["upstream_request_attempt_count"] for line in sent
    )
    pauses: dict[int, list[float]] = defaultdict(list)
    for starts in map(sorted, tries.values()):
        for number, (one, two) in enumerate(itertools.pairwise(starts), start=1):
            pauses[number].append((two - one).total_seconds())
    # Drawn from below 25 ms for the first, 75 ms for the second: twelve and 37 on average.
    assert len(pauses[1]) > len(pauses[2]) > 5
    assert statistics.fmean(pauses[1]) < statistics.fmean(pauses[2])
    assert max(pauses[2]) > 0.025

    shop.weft("delete", "virtualservice", "payments", "-n", "shop")
    shop.weft("apply", "--wait", str(SHOP / "mesh.yaml"))
    wait_until(
        lambda: call(shop, charges, source="orders-v1-0.shop", count=20)["statuses"] == {"200": 20},
        "payments works again",
    )


def plain(shop: Mesh, workload: str) -> bytes:
    """What a caller without a sidecar hears from a workload; nothing when it is turned away."""
    where = shop.rows()[workload]["address"]
    with socket.create_connection((where, 8080), timeout=5) as caller:
        try:
            caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return caller.recv(100)
        except ConnectionError:
            return b""


def test_strict_mtls_is_what_keeps_plaintext_out(shop: Mesh) -> None:
    strict = (SCENARIOS / "strict-mtls.yaml").read_text()
    shop.weft("apply", "--wait", "-", stdin=strict.replace("mode: STRICT", "mode: PERMISSIVE"))
    assert plain(shop, "shop/catalog-v1-0").startswith(b"HTTP/1.1 200")
    shop.weft("apply", "--wait", str(SCENARIOS / "strict-mtls.yaml"))
    assert plain(shop, "shop/catalog-v1-0") == b""
    assert call(shop, "http://catalog:8080/healthz")["statuses"] == {"200": 20}


def test_replicas_come_and_go_without_a_failed_request(shop: Mesh) -> None:
    documents = list(yaml.safe_load_all((SHOP / "mesh.yaml").read_text()))
    workload = next(
        one for one in documents if one["kind"] == "Workload" and one["metadata"]["name"] == "catalog-v1"
    )
    workload["spec"]["workingDir"] = str(SHOP / "services")
    second = "shop/catalog-v1-1"
    host, netns = resolve(shop, "catalog"), shop.netns("shop/front-v1-0")
    with (
        load(host, 8080, "/products", netns=netns) as kept,
        load(host, 8080, "/products", netns=netns, keep_alive=False, threads=1) as fresh,
    ):
        workload["spec"]["replicas"] = 2
        shop.weft("apply", "--wait", "-", stdin=yaml.safe_dump(workload))
        wait_until(lambda: kept.servers["catalog-v1-1"] > 20, "the second replica answers")
        workload["spec"]["replicas"] = 1
        shop.weft("apply", "--wait", "-", stdin=yaml.safe_dump(workload))
        wait_until(lambda: second not in shop.rows(), "the second replica is gone")
        fresh.wait_for(20)
    assert kept.failures + fresh.failures == []
    assert set(kept.answers + fresh.answers) == {200}
    assert not list(shop.runtime.glob("workloads/shop.catalog-v1-1*"))
