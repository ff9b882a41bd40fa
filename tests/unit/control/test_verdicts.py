"""What a running mesh says of Istio's resources: findings, and what proxies refuse."""

from __future__ import annotations

from typing import Any

from tests.support.compiled import world as compiled
from tests.support.plane import eventually
from tests.unit.control.test_statuses import World, world

from weft.control.convergence import Rejected
from weft.control.verdicts import blamed, key_of, verdicts
from weft.errors import Problem
from weft.model.parse import parse_object
from weft.model.resource import Key
from weft.names import CLUSTER_TYPE

__all__ = ["world"]

RULE = Key("networking.istio.io/VirtualService", "shop", "web")
FILTER = Key("networking.istio.io/EnvoyFilter", "shop", "hard")


def virtual_service(host: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": host}}]}]},
    }


def envoy_filter(name: str) -> dict[str, Any]:
    value = {"name": name, "type": "STATIC", "connect_timeout": "1s"}
    patch = {"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": value}}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "hard", "namespace": "shop"},
        "spec": {"configPatches": [patch]},
    }


async def test_findings_stand_in_the_status_until_they_are_gone(world: World) -> None:
    async with world.running():
        await world.apply(virtual_service("gone"))
        await world.settled()
        status = await world.status(RULE)
        (message,) = status["validationMessages"]
        assert message["type"] == {"name": "ReferencedResourceNotFound", "code": "IST0101"}
        assert message["level"] == "ERROR"
        (condition,) = status["conditions"]
        assert (condition["type"], condition["status"]) == ("PassedAnalysis", "False")
        assert "spec.http[0].route[0].destination.host" in condition["message"]
        assert not parse_object(await world.wire(RULE))[1]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "gone", "namespace": "shop"},
            "spec": {"ports": [{"port": 80}]},
        }
        await world.apply(service)
        await world.settled()
        status = await world.status(RULE)
        assert "validationMessages" not in status
        assert not status.get("conditions")


async def test_a_filter_that_a_proxy_refuses_is_told_of(world: World) -> None:
    async with world.running():
        proxy = world.mesh.connect("web-0")
        await eventually(lambda: proxy.stream.revision >= 0)
        proxy.refuses = CLUSTER_TYPE
        await world.apply(envoy_filter("extra"))
        await eventually(lambda: list(proxy.stream.rejected()))
        await world.settled()
        condition = await world.condition(FILTER, "Accepted")
        assert (condition["status"], condition["reason"]) == ("False", "RefusedByProxy")
        assert "refuses cds extra" in condition["message"]
        assert parse_object(await world.wire(FILTER))[0] is not None


def test_where_a_filter_had_a_hand_it_alone_is_blamed() -> None:
    paths = (
        "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/web",
        "/apis/networking.istio.io/v1alpha3/namespaces/shop/envoy-filter/hard",
    )
    both = Rejected("sidecar~10.0.0.1~web-0.shop~x", "lds", "l", "no", paths)
    assert blamed([both, both]) == {FILTER: ("web-0.shop refuses lds l: no",)}
    plain = Rejected("sidecar~10.0.0.1~web-0.shop~x", "rds", "80", "no", paths[:1])
    assert list(blamed([plain])) == [RULE]
    assert key_of("/apis/x/v1/namespaces/a/nothing/b") is None
    assert key_of("nonsense") is None


def test_of_many_findings_a_few_are_listed() -> None:
    of = compiled(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n"
        "spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}"
    )
    many = tuple(Problem("IST0101", f"no {number}") for number in range(99))
    ((_, status),) = verdicts(of, {"VirtualService shop/web": many}, {})
    assert len(status["validationMessages"]) == 50
