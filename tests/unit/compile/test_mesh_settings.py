"""What the mesh's settings say for every proxy: what stands in front of gateways, retries, TLS."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.compiled import cluster, forward, instance, listener, proxy, service, world
from tests.unit.compile.test_istio_edge import HTTP, WEB, made
from tests.unit.compile.test_router import gateway

from weft import ir
from weft.compile.problems import problems_of
from weft.compile.proxy import compile_proxy
from weft.compile.settings import INBOUND_RETRY
from weft.names import ProxyName

APP = service("app", 8000), instance("app-1", "app", "10.0.0.9")


def mesh(spec: str) -> str:
    meta = "{name: default, namespace: istio-system}"
    return f"apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {meta}\nspec: {{{spec}}}\n"


def behind(topology: str) -> ir.Listener:
    settings = mesh(f"defaultConfig: {{gatewayTopology: {{{topology}}}}}")
    return listener(made(WEB, gateway(HTTP % "a.example.com"), settings), "0.0.0.0_80")


def first(of: ir.Listener) -> ir.HttpHandler:
    handler = of.chains[0].handler
    assert isinstance(handler, ir.HttpHandler)
    return handler


def test_gateways_believe_what_stands_in_front_of_them() -> None:
    plain = first(behind(""))
    assert (plain.trusted_hops, plain.client_certificate) == (0, ir.ClientCertificate.SANITIZE_SET)
    told = behind("numTrustedProxies: 2, forwardClientCertDetails: APPEND_FORWARD")
    assert first(told).trusted_hops == 2
    assert first(told).client_certificate is ir.ClientCertificate.APPEND_FORWARD
    assert told.receive is ir.Receive.BOUND


@pytest.mark.parametrize("said", [kind.name for kind in ir.ClientCertificate])
def test_each_way_with_certificates_that_others_saw(said: str) -> None:
    assert first(behind(f"forwardClientCertDetails: {said}")).client_certificate.name == said


def test_balancers_in_front_may_tell_whose_a_connection_is() -> None:
    assert behind("proxyProtocol: {}").receive is ir.Receive.PROXY_PROTOCOL


def inbound_retry(policy: str) -> ir.Retry | None:
    of = world(*APP, mesh(f"defaultInboundHttpRetryPolicy: {{{policy}}}"))
    handler = next(
        chain.handler
        for chain in listener(proxy(of), "virtualInbound").chains
        if isinstance(chain.handler, ir.HttpHandler)
    )
    assert isinstance(handler.routes, ir.RouteTable)
    return forward(handler.routes.virtual_hosts[0].routes[0]).retry


def test_retries_towards_the_application() -> None:
    assert inbound_retry("attempts: 0") is None
    assert inbound_retry("attempts: 5") == replace(INBOUND_RETRY, attempts=5)
    # There is no other endpoint or locality to go to, and tries take as long as they take.
    told = inbound_retry("attempts: 1, retryOn: reset, perTryTimeout: 1s, retryRemoteLocalities: true")
    assert told == replace(INBOUND_RETRY, attempts=1, on=("reset",))


def test_tls_between_workloads_and_any_other() -> None:
    settings = mesh("meshMTLS: {minProtocolVersion: TLSV1_3}, tlsDefaults: {ecdhCurves: [X25519]}")
    of = proxy(world(*APP, settings))
    secured = next(chain.tls for chain in listener(of, "virtualInbound").chains if chain.tls is not None)
    assert secured.limits == ir.TlsLimits(minimum=ir.TlsVersion.V1_3)
    outside = "{host: web, trafficPolicy: {tls: {mode: SIMPLE}}}"
    rule = f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web}}\nspec: {outside}\n"
    to = cluster(proxy(world(WEB, rule, settings)), "outbound|80||web.default.svc.cluster.local").tls
    assert to is not None
    assert to.limits.groups == ("X25519",)


def test_other_trust_domains_get_through_tls_and_are_no_aliases() -> None:
    of = world(
        *APP,
        mesh(
            "trustDomainAliases: [old.example], caCertificates: [{spiffeBundleUrl: 'https://b.example/', "
            "trustDomains: [partner.example]}, {pem: rubbish, trustDomains: [third.example]}]"
        ),
    )
    settings = of.settings
    assert settings.peer_trust_domains == ("cluster.local", "old.example", "partner.example", "third.example")
    assert settings.accepted_trust_domains == ("cluster.local", "old.example")
    identity = ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.9", "app-1", "default"))
    _, problems = compile_proxy(of, identity)
    assert [problem.path for problem in problems] == ["spec.caCertificates[1]"]


def test_settings_beside_those_that_count_are_reported() -> None:
    def config(name: str, year: int) -> str:
        return f"""
        apiVersion: weft.dev/v1alpha1
        kind: MeshConfig
        metadata: {{name: {name}, creationTimestamp: "{year}-01-01T00:00:00Z"}}
        spec: {{trustDomainAliases: [{name}.example]}}
        """

    said = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: ''}\n"
    of = world(config("a", 2026), config("b", 2025), said)
    assert "b.example" in of.settings.accepted_trust_domains
    found = [problem for problem in problems_of(of, "default") if "do not count" in problem.message]
    assert [(problem.resource, problem.path) for problem in found] == [
        ("ConfigMap istio-system/istio", "data.mesh"),
        ("MeshConfig default/a", "spec"),
    ]
    assert all("default/b" in problem.message for problem in found)
    assert not [problem for problem in problems_of(world(config("a", 2026)), "x") if problem.path == "spec"]
