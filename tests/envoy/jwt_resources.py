"""Resources of the site that tokens are tried at, and the keys of its issuers."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives import serialization

from tests.support.identities import WEB
from tests.support.tokens import ISSUER, ec_key, jwk, jwks, rsa_key

PARTNER = "https://partner.example"
RSA, EC, OTHER, THEIRS = rsa_key(), ec_key(), rsa_key(), ec_key()
_PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
RSA_PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, _PUBLIC)
OURS = json.dumps(jwks(jwk(RSA, "r"), jwk(EC, "e")))

SERVICES = (
    WEB
    + """---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{at: edge}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routes, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{{headers: {{"@request.auth.claims[realm][roles]": {{exact: admin}}}}}}]
    headers: {{request: {{set: {{x-route: admin}}}}}}
    route: [{{destination: {{host: back.example}}}}]
  - match: [{{headers: {{"@request.auth.claims.scope": {{exact: write}}}}}}]
    headers: {{request: {{set: {{x-route: writer}}}}}}
    route: [{{destination: {{host: back.example}}}}]
  - match: [{{headers: {{x-user: {{exact: root}}}}}}]
    headers: {{request: {{set: {{x-route: root}}}}}}
    route: [{{destination: {{host: back.example}}}}]
  - match: [{{withoutHeaders: {{"@request.auth.claims.sub": {{}}}}}}]
    headers: {{request: {{set: {{x-route: nobody}}}}}}
    route: [{{destination: {{host: back.example}}}}]
  - headers: {{request: {{set: {{x-route: user}}}}}}
    route: [{{destination: {{host: back.example}}}}]
"""
)
SIDECAR = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: web, namespace: default}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  jwtRules:
  - issuer: {ISSUER}
    audiences: [web, shop]
    jwks: {OURS}
    outputPayloadToHeader: x-claims
    outputClaimToHeaders:
    - {{claim: sub, header: x-user}}
    - {{claim: realm.name, header: x-realm}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: staff, namespace: default}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: DENY
  rules:
  - to: [{{operation: {{paths: [/staff, /staff/*]}}}}]
    from: [{{source: {{notRequestPrincipals: ["{ISSUER}/*"]}}}}]
  - to: [{{operation: {{paths: [/staff/gold]}}}}]
    when: [{{key: "request.auth.claims[realm][name]", notValues: [gold]}}]
"""
EDGE = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
  jwtRules:
  - issuer: {ISSUER}
    jwks: {OURS}
    forwardOriginalToken: true
    fromHeaders: [{{name: x-token, prefix: "jwt "}}, {{name: authorization, prefix: "Bearer "}}]
    fromCookies: [session]
    fromParams: [t]
    outputClaimToHeaders: [{{claim: sub, header: X-User}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: partner, namespace: istio-system}}
spec:
  jwtRules:
  - issuer: {PARTNER}
    jwks: {json.dumps(jwks(jwk(THEIRS)))}
    fromHeaders: [{{name: x-partner}}]
    outputClaimToHeaders: [{{claim: sub, header: x-partner-user}}]
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {{name: users, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
  scope: PROXY
  limits:
  - name: each
    requests: 2
    interval: 1h
    match: {{path: {{prefix: /limited}}}}
    per: [{{claim: realm.name}}]
"""
REQUIRED = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: both, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: required}}}}
  jwtRules:
  - {{issuer: {ISSUER}, jwks: {OURS}, presence: REQUIRED}}
  - issuer: {PARTNER}
    jwksUri: https://partner.example/keys
    fromHeaders: [{{name: x-partner}}]
"""
