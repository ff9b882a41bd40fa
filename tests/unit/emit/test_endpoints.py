"""Endpoints by locality, with what telemetry and mTLS need to know of each."""

from __future__ import annotations

from typing import Any

from weft import ir
from weft.emit.endpoints import pack
from weft.protos.wire import from_any, to_dict

NEAR = ir.Locality(region="eu", zone="a", subzone="1")
SAME_ZONE = ir.Locality(region="eu", zone="a", subzone="2")
FAR = ir.Locality(region="us")


def _endpoint(address: str, locality: ir.Locality = ir.NOWHERE, **fields: Any) -> ir.Endpoint:
    return ir.Endpoint(address=address, port=9080, locality=locality, **fields)


def _set(*endpoints: ir.Endpoint) -> ir.EndpointSet:
    return ir.EndpointSet(cluster="c", endpoints=endpoints)


def _shown(packed_body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = to_dict(from_any(packed_body)).get("endpoints", [])
    return found


def test_a_sidecar_is_known_by_its_metadata() -> None:
    endpoint = _endpoint(
        "10.0.0.1",
        mesh_tls=True,
        workload="reviews-v1",
        namespace="default",
        labels=(("app", "reviews"), ("version", "v1")),
    )
    (place,) = _shown(pack(_set(endpoint)).body)
    (host,) = place["lb_endpoints"]
    metadata = host["metadata"]["filter_metadata"]
    assert metadata["envoy.transport_socket_match"] == {"tlsMode": "istio"}
    assert metadata["istio"] == {"workload": "reviews-v1;default;reviews;v1;weft"}
    assert metadata["weft"]["canonical_revision"] == "v1"
    assert metadata["weft"]["cluster"] == "weft"
    assert host["endpoint"]["address"]["socket_address"] == {"address": "10.0.0.1", "port_value": 9080}


def test_replicas_are_one_workload() -> None:
    labels = (("topology.istio.io/cluster", "east"), ("weft.dev/workload", "reviews"))
    endpoint = _endpoint("10.0.0.1", workload="reviews-7", namespace="default", labels=labels)
    (place,) = _shown(pack(_set(endpoint)).body)
    metadata = place["lb_endpoints"][0]["metadata"]["filter_metadata"]
    assert metadata["istio"] == {"workload": "reviews;default;reviews;latest;east"}


def test_a_plain_endpoint_asks_for_no_tls() -> None:
    (place,) = _shown(pack(_set(_endpoint("10.0.0.1"))).body)
    assert "metadata" not in place["lb_endpoints"][0] or not place["lb_endpoints"][0]["metadata"]


def test_health_and_weight() -> None:
    (place,) = _shown(
        pack(_set(_endpoint("10.0.0.1", weight=3), _endpoint("10.0.0.2", health=ir.Health.DRAINING))).body
    )
    assert place["load_balancing_weight"] == 4
    assert [host["health_status"] for host in place["lb_endpoints"]] == ["HEALTHY", "DRAINING"]


def test_weights_beyond_what_envoy_can_add_up() -> None:
    (place,) = _shown(
        pack(_set(_endpoint("10.0.0.1", weight=2**32 - 1), _endpoint("10.0.0.2", weight=2**32 - 1))).body
    )
    assert place["load_balancing_weight"] <= 2**32 - 1
    first, second = (host["load_balancing_weight"] for host in place["lb_endpoints"])
    assert first == second


def _at(place: ir.Locality = ir.NOWHERE, **more: Any) -> ir.Standpoint:
    return ir.Standpoint(locality=place, **more)


def _ranks(unit: ir.EndpointSet, placement: ir.Placement, client: ir.Standpoint) -> dict[str, int]:
    return {
        host["endpoint"]["address"]["socket_address"]["address"]: place.get("priority", 0)
        for place in _shown(pack(unit, placement, client).body)
        for host in place["lb_endpoints"]
    }


NEAREST = ir.Placement(tiers=ir.Tiers.LOCALITY)


def test_where_places_do_not_matter_all_clients_share_the_bytes() -> None:
    unit = _set(_endpoint("10.0.0.1", NEAR), _endpoint("10.0.0.2", FAR))
    assert pack(unit, client=_at(NEAR)) is pack(unit, client=_at(FAR, labels=(("app", "a"),)))
    assert set(_ranks(unit, ir.ANYWHERE, _at(NEAR)).values()) == {0}


def test_the_nearest_come_first_without_gaps() -> None:
    unit = _set(_endpoint("10.0.0.3", FAR), _endpoint("10.0.0.2", SAME_ZONE), _endpoint("10.0.0.1", NEAR))
    assert list(_ranks(unit, NEAREST, _at(NEAR)).items()) == [
        ("10.0.0.1", 0),
        ("10.0.0.2", 1),
        ("10.0.0.3", 2),
    ]
    assert pack(unit, NEAREST, _at(NEAR)) is pack(unit, NEAREST, _at(NEAR, node="any"))


def test_a_region_fails_over_where_it_is_told_to_first() -> None:
    asia = ir.Locality(region="asia")
    unit = _set(_endpoint("10.0.0.1", NEAR), _endpoint("10.0.0.2", FAR), _endpoint("10.0.0.3", asia))
    placement = ir.Placement(tiers=ir.Tiers.LOCALITY, failover=(("eu", "asia"),))
    assert _ranks(unit, placement, _at(NEAR)) == {"10.0.0.1": 0, "10.0.0.3": 1, "10.0.0.2": 2}
    assert _ranks(unit, placement, _at(FAR)) == {"10.0.0.2": 0, "10.0.0.1": 1, "10.0.0.3": 1}


def test_regions_alone_leave_zones_to_envoy() -> None:
    other_zone = ir.Locality(region="eu", zone="b")
    unit = _set(_endpoint("10.0.0.1", NEAR), _endpoint("10.0.0.2", other_zone), _endpoint("10.0.0.3", FAR))
    ranks = _ranks(unit, ir.Placement(tiers=ir.Tiers.REGION), _at(NEAR))
    assert ranks == {"10.0.0.1": 0, "10.0.0.2": 0, "10.0.0.3": 1}


def test_labels_rank_by_how_many_are_shared_from_the_first_on() -> None:
    unit = _set(
        _endpoint("10.0.0.1", labels=(("a", "1"), ("b", "2"))),
        _endpoint("10.0.0.2", labels=(("a", "1"), ("b", "3"))),
        _endpoint("10.0.0.3", labels=(("a", "0"), ("b", "2"))),
    )
    placement = ir.Placement(labels=(("a", None), ("b", None)))
    client = _at(labels=(("a", "1"), ("b", "2"), ("c", "x")))
    assert _ranks(unit, placement, client) == {"10.0.0.1": 0, "10.0.0.2": 1, "10.0.0.3": 2}
    fixed = ir.Placement(labels=(("a", "0"),))
    assert _ranks(unit, fixed, client) == {"10.0.0.3": 0, "10.0.0.1": 1, "10.0.0.2": 1}
    assert pack(unit, fixed, client) is pack(unit, fixed, _at())


def test_labels_of_the_topology_are_those_of_the_place() -> None:
    unit = _set(
        _endpoint("10.0.0.1", NEAR, node="n1"),
        _endpoint("10.0.0.2", NEAR, node="n2"),
        _endpoint("10.0.0.3", FAR, node="n1"),
    )
    placement = ir.Placement(
        labels=(("topology.kubernetes.io/region", None), ("kubernetes.io/hostname", None))
    )
    assert _ranks(unit, placement, _at(NEAR, node="n1")) == {"10.0.0.1": 0, "10.0.0.2": 1, "10.0.0.3": 2}


def test_another_network_is_worse_than_all_of_the_own() -> None:
    unit = _set(
        _endpoint("10.0.0.1", NEAR, network=""),
        _endpoint("10.0.0.2", FAR, network=""),
        _endpoint("10.0.0.3", NEAR, network="remote"),
        _endpoint("10.0.0.4", FAR, network="remote"),
    )
    placement = ir.Placement(
        labels=(("topology.istio.io/network", None), ("topology.kubernetes.io/region", None))
    )
    ranks = _ranks(unit, placement, _at(NEAR))
    assert ranks == {"10.0.0.1": 0, "10.0.0.2": 1, "10.0.0.3": 2, "10.0.0.4": 3}


def test_shares_are_split_by_the_weights_of_the_endpoints() -> None:
    unit = _set(
        _endpoint("10.0.0.1", NEAR, weight=3),
        _endpoint("10.0.0.2", SAME_ZONE),
        _endpoint("10.0.0.3", FAR),
        _endpoint("10.0.0.4", ir.Locality(region="asia")),
    )
    rule = ir.LocalityWeight(origin="eu/*", to=(("eu/a/*", 80), ("us", 20)))
    placement = ir.Placement(distribute=(rule,), tiers=ir.Tiers.LOCALITY)
    shown = _shown(pack(unit, placement, _at(NEAR)).body)
    assert [place["load_balancing_weight"] for place in shown] == [60, 20, 20]
    assert [place.get("priority", 0) for place in shown] == [0, 0, 0]
    assert len(_shown(pack(unit, placement, _at(FAR)).body)) == 4  # no rule is about that place


def test_other_nodes_and_unready_endpoints_are_left_out_where_that_is_asked_for() -> None:
    unit = _set(
        _endpoint("10.0.0.1", node="n1"),
        _endpoint("10.0.0.2", node="n2"),
        _endpoint("10.0.0.3", node="n1", health=ir.Health.UNHEALTHY),
    )
    assert set(_ranks(unit, ir.Placement(same_node=True), _at(node="n1"))) == {"10.0.0.1", "10.0.0.3"}
    assert set(_ranks(unit, ir.Placement(healthy_only=True), _at())) == {"10.0.0.1", "10.0.0.2"}
    assert not _ranks(unit, ir.Placement(same_node=True), _at(node="n3"))


def test_no_endpoints_is_an_empty_assignment_with_its_name() -> None:
    assert to_dict(from_any(pack(_set()).body)) == {"cluster_name": "c"}


def test_a_unix_socket() -> None:
    unix = ir.Endpoint(address="unix:///run/app.sock", port=0)
    (place,) = _shown(pack(_set(unix)).body)
    assert place["lb_endpoints"][0]["endpoint"]["address"] == {"pipe": {"path": "/run/app.sock"}}


def _addresses(unit: ir.EndpointSet, network: str) -> dict[str, int]:
    return {
        host["endpoint"]["address"]["socket_address"]["address"]: host["load_balancing_weight"]
        for place in _shown(pack(unit, client=_at(network=network)).body)
        for host in place["lb_endpoints"]
    }


def test_networks_without_gateways_are_within_reach() -> None:
    unit = _set(_endpoint("10.0.0.1", network="a"), _endpoint("10.0.0.2", network="b"))
    assert _addresses(unit, "a") == {"10.0.0.1": 1, "10.0.0.2": 1}


def test_gateways_stand_for_endpoints_on_another_network_and_share_their_weight() -> None:
    unit = ir.EndpointSet(
        cluster="c",
        endpoints=(
            _endpoint("10.0.0.1", network="a", mesh_tls=True),
            _endpoint("10.0.0.2", network="b", mesh_tls=True, weight=3),
            _endpoint("10.0.0.3", network="b", mesh_tls=True),
            _endpoint("10.0.0.4", network="b"),
        ),
        gateways=(
            ir.NetworkGateway(network="b", address="192.0.2.1", port=15443),
            ir.NetworkGateway(network="b", address="192.0.2.2", port=15443),
        ),
    )
    assert _addresses(unit, "a") == {"10.0.0.1": 2, "192.0.2.1": 4, "192.0.2.2": 4}
    assert _addresses(unit, "b") == {"10.0.0.1": 2, "10.0.0.2": 6, "10.0.0.3": 2, "10.0.0.4": 2}
    assert set(_addresses(unit, "")) == {"10.0.0.1", "192.0.2.1", "192.0.2.2"}
