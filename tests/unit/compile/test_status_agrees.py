"""Status and configuration are read off the same decisions: neither says what the other does not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.compiled import proxy, service, world
from tests.support.judged import GROUP, gateway, route, secret, verdicts

from weft import ir
from weft.compile.gatewayapi.status import statuses
from weft.compile.sources import source
from weft.compile.world import World
from weft.model.resource import Key

ROUTER, LABELS = "router~10.0.0.3~edge-1.default", {"gateway.networking.k8s.io/gateway-name": "edge"}
WEB, CERT = service("web", 80), secret("cert")
KINDS = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
HOSTS = ("", "a.example.com", "b.example.com", "*.example.com")
TLS = {
    "": "",
    "good": ", tls: {mode: Terminate, certificateRefs: [{name: cert}]}",
    "lost": ", tls: {mode: Terminate, certificateRefs: [{name: nobody}]}",
    "pass": ", tls: {mode: Passthrough}",
}
FITTING = {
    "HTTP": ("",),
    "HTTPS": ("good", "lost"),
    "TLS": ("good", "lost", "pass"),
    "TCP": ("",),
    "UDP": ("",),
}


@st.composite
def listeners(draw: st.DrawFn) -> str:
    """Up to four listeners, in conflict with each other as it comes."""
    found: dict[tuple[str, int, str], str] = {}
    for number in range(draw(st.integers(1, 4))):
        protocol = draw(st.sampled_from(sorted(FITTING)))
        port = draw(st.sampled_from((80, 81)))
        host = "" if protocol in {"TCP", "UDP"} else draw(st.sampled_from(HOSTS))
        tls = TLS[draw(st.sampled_from(FITTING[protocol]))]
        named = f", hostname: '{host}'" if host else ""
        kinds = draw(st.sampled_from(("", "", "", "HTTPRoute", "TCPRoute")))
        allowed = f", allowedRoutes: {{kinds: [{{kind: {kinds}}}]}}" if kinds else ""
        found[protocol, port, host] = (
            f"{{name: l{number}, port: {port}, protocol: {protocol}{named}{tls}{allowed}}}"
        )
    return f"[{', '.join(found.values())}]"


@st.composite
def routes(draw: st.DrawFn) -> list[str]:
    """Up to five routes of any kind, some for one listener only."""
    made: list[str] = []
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(KINDS))
        section = draw(st.sampled_from(("", "", ", sectionName: l0", ", sectionName: l1", ", port: 81")))
        spec = {"parentRefs": f"[{{name: edge{section}}}]"}
        host = draw(st.sampled_from(HOSTS))
        if kind == "TLSRoute" or (host and kind in {"HTTPRoute", "GRPCRoute"}):
            spec["hostnames"] = f"['{host or 'c.example.com'}']"
        made.append(route(kind, f"r{number}", **spec))
    return made


def sources(unit: object) -> Iterator[str]:
    """Paths of all resources that something was made of."""
    found = getattr(unit, "source", None)
    if isinstance(found, ir.Source):
        yield found.path
    for part in ("virtual_hosts", "routes", "chains", "handler"):
        value = getattr(unit, part, None)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and not isinstance(item, str):
                yield from sources(item)


def judged(of: World) -> tuple[dict[str, Any], dict[Key, bool]]:
    """The Gateway's status, and whether each route is accepted by it."""
    said = statuses(of.gateway_facts)
    accepted = {
        key: any(verdicts(parent["conditions"])["Accepted"] == "Accepted" for parent in item["parents"])
        for key, item in said.items()
        if "parents" in item
    }
    return said[Key(f"{GROUP}/Gateway", "default", "edge")], accepted


@settings(max_examples=150, deadline=None, derandomize=True)
@given(listeners(), routes())
def test_what_is_told_is_what_is_configured(made: str, given_routes: list[str]) -> None:
    of = world(WEB, CERT, gateway(made), *given_routes)
    configured = proxy(of, ROUTER, labels=LABELS)
    said, accepted = judged(of)
    known = {path for unit in (*configured.listeners, *configured.routes) for path in sources(unit)}
    for key, holds in accepted.items():
        assert holds or source(key).path not in known, key
    spec = {str(item.name): item for item in next(iter(of.gateway_facts.gateways.values())).spec.listeners}
    ports = {listener.port for listener in configured.listeners}
    programmed: set[int] = set()
    for item in said["listeners"]:
        own = spec[item["name"]]
        if verdicts(item["conditions"])["Programmed"] != "Programmed":
            continue
        programmed.add(own.port)
        # Listeners of connections open once a route says where these go.
        if own.protocol in {"HTTP", "HTTPS"} or item["attachedRoutes"]:
            assert own.port in ports, item["name"]
    assert ports <= programmed
