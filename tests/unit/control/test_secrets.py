"""Which proxy is given which Secret."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.support.certificates import TestAuthority
from tests.support.compiled import proxy, service, world

from weft.compile.secrets import asked_for
from weft.control.secrets import secrets_for
from weft.names import ProxyName
from weft.protos.wire import from_any

ROUTER, LABELS = "router~10.0.0.3~edge.edges", {"istio": "ingressgateway"}
CREDENTIAL = "kubernetes-gateway://edges/shop"
AUTHORITY = TestAuthority()
PAIR = AUTHORITY.issue("shop.example.com")


def secret(name: str = "shop", namespace: str = "edges", **data: str) -> str:
    values = ", ".join(
        f"{key.replace('_', '.')}: {base64.b64encode(value.encode()).decode()}" for key, value in data.items()
    )
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{values}}}\n"


def istio(mode: str = "SIMPLE") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: edges}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ["*"], tls: {{mode: {mode}, credentialName: shop}}}}
"""


def gateway_api(namespace: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: edges}}
spec:
  gatewayClassName: weft
  listeners:
  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: shop, namespace: {namespace}}}]}}}}
"""


def grant(to: str, of: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: grant, namespace: {of}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: {to}}}]
  to: [{{group: "", kind: Secret, name: shop}}]
"""


def given(*texts: str, node: str = ROUTER, more: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """Messages by name, and the problems as text."""
    found = world(*texts)
    made = proxy(found, node, labels={**LABELS, **(more or {})})
    packed, problems = secrets_for(found, made.identity.name, asked_for(made.listeners, made.clusters))
    return {name: from_any(one.body) for name, one in packed.items()}, "\n".join(map(str, problems))


def test_a_gateway_gets_the_secrets_of_its_namespace() -> None:
    messages, problems = given(istio("MUTUAL"), secret(tls_crt="C", tls_key="K", ca_crt="A"))
    assert set(messages) == {CREDENTIAL, f"{CREDENTIAL}-cacert"}
    assert messages[CREDENTIAL].tls_certificate.private_key.inline_bytes == b"K"
    assert messages[CREDENTIAL].tls_certificate.certificate_chain.inline_bytes == b"C"
    assert messages[f"{CREDENTIAL}-cacert"].validation_context.trusted_ca.inline_bytes == b"A"
    assert problems == ""


def test_authorities_may_stand_in_a_secret_of_their_own() -> None:
    own = secret("shop-cacert", cacert="own")
    messages, _ = given(istio("MUTUAL"), secret(cert="C", key="K", cacert="beside"), own)
    assert messages[CREDENTIAL].tls_certificate.private_key.inline_bytes == b"K"
    assert messages[f"{CREDENTIAL}-cacert"].validation_context.trusted_ca.inline_bytes == b"own"


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ((istio(),), "no Secret is named edges/shop"),
        ((istio(), secret(namespace="other", tls_crt="C", tls_key="K")), "no Secret is named edges/shop"),
        ((istio(), secret(tls_crt="C")), "Secret edges/shop does not hold what"),
    ],
)
def test_what_is_missing_is_told(texts: tuple[str, ...], why: str) -> None:
    messages, problems = given(*texts)
    assert messages == {}
    assert why in problems


def test_a_secret_of_another_namespace_needs_a_grant() -> None:
    label = {"gateway.networking.k8s.io/gateway-name": "edge"}
    texts = (gateway_api("vault"), secret(namespace="vault", tls_crt=PAIR.certificate, tls_key=PAIR.key))
    assert given(*texts, more=label)[0] == {}
    assert given(*texts, grant("elsewhere", "vault"), more=label)[0] == {}
    messages, _ = given(*texts, grant("edges", "vault"), more=label)
    assert set(messages) == {"kubernetes-gateway://vault/shop"}


def test_a_rules_credential_is_the_gateways_own_whoever_wrote_the_rule() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: vault}
spec:
  host: web.vault.svc.cluster.local
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: shop}}
"""
    web = service("web", namespace="vault")
    messages, problems = given(
        web, rule, secret(namespace="vault", tls_crt=PAIR.certificate, tls_key=PAIR.key)
    )
    assert messages == {}
    assert "no Secret is named edges/shop" in problems
    messages, problems = given(web, rule, secret(tls_crt=PAIR.certificate, tls_key=PAIR.key))
    assert set(messages) == {"kubernetes-gateway://edges/shop"}
    own = secret(namespace="vault", tls_crt=PAIR.certificate, tls_key=PAIR.key)
    node, labels = "sidecar~10.0.0.4~app.vault", {"app": "app"}
    assert given(web, rule, own, node=node, more=labels)[0] == {}
    selective = rule + "  workloadSelector: {matchLabels: {app: app}}\n"
    messages, _ = given(web, selective, own, node=node, more=labels)
    assert set(messages) == {"kubernetes-gateway://vault/shop"}


def test_a_sidecar_gets_no_secret_of_another_namespace() -> None:
    held = world(secret(namespace="vault", tls_crt=PAIR.certificate, tls_key=PAIR.key))
    name = ProxyName("sidecar", "10.0.0.4", "app", "default")
    packed, problems = secrets_for(held, name, ("kubernetes-gateway://vault/shop",))
    assert packed == {}
    assert "a sidecar gets those of its namespace" in str(problems[0])
