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
    assert metadata["istio"] == {"workload": "reviews-v1;default;reviews;v1;"}
    assert metadata["weft"]["canonical_revision"] == "v1"
    assert host["endpoint"]["address"]["socket_address"] == {"address": "10.0.0.1", "port_value": 9080}


def test_a_plain_endpoint_asks_for_no_tls() -> None:
    (place,) = _shown(pack(_set(_endpoint("10.0.0.1"))).body)
    assert "metadata" not in place["lb_endpoints"][0] or not place["lb_endpoints"][0]["metadata"]


def test_health_and_weight() -> None:
    (place,) = _shown(
        pack(_set(_endpoint("10.0.0.1", weight=3), _endpoint("10.0.0.2", health=ir.Health.DRAINING))).body
    )
    assert place["load_balancing_weight"] == 4
    assert [host["health_status"] for host in place["lb_endpoints"]] == ["HEALTHY", "DRAINING"]


def test_without_failover_all_clients_share_the_bytes() -> None:
    unit = _set(_endpoint("10.0.0.1", NEAR), _endpoint("10.0.0.2", FAR))
    assert pack(unit, NEAR) is pack(unit, FAR)
    assert {place.get("priority", 0) for place in _shown(pack(unit, NEAR).body)} == {0}


def test_with_failover_the_nearest_come_first_without_gaps() -> None:
    unit = _set(_endpoint("10.0.0.3", FAR), _endpoint("10.0.0.2", SAME_ZONE), _endpoint("10.0.0.1", NEAR))
    places = _shown(pack(unit, NEAR, failover=True).body)
    assert [
        (
            place.get("priority", 0),
            place["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"],
        )
        for place in places
    ] == [(0, "10.0.0.1"), (1, "10.0.0.2"), (2, "10.0.0.3")]


def test_no_endpoints_is_an_empty_assignment_with_its_name() -> None:
    assert to_dict(from_any(pack(_set()).body)) == {"cluster_name": "c"}


def test_a_unix_socket() -> None:
    unix = ir.Endpoint(address="unix:///run/app.sock", port=0)
    (place,) = _shown(pack(_set(unix)).body)
    assert place["lb_endpoints"][0]["endpoint"]["address"] == {"pipe": {"path": "/run/app.sock"}}


def test_another_network_is_out_of_reach() -> None:
    unit = _set(_endpoint("10.0.0.1", network="a"), _endpoint("10.0.0.2", network="b"))
    (place,) = _shown(pack(unit, network="a").body)
    assert len(place["lb_endpoints"]) == 1
