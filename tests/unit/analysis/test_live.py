"""What a proxy that runs would do, by its dump; what it did, by its log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support import compiled

from weft.analysis.explain.hops import describe, hops_of
from weft.analysis.explain.live import Running
from weft.compile.delivery import on_demand
from weft.compile.endpoints import endpoint_set
from weft.emit.bootstrap import Settings, bootstrap
from weft.emit.bundle import Bundle, emit
from weft.emit.dump import config_dump
from weft.emit.static import assignments
from weft.ir import Discovery
from weft.names import CLUSTER_TYPE

VIRTUAL_SERVICE = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: reviews}
    spec:
      hosts: [reviews]
      http:
        - match: [{uri: {prefix: /old}}]
          name: old
          rewrite: {uri: /new}
          route: [{destination: {host: reviews}}]
        - name: rest
          route: [{destination: {host: reviews}}]
    """
CLUSTER = "outbound|9080||reviews.default.svc.cluster.local"


@pytest.fixture(scope="module")
def running() -> Running:
    world = compiled.world(
        compiled.service("reviews", 9080),
        compiled.service("db", 5432, port_name="tcp"),
        compiled.instance("reviews-0", "reviews", "10.1.1.1", account="reviews", ports="{http: 8080}"),
        VIRTUAL_SERVICE,
    )
    proxy = compiled.proxy(world)
    sets = [endpoint_set(world, one.name) for one in proxy.clusters if one.discovery is Discovery.EDS]
    packed = assignments(sets, proxy)
    dump = config_dump(emit(proxy), packed, bootstrap(Settings(name=proxy.identity.name)))
    return Running(json.loads(json.dumps(dump)))


def ask(running: Running, **question: Any) -> dict[str, Any]:
    return running.explain({"id": 1, "from": {"workload": "default/client"}, **question})


@pytest.mark.parametrize("host", ["reviews:9080", "reviews.default.svc.cluster.local:9080"])
def test_names_are_those_that_the_proxy_knows(running: Running, host: str) -> None:
    found = ask(running, http={"host": host, "path": "/old/x"})
    assert (found["action"], found["listener"], found["routeName"]) == ("forward", "0.0.0.0_9080", "old")
    assert (found["route"]["name"], found["route"]["rule"], found["route"]["file"]) == ("reviews", 0, None)
    assert found["upstream"]["request"]["path"] == "/new/x"
    assert found["upstream"]["tls"] == "mtls"  # to the endpoint that is known


def test_bytes_and_what_is_unknown(running: Running) -> None:
    found = ask(running, protocol="tcp", address="db", port=5432)
    assert found["upstream"]["destinations"][0]["service"] == "db"
    assert ask(running, http={"host": "example.org"})["action"] == "passthrough"
    assert ask(running, http=1)["error"].startswith("http:")
    inbound = running.explain({"from": {"inbound": "default/client"}, "port": 7000, "protocol": "tcp"})
    assert inbound["action"] == "passthrough"


def test_clusters_that_come_when_they_are_needed() -> None:
    lost = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: lost}
        spec:
          hosts: [reviews]
          http:
          - match: [{uri: {prefix: /lost}}]
            route: [{destination: {host: gone, port: {number: 80}}}]
          - route: [{destination: {host: reviews}}]
        """
    world = compiled.world(
        compiled.service("reviews", 9080), compiled.service("db", 5432, port_name="tcp"), lost
    )
    made = on_demand(compiled.proxy(world), world.memo)
    bundle = emit(made.proxy)
    clusters = {name: one for name, one in bundle.resources[CLUSTER_TYPE].items() if name not in made.lazy}
    shown = Bundle({**bundle.resources, CLUSTER_TYPE: clusters})
    dump = config_dump(shown, (), bootstrap(Settings(name=made.proxy.identity.name)))
    running = Running(json.loads(json.dumps(dump)))
    found = ask(running, http={"host": "reviews:9080", "path": "/"})
    assert (found["action"], found["upstream"]["destinations"][0]["service"]) == (
        "forward",
        "reviews.default.svc.cluster.local",
    )
    assert ask(running, protocol="tcp", address="db", port=5432)["action"] == "forward"
    nowhere = ask(running, http={"host": "reviews:9080", "path": "/lost"})
    assert (nowhere["action"], nowhere["status"]) == ("error", 503)


@pytest.mark.parametrize(
    "dump", [{"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [1]}]}]
)
def test_what_is_no_dump(dump: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no configuration dump"):
        Running(dump)


def line(**fields: Any) -> str:
    return json.dumps({"request_id": "r1", "reporter": "source", "authority": "reviews:9080", **fields})


def test_the_hops_of_a_request_in_their_order(running: Running) -> None:
    lines = [
        ("default/reviews-0", line(start_time="2026-01-01T00:00:01Z", reporter="destination")),
        ("default/other", line(request_id="r2", user_agent="r1")),
        # What somebody logs in a form of his own, beside ours.
        ("default/client", json.dumps({"request_id": "r1", "start_time": "2026-01-01T00:00:01Z"})),
        ("default/client", "not JSON, though r1 is in it"),
        ("default/client", "{broken r1"),
        (
            "default/client",
            line(
                start_time="2026-01-01T00:00:01Z", route_name="old", upstream_cluster=CLUSTER,
                response_code=503, response_flags="UF", upstream_host="-",
            ),
        ),
    ]  # fmt: skip
    first, second = hops_of("r1", lines)
    assert (first.proxy, first.inbound, second.proxy, second.inbound) == (
        "default/client", False, "default/reviews-0", True,
    )  # fmt: skip
    told = describe(first, running)
    assert (told["status"], told["flags"], told["endpoint"]) == (503, "UF", None)
    assert told["meaning"].startswith("no connection to the server could be made")
    assert told["virtualHost"] == "reviews.default.svc.cluster.local:9080"
    assert (told["route"]["kind"], told["route"]["name"], told["route"]["rule"]) == (
        "VirtualService",
        "reviews",
        0,
    )
    assert told["service"] == "reviews.default.svc.cluster.local"
    assert describe(second, None)["route"]["kind"] is None
