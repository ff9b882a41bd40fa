"""Where connections end that nobody declared, or that several services could take."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from tests.unit.analysis.test_explain import mesh

from weft.analysis.explain.mesh import Mesh

PORTS = {
    80: "http", 81: "", 82: "tcp", 83: "tls", 84: "https", 85: "grpc", 86: "http2",
}  # fmt: skip
CALLS = [("http", "none"), ("http", "tls"), ("tcp", "none"), ("http2", "tls")]
HTTP = {80, 85, 86}


def entry(name: str, host: str, more: str) -> str:
    meta = f"{{name: {name}, namespace: default}}"
    spec = f"{{hosts: [{host}], {more}}}"
    return f"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {meta}\nspec: {spec}\n"


@cache
def known_elsewhere(mode: str) -> Mesh:
    """One service on every port, at an address that nobody dials here."""
    ports = ", ".join(
        f"{{number: {number}, name: p{number}{f', protocol: {name.upper()}' if name else ''}}}"
        for number, name in PORTS.items()
    )
    settings = (
        "apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\n"
        "metadata: {name: default, namespace: istio-system}\n"
        f"spec: {{outboundTrafficPolicy: {{mode: {mode}}}}}\n"
    )
    known = entry("known", "known.example.com", f"addresses: [192.0.2.4], resolution: DNS, ports: [{ports}]")
    return mesh(known, settings)


def to(of: Mesh, address: str, port: int, protocol: str, tls: str, name: str) -> dict[str, Any]:
    sender = {"workload": "default/app", "labels": {"app": "app"}}
    http = {"host": name} if protocol != "tcp" else {}
    sni = {"sni": name} if tls != "none" else {}
    return of.explain(
        {
            "from": sender,
            "address": address,
            "port": port,
            "protocol": protocol,
            "tls": tls,
            "http": http,
            **sni,
        }
    )


def cluster(answer: dict[str, Any]) -> str | None:
    found = (answer["upstream"] or {}).get("destinations") or [None]
    return found[0] and str(found[0]["cluster"])


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("protocol", "tls"), CALLS)
@pytest.mark.parametrize("mode", ["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"])
def test_what_nobody_declared(mode: str, protocol: str, tls: str, port: int) -> None:
    answer = to(known_elsewhere(mode), "192.0.2.77", port, protocol, tls, "unknown.example.com")
    plain = tls == "none" and protocol != "tcp"
    match mode:
        case "ALLOW_ANY":
            assert cluster(answer) == "PassthroughCluster"
        case "ALLOW_ANY_DYNAMIC_DNS":
            assert cluster(answer) == ("AllowAnyDynamicDNSCluster" if plain else "PassthroughCluster")
        case _ if plain and port in HTTP:
            assert (answer["status"], cluster(answer)) == (502, None)
        case _:
            assert cluster(answer) == "BlackHoleCluster"


WIDE, NARROW = "2001:db8:1::/40", "2001:db8:1:2::/64"
BY_SNI = (
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: wide}\n"
    "spec: {hosts: [wide.example.com], tls: [{match: [{port: 9999, sniHosts: [wide.example.com]}],"
    " route: [{destination: {host: wide.example.com}}]}]}\n"
)


def overlapping(protocol: str, *more: str) -> Mesh:
    ports = f"ports: [{{number: 9999, name: p, protocol: {protocol}}}]"
    wide = entry("wide", "wide.example.com", f"addresses: ['{WIDE}'], {ports}")
    narrow = entry("narrow", "narrow.example.com", f"addresses: ['{NARROW}'], {ports}")
    return mesh(wide, narrow, *more)


def test_the_narrower_range_of_addresses_wins() -> None:
    of = overlapping("TCP")
    for address, host in (("2001:db8:1:2::7", "narrow"), ("2001:db8:1:3::7", "wide")):
        assert cluster(to(of, address, 9999, "tcp", "none", "")) == f"outbound|9999||{host}.example.com"


@pytest.mark.parametrize(
    ("address", "sni", "wanted"),
    [
        ("2001:db8:1:2::7", "narrow", "outbound|9999||narrow.example.com"),
        ("2001:db8:1:3::7", "wide", "outbound|9999||wide.example.com"),
        # Envoy looks at the address first, and does not turn back.
        ("2001:db8:1:2::7", "wide", "PassthroughCluster"),
        ("2001:db8:1:3::7", "narrow", "PassthroughCluster"),
    ],
)
def test_names_and_ranges_of_addresses(address: str, sni: str, wanted: str) -> None:
    of = overlapping("TLS", BY_SNI)
    assert cluster(to(of, address, 9999, "tcp", "tls", f"{sni}.example.com")) == wanted
