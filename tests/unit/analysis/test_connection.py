"""Which filter chain takes a connection: one property after the other, never going back."""

from __future__ import annotations

from typing import Any

import pytest

from weft.analysis.connection import Connection, chain_of, inspected, listener_at
from weft.protos import listener_v3

# Fields may be given as plain dictionaries, which the stubs do not know.
API: Any = listener_v3


def chain(name: str, **match: Any) -> listener_v3.FilterChain:
    made: listener_v3.FilterChain = API.FilterChain(name=name, filter_chain_match=match)
    return made


def taken(chains: list[listener_v3.FilterChain], default: str = "", **of: Any) -> str | None:
    listener = listener_v3.Listener(filter_chains=chains)
    if default:
        listener.default_filter_chain.name = default
    connection = Connection(**{"address": "10.0.0.1", "port": 80, **of})
    found = chain_of(listener, connection)
    return found.name if found is not None else None


def blocks(*texts: str) -> list[dict[str, Any]]:
    return [
        {"address_prefix": text.partition("/")[0], "prefix_len": {"value": int(text.partition("/")[2])}}
        for text in texts
    ]


def test_the_port_decides_first() -> None:
    chains = [chain("80", destination_port={"value": 80}, transport_protocol="tls"), chain("any")]
    assert taken(chains, transport="tls") == "80"
    # The chains of the port are all that counts, even if none of them fits.
    assert taken(chains, "default") == "default"
    assert taken(chains, port=81) == "any"


def test_the_longest_prefix() -> None:
    chains = [
        chain("wide", prefix_ranges=blocks("10.0.0.0/8")),
        chain("narrow", prefix_ranges=blocks("10.0.0.0/24", "192.168.0.0/16")),
        chain("any"),
    ]
    assert taken(chains) == "narrow"
    assert taken(chains, address="10.1.0.1") == "wide"
    assert taken(chains, address="172.16.0.1") == "any"
    assert taken(chains, address="fd00::1") == "any"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.example.com", "exact"),
        ("b.example.com", "wild"),
        ("x.b.example.com", "wild"),
        ("example.com", "none"),
        ("", "none"),
    ],
)
def test_server_names(name: str, expected: str) -> None:
    chains = [
        chain("none"),
        chain("wild", server_names=["*.example.com"]),
        chain("exact", server_names=["a.example.com"]),
    ]
    assert taken(chains, transport="tls", server_name=name) == expected


def test_transport_then_protocols_in_the_order_of_the_client() -> None:
    chains = [
        chain("mesh", transport_protocol="tls", application_protocols=["istio"]),
        chain("h2", transport_protocol="tls", application_protocols=["h2"]),
        chain("tls", transport_protocol="tls"),
        chain("http", transport_protocol="raw_buffer", application_protocols=["http/1.1"]),
    ]
    assert taken(chains, transport="tls", protocols=("h2", "istio")) == "h2"
    assert taken(chains, transport="tls", protocols=("http/1.1",)) == "tls"
    assert taken(chains, protocols=("http/1.1",)) == "http"
    assert taken(chains) is None


def test_where_it_comes_from() -> None:
    chains = [chain("inside", source_prefix_ranges=blocks("10.0.0.0/8")), chain("any")]
    assert taken(chains, source_ip="10.9.9.9") == "inside"
    assert taken(chains, source_ip="8.8.8.8") == "any"


def test_the_exact_address_before_every_address() -> None:
    def listener(name: str, address: str, port: int) -> listener_v3.Listener:
        place = {"socket_address": {"address": address, "port_value": port}}
        made: listener_v3.Listener = API.Listener(name=name, address=place)
        return made

    both = [listener("any", "0.0.0.0", 80), listener("one", "10.0.0.1", 80), listener("other", "0.0.0.0", 90)]
    for address, port, expected in (
        ("10.0.0.1", 80, "one"),
        ("10.0.0.2", 80, "any"),
        ("10.0.0.1", 90, "other"),
    ):
        found = listener_at(both, address, port)
        assert found is not None
        assert found.name == expected
    assert listener_at(both, "10.0.0.1", 81) is None


def test_ports_where_an_inspector_is_off() -> None:
    predicate = {"destination_port_range": {"start": 3306, "end": 3307}}
    row = {"name": "envoy.filters.listener.tls_inspector", "filter_disabled": {"not_match": predicate}}
    listener: listener_v3.Listener = API.Listener(listener_filters=[row])
    assert inspected(listener, "tls_inspector", 3306)
    assert not inspected(listener, "tls_inspector", 80)
    assert not inspected(listener, "http_inspector", 3306)
