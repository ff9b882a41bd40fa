"""What a stranger says of itself in headers, to real gateways and sidecars: who believes it?"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.envoy.mesh import run_compiled, spiffe
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.edge_backends import pem_file
from tests.support.envoy import Envoy
from tests.support.identities import WEB, sidecar_of
from tests.support.ports import free_ports
from weft import ir
from weft.names import ProxyName

SERVICES = (
    WEB
    + """---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: edge}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routes, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: back.example}}}}]}}]
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec:
  accessLogFile: access.log
  accessLogEncoding: JSON
  defaultConfig: {{gatewayTopology: {{numTrustedProxies: {hops}}}}}
"""
)


@dataclass(frozen=True, slots=True)
class Place:
    """A proxy that strangers reach at ``port``."""

    envoy: Envoy
    port: int
    authority: TestAuthority


@pytest.fixture(scope="module")
def places() -> Iterator[Mapping[str, Place]]:
    """Gateways that trust as many proxies before them as their name says, and a permissive sidecar."""
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "back")))
        app = int(backend.server_address[1])
        authority = TestAuthority()
        found: dict[str, Place] = {}
        outbound, sidecar, *edges = free_ports(5)
        for hops, port in enumerate(edges):
            of = world(SERVICES.format(app=app, hops=hops))
            router = ir.ProxyIdentity(
                name=ProxyName("router", "127.0.0.1", f"edge{hops}", "default"),
                service_account="edge",
                labels=(("istio", "edge"),),
                attachment=ir.Attachment(capture=ir.Capture.NONE),
                port_map=((80, port),),
            )
            envoy = stack.enter_context(run_compiled(of, router, authority))
            found[f"edge{hops}"] = Place(envoy, port, authority)
        web = sidecar_of("web", app, sidecar, outbound)
        envoy = stack.enter_context(run_compiled(world(SERVICES.format(app=app, hops=0)), web, authority))
        found["sidecar"] = Place(envoy, sidecar, authority)
        yield found


def tell(
    place: Place, headers: Mapping[str, str], *, mutual: bool = False, path: str = "/"
) -> dict[str, str]:
    """The headers that arrive at the application when a stranger sends these."""
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)
    if mutual:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=place.authority.pem)
        context.set_alpn_protocols(["istio-http/1.1"])
        with pem_file(place.authority.issue(spiffe("friend"))) as pair:
            context.load_cert_chain(pair)
        connection.connect()
        connection.sock = context.wrap_socket(connection.sock, server_hostname="web")
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        got: dict[str, str] = json.loads(body)["headers"]
        return got
    finally:
        connection.close()


FORGED = "forged"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = "203.0.113.7"
PROXY = "203.0.113.8"
ADMIN = "By=spiffe://cluster.local/ns/x/sa/y;URI=spiffe://cluster.local/ns/istio-system/sa/admin"
# What Envoys tell each other or obey (source/common/http/headers.h), and what Istio's proxies add.
INTERNAL = {
    f"x-envoy-{name}": value
    for name, value in {
        "attempt-count": "7",
        "auth-partial-body": "true",
        "cluster": "outbound|80||admin",
        "decorator-operation": "admin:80/*",
        "degraded": "true",
        "downstream-canary": "true",
        "downstream-service-cluster": "admin",
        "downstream-service-node": "admin",
        "expected-rq-timeout-ms": "1",
        "external-address": "198.51.100.9",
        "fault-abort-request": "503",
        "fault-delay-request": "1",
        "force-trace": "true",
        "hedge-on-per-try-timeout": "true",
        "immediate-health-check-fail": "true",
        "internal": "true",
        "ip-tags": "admin",
        "is-timeout-retry": "true",
        "livenessprobe": "true",
        "local-overloaded": "true",
        "max-retries": "9",
        "original-dst-host": "127.0.0.1:1",
        "original-host": "admin",
        "original-method": "DELETE",
        "original-path": "/admin",
        "original-url": "https://admin/",
        "overloaded": "true",
        "peer-metadata": "Cg==",
        "peer-metadata-id": "sidecar~1.2.3.4~admin.default~default.svc.cluster.local",
        "protocol-version": "HTTP/9",
        "ratelimited": "true",
        "retriable-header-names": "x-a",
        "retriable-status-codes": "200",
        "retry-grpc-on": "cancelled",
        "retry-on": "5xx,retriable-status-codes",
        "upstream-alt-stat-name": "admin",
        "upstream-canary": "true",
        "upstream-rq-per-try-timeout-ms": "1",
        "upstream-rq-timeout-alt-response": "true",
        "upstream-rq-timeout-ms": "1",
        "upstream-service-time": "9",
        "Made-Up-In-Mixed-Case": "true",
    }.items()
}
TRACES = {
    "b3": f"{TRACE}-b7ad6b7169203331-1",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "tracestate": "admin=1",
    "x-b3-flags": "1",
    "X-B3-ParentSpanId": "b7ad6b7169203331",
    "x-b3-sampled": "1",
    "x-b3-spanid": "b7ad6b7169203331",
    "x-b3-traceid": TRACE,
    "x-client-trace-id": FORGED,
    "x-ot-span-context": FORGED,
}
EDGES = ("edge0", "edge1", "edge2")
EVERYWHERE = (*EDGES, "sidecar")


@pytest.mark.parametrize("place", EVERYWHERE)
@pytest.mark.parametrize("name", INTERNAL)
def test_what_only_proxies_say_is_not_believed(places: Mapping[str, Place], place: str, name: str) -> None:
    got = tell(places[place], {name: INTERNAL[name]})
    assert INTERNAL[name] != got.get(name.lower())


@pytest.mark.parametrize("place", ["edge0", "sidecar"])
@pytest.mark.parametrize("name", TRACES)
def test_nobody_outside_ties_itself_to_a_trace(places: Mapping[str, Place], place: str, name: str) -> None:
    got = tell(places[place], {name: TRACES[name]})
    assert TRACES[name] != got.get(name.lower())
    assert TRACE not in json.dumps(got)


@pytest.mark.parametrize("place", ["edge1", "edge2"])
def test_a_proxy_that_is_trusted_may_tie_traces_together(places: Mapping[str, Place], place: str) -> None:
    assert TRACE in tell(places[place], TRACES)["traceparent"]


@pytest.mark.parametrize(
    ("place", "believed"), [("edge0", None), ("edge1", PROXY), ("edge2", CLIENT), ("sidecar", None)]
)
def test_only_trusted_proxies_say_whose_a_request_is(
    places: Mapping[str, Place], place: str, believed: str | None
) -> None:
    at = places[place]
    got = tell(at, {"x-forwarded-for": f"{CLIENT}, {PROXY}"}, path=f"/whose-{place}")
    (line,) = at.envoy.requests(path=f"/whose-{place}")
    address = line["downstream_remote_address"].rpartition(":")[0]
    assert address == (believed or "127.0.0.1")
    # What came stays for those who want it; the peer's own address stands behind it.
    claimed, _, last = got["x-forwarded-for"].rpartition(",")
    assert claimed == f"{CLIENT}, {PROXY}"
    assert last.strip() not in {CLIENT, PROXY}
    if place != "sidecar":
        assert got["x-envoy-external-address"] == (believed or "127.0.0.1")


@pytest.mark.parametrize("place", EVERYWHERE)
def test_nobody_names_a_certificate_that_it_has_not_shown(places: Mapping[str, Place], place: str) -> None:
    assert "x-forwarded-client-cert" not in tell(places[place], {"x-forwarded-client-cert": ADMIN})


def test_over_mutual_tls_the_last_certificate_is_the_callers(places: Mapping[str, Place]) -> None:
    got = tell(places["sidecar"], {"x-forwarded-client-cert": ADMIN}, mutual=True)
    claimed, _, last = got["x-forwarded-client-cert"].rpartition(",")
    assert claimed == ADMIN
    assert f"URI={spiffe('friend')}" in last
    assert f"By={spiffe('web')}" in last


@pytest.mark.parametrize("place", EVERYWHERE)
def test_requests_have_ids_of_our_own(places: Mapping[str, Place], place: str) -> None:
    mine = "11111111-1111-4111-8111-111111111111"
    assert tell(places[place], {"x-request-id": mine})["x-request-id"] != mine


@pytest.mark.parametrize(("place", "passes"), [("edge0", False), ("edge1", True), ("sidecar", False)])
def test_forwarded_is_passed_on_from_trusted_proxies_only(
    places: Mapping[str, Place], place: str, passes: bool
) -> None:
    said = f"for={CLIENT};proto=https;by={PROXY}"
    assert (tell(places[place], {"forwarded": said}).get("forwarded") == said) is passes


@pytest.mark.parametrize(("place", "proto"), [("edge0", "http"), ("edge1", "https")])
def test_an_untrusted_client_does_not_say_that_it_came_by_https(
    places: Mapping[str, Place], place: str, proto: str
) -> None:
    assert tell(places[place], {"x-forwarded-proto": "https"})["x-forwarded-proto"] == proto


def test_peers_of_the_mesh_are_believed(places: Mapping[str, Place]) -> None:
    mine = "11111111-1111-4111-8111-111111111111"
    got = tell(places["sidecar"], {**TRACES, "x-request-id": mine}, mutual=True)
    assert TRACE in got["traceparent"]
    assert got["x-request-id"] == mine


@pytest.mark.parametrize("mutual", [False, True])
def test_the_log_has_the_path_that_was_asked_for(places: Mapping[str, Place], mutual: bool) -> None:
    at, path = places["sidecar"], f"/really-{mutual}"
    tell(at, {"x-envoy-original-path": "/harmless"}, path=path, mutual=mutual)
    assert at.envoy.requests(path=path)
    assert "/harmless" not in [row["path"] for row in at.envoy.requests()]
