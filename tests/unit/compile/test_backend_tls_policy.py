"""BackendTLSPolicy: which clusters speak TLS, to whom, and what becomes of a policy that cannot be honoured."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import json

import pytest
from tests.support.certificates import TestAuthority
from tests.support.compiled import cluster, proxy, service, world

from weft import ir
from weft.compile.gatewayapi.backend_tls_policy import verdict_of
from weft.compile.secrets import asked_for
from weft.compile.world import World
from weft.control.secrets import secrets_for
from weft.model.resource import Key
from weft.names import ProxyName
from weft.protos.wire import from_any

AUTHORITY, OTHER = TestAuthority(), TestAuthority("other")
PAIR = AUTHORITY.issue("gateway")
EDGE, LABELS = "router~10.0.0.3~edge-1.edges", {"gateway.networking.k8s.io/gateway-name": "edge"}
WEB = "outbound|443||web.default.svc.cluster.local"
MAP = '{group: "", kind: ConfigMap, name: backends}'


def authorities(name: str = "backends", pem: str = AUTHORITY.pem, kind: str = "ConfigMap") -> str:
    field = "data" if kind == "ConfigMap" else "stringData"
    return (
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n{field}: {json.dumps({'ca.crt': pem})}\n"
    )


def policy(
    name: str = "web",
    trust: str = f"caCertificateRefs: [{MAP}]",
    target: str = '{group: "", kind: Service, name: web}',
    host: str = "web.example.com",
    created: str = "",
    more: str = "",
) -> str:
    stamp = f", creationTimestamp: {created}" if created else ""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}{stamp}}}
spec: {{targetRefs: [{target}], validation: {{hostname: {host}, {trust}{more}}}}}
"""


def backend(of: World, name: str = WEB, node: str = EDGE) -> ir.Cluster:
    return cluster(proxy(of, node, labels=LABELS), name)


def reasons(of: World, name: str = "web") -> tuple[str, str]:
    facts = of.gateway_facts
    found = verdict_of(
        facts.tls_policies[Key("gateway.networking.k8s.io/BackendTLSPolicy", "default", name)], facts
    )
    return found.accepted.reason, found.resolved.reason


@pytest.mark.parametrize("node", [EDGE, "sidecar~10.0.0.4~app.default"])
def test_a_service_is_spoken_to_over_tls(node: str) -> None:
    of = world(service("web", 443, port_name="https"), authorities(), policy())
    made = backend(of, node=node)
    assert made.mutual is ir.MutualTls.ALWAYS
    assert made.protocol is ir.UpstreamProtocol.NEGOTIATED
    tls = made.tls
    assert tls is not None
    assert tls.trust is not None
    assert (tls.sni, tls.trust.name, tls.certificate) == (
        "web.example.com",
        "configmap://default/backends-cacert",
        None,
    )
    assert [name.value for name in tls.peer_names] == ["web.example.com"]


def test_names_that_are_accepted_replace_the_host() -> None:
    names = (
        ', subjectAltNames: [{type: URI, uri: "spiffe://x/y"}, {type: Hostname, hostname: "*.example.com"}]'
    )
    made = backend(world(service("web", 443, port_name="https"), authorities(), policy(more=names)))
    assert made.tls is not None
    assert [(name.test, name.value) for name in made.tls.peer_names] == [
        (ir.TextTest.EXACT, "spiffe://x/y"),
        (ir.TextTest.SUFFIX, ".example.com"),
    ]


def test_a_policy_for_the_port_goes_before_one_for_the_service() -> None:
    two = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: a, port: 443}, {name: b, port: 444}]}
