"""HTTP/3 beside the HTTPS servers of Istio's Gateways."""

from __future__ import annotations

from tests.support.compiled import listener, proxy, service, table, world

from weft import ir

NODE, LABELS = "router~10.0.0.3~ingress.istio-system", {"istio": "ingressgateway"}
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system, annotations: {weft.dev/http3: "true"}}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.example.com]
    tls: {mode: SIMPLE, credentialName: edge}
  - port: {number: 443, name: mutual, protocol: HTTPS}
    hosts: [b.example.com]
    tls: {mode: MUTUAL, credentialName: edge}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: istio-system}
spec:
  hosts: [a.example.com, b.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: web.default.svc.cluster.local}}]}]
"""


def test_a_server_is_served_over_quic_unless_it_asks_for_certificates() -> None:
    made = proxy(world(service("web", 80), GATEWAY), NODE, labels=LABELS, port_map=((443, 8443),))
    quic = listener(made, "udp_0.0.0.0_443")
    (chain,) = quic.chains
    assert (quic.quic, quic.port, chain.match.server_names) == (True, 8443, ("a.example.com",))
    assert isinstance(chain.handler, ir.HttpHandler)
    assert chain.handler.version is ir.HttpVersion.HTTP3
    assert chain.handler.routes == "https.443.https.edge.istio-system"
    offered = table(made, "https.443.https.edge.istio-system").response_headers
    assert offered.set == (("alt-svc", 'h3=":8443"; ma=86400'),)
    assert table(made, "https.443.mutual.edge.istio-system").response_headers == ir.HeaderEdit()


def test_without_the_annotation_there_is_none() -> None:
    text = GATEWAY.replace('"true"', '"false"')
    made = proxy(world(service("web", 80), text), NODE, labels=LABELS)
    assert [unit.name for unit in made.listeners] == ["0.0.0.0_443"]
