"""Where on this host the ports of gateways are opened."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address, ip_network

from weft.app.doors import Doors, place_ports
from weft.app.gateways import EdgeProxy
from weft.names import GATEWAY_ADDRESSES


def edge(name: str, *ports: int, addresses: tuple[str, ...] = ()) -> EdgeProxy:
    return EdgeProxy(name, "shop", name, {}, dict.fromkeys(ports, "HTTP"), addresses)


def doors(
    wanted: dict[int, int] | None = None, *, lowest: int = 0, here: Collection[str] = (), taken: int = 0
) -> Doors:
    return Doors(
        "test",
        wanted or {},
        lowest=lowest,
        free=lambda port, address: port != taken if address == "0.0.0.0" else address in here,
    )


def test_a_gateway_alone_is_open_at_every_address() -> None:
    door = doors().give(edge("a", 80, 443))
    assert (dict(door.ports), door.address, dict(door.new)) == ({80: 80, 443: 443}, None, {80: "", 443: ""})


def test_gateways_with_the_same_port_have_it_at_addresses_of_their_own() -> None:
    found = doors({80: 10080})
    given = [found.give(edge(name, 80)) for name in ("a", "b", "c")]
    assert [dict(door.ports) for door in given] == [{80: 10080}] * 3
    addresses = [door.address for door in given]
    assert addresses[0] is None
    assert len({*addresses}) == 3
    assert all(ip_address(str(address)) in ip_network(GATEWAY_ADDRESSES) for address in addresses[1:])


def test_gateways_with_other_ports_share_every_address() -> None:
    found = doors()
    assert [found.give(edge("a", 80)).address, found.give(edge("b", 81)).address] == [None, None]


def test_a_place_is_kept_and_only_what_is_new_is_told() -> None:
    found = doors()
    found.give(edge("a", 80))
    before = found.give(edge("b", 80))
    again = found.give(edge("b", 80, 81))
    assert again.address == before.address
    assert again.new == {81: ""}


def test_ports_that_may_come_are_told_from_the_start() -> None:
    found = doors({8081: 9000, 8082: 9001}, lowest=1024, taken=9001)
    first = found.give(edge("a", 80))
    assert dict(first.moved) == {80: 10080, 443: 10443, 8081: 9000}
    assert found.give(edge("a", 80, 443, 8081)).moved == first.moved
    assert doors().give(edge("a", 80)).moved == {}


def test_what_a_gateway_had_that_is_gone_is_free_again() -> None:
    found = doors()
    found.give(edge("a", 80))
    found.keep({"shop/b"})
    assert found.give(edge("b", 80)).address is None


def test_a_port_that_comes_to_be_shared_moves_its_gateway() -> None:
    found = doors()
    found.give(edge("a", 80))
    assert found.give(edge("b", 81)).address is None
    assert found.give(edge("b", 81, 80)).address is not None
    # What b had is nobody's any more.
    assert found.give(edge("c", 81)).address is None


def test_a_gateway_is_open_where_it_asks_to_be_if_that_is_here() -> None:
    found = doors(here={"192.0.2.7"})
    found.give(edge("a", 80))
    assert found.give(edge("b", 80, addresses=("192.0.2.1", "192.0.2.7"))).address == "192.0.2.7"
    assert found.give(edge("c", 81, addresses=("192.0.2.1",))).address is None


def test_ports_that_a_stranger_has_move_up_for_every_gateway() -> None:
    found = doors(taken=80)
    first, second = found.give(edge("a", 80)), found.give(edge("b", 80))
    assert first.new == {80: "taken"}
    assert (first.ports, first.address) == ({80: 10080}, None)
    assert second.ports == {80: 10080}
    assert second.address is not None


def test_a_port_that_one_of_ours_has_not_yet_given_back_is_free() -> None:
    opened: set[int] = set()
    found = Doors("test", {}, lowest=0, free=lambda port, _: port not in opened)
    found.give(edge("a", 80))
    opened.add(80)
    found.keep(set())
    assert found.give(edge("b", 80)).ports == {80: 80}


def test_reasons_for_another_port() -> None:
    assert doors({80: 8080}).give(edge("a", 80)).new == {80: "--port-map"}
    assert doors(lowest=1024).give(edge("a", 80)).new == {80: "not allowed without root"}


def test_ports_move_up_where_they_are_taken_or_not_allowed() -> None:
    free = {80: True, 8080: False, 9090: True, 7070: True}
    placed = place_ports([80, 8080, 9090, 7070], {7070: 7171}, lowest=1024, free=free)
    assert placed == {80: 10080, 8080: 18080, 9090: 9090, 7070: 7171}