"""
    of = world(
        two,
        authorities(),
        policy("all", host="all.example.com"),
        policy("port", target='{group: "", kind: Service, name: web, sectionName: b}', host="b.example.com"),
    )
    found = [backend(of, WEB.replace("443", port)).tls for port in ("443", "444")]
    assert [tls.sni for tls in found if tls] == ["all.example.com", "b.example.com"]
    assert reasons(of, "all") == reasons(of, "port") == ("Accepted", "ResolvedRefs")


def test_of_two_policies_for_one_target_the_older_holds() -> None:
    of = world(
        service("web", 443, port_name="https"),
        authorities(),
        policy("a-young", host="young.example.com", created="2026-01-02T00:00:00Z"),
        policy("b-old", host="old.example.com", created="2026-01-01T00:00:00Z"),
    )
    made = backend(of).tls
    assert made is not None
    assert made.sni == "old.example.com"
    assert reasons(of, "a-young") == ("Conflicted", "ResolvedRefs")


@pytest.mark.parametrize(
    ("trust", "wanted"),
    [
        (
            'caCertificateRefs: [{group: "", kind: ConfigMap, name: none}]',
            ("NoValidCACertificate", "InvalidCACertificateRef"),
        ),
        (
            'caCertificateRefs: [{group: "", kind: ConfigMap, name: broken}]',
            ("NoValidCACertificate", "InvalidCACertificateRef"),
        ),
        (
            "caCertificateRefs: [{group: example.com, kind: Vault, name: backends}]",
            ("NoValidCACertificate", "InvalidKind"),
        ),
        ("wellKnownCACertificates: example.com/ours", ("Invalid", "ResolvedRefs")),
    ],
)
def test_without_authorities_connections_fail(trust: str, wanted: tuple[str, str]) -> None:
    of = world(
        service("web", 443, port_name="https"),
        authorities(),
        authorities("broken", "no PEM"),
        policy(trust=trust),
    )
    assert reasons(of) == wanted
    assert WEB not in {unit.name for unit in proxy(of, EDGE, labels=LABELS).clusters}


def test_one_valid_reference_of_two_is_enough() -> None:
    trust = f'caCertificateRefs: [{{group: "", kind: ConfigMap, name: none}}, {MAP}]'
    of = world(service("web", 443, port_name="https"), authorities(), policy(trust=trust))
    assert reasons(of) == ("Accepted", "InvalidCACertificateRef")
    tls = backend(of).tls
    assert tls is not None
    assert tls.trust is not None
    assert tls.trust.name == "configmap://default/backends-cacert"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ('{group: "", kind: Service, name: nobody}', "TargetNotFound"),
        ('{group: "", kind: Service, name: web, sectionName: nope}', "TargetNotFound"),
        ("{group: example.com, kind: Bucket, name: web}", "Invalid"),
        ("{group: networking.istio.io, kind: ServiceEntry, name: out}", "Accepted"),
    ],
)
def test_a_target_must_be_there(target: str, reason: str) -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [api.example.com], resolution: DNS, location: MESH_EXTERNAL, ports: [{name: https, number: 443, protocol: HTTPS}]}
"""
    of = world(service("web", 443, port_name="https"), entry, authorities(), policy(target=target))
    assert reasons(of)[0] == reason
    assert (backend(of, "outbound|443||api.example.com").tls is not None) == (reason == "Accepted")


def test_a_rule_of_the_client_that_says_tls_goes_before() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}
"""
    of = world(service("web", 443, port_name="https"), authorities(), policy(), rule)
    assert backend(of).tls is None


def test_the_gateway_is_given_what_its_clusters_ask_for() -> None:
    gateway = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: edges}
spec:
  gatewayClassName: weft
  tls: {backend: {clientCertificateRef: {name: own}}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""
    own = json.dumps({"tls.crt": PAIR.certificate, "tls.key": PAIR.key})
    secret = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: own, namespace: edges}}\nstringData: {own}\n"
    both = f'caCertificateRefs: [{MAP}, {{group: "", kind: Secret, name: more}}]'
    of = world(
        gateway,
        secret,
        service("web", 443, port_name="https"),
        authorities(),
        authorities("more", OTHER.pem, "Secret"),
        policy(trust=both),
    )
    made = proxy(of, EDGE, labels=LABELS)
    packed, problems = secrets_for(of, made.identity.name, asked_for(made.listeners, made.clusters))
    assert not problems
    bundle = "configmap://default/backends-cacert,kubernetes-gateway://default/more-cacert"
    assert set(packed) == {bundle, "kubernetes-gateway://edges/own"}
    trusted = from_any(packed[bundle].body).validation_context.trusted_ca.inline_bytes.decode()  # type: ignore[attr-defined]
    assert AUTHORITY.pem in trusted
    assert OTHER.pem in trusted
    # Authorities are no secret: sidecars of other namespaces get them, too.
    some, problems = secrets_for(of, ProxyName.parse("sidecar~10.0.0.4~app.other"), (bundle,))
    assert not problems
    assert some == {bundle: packed[bundle]}


@pytest.mark.parametrize("granted", [True, False])
def test_a_listener_sets_certificate_is_given_to_its_gateway(granted: bool) -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: edges}
spec:
  gatewayClassName: weft
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team, namespace: team}
spec:
  parentRef: {name: edge, namespace: edges}
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: vault}]}}]
"""
    grant = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: team, namespace: vault}
spec:
  from: [{group: gateway.networking.k8s.io, kind: ListenerSet, namespace: team}]
  to: [{group: "", kind: Secret}]
"""
    own = json.dumps({"tls.crt": PAIR.certificate, "tls.key": PAIR.key})
    secret = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: vault}}\nstringData: {own}\n"
    of = world(text, secret, *((grant,) if granted else ()))
    made = proxy(of, EDGE, labels=LABELS)
    assert ("0.0.0.0_443" in {unit.name for unit in made.listeners}) is granted
    name = "kubernetes-gateway://vault/cert"
    packed, _ = secrets_for(of, made.identity.name, (name,))
    assert (name in packed) is granted
