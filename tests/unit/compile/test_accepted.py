"""What is compiled is accepted by a real Envoy, whole, in every capture and under every mode."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.certificates import TestAuthority
from tests.support.compiled import identity, instance, service, world
from tests.support.envoy import validate
from tests.unit.compile.test_inbound import peer

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.emit.bootstrap import Settings
from weft.emit.bundle import emit
from weft.emit.static import bundle_secrets, static_bootstrap

EVERYTHING = (
    service("reviews", 9080),
    service("db", 3306, port_name="tcp"),
    service("any", 7000, port_name="x"),
    service("members", 5432, port_name="tcp", clusterIP="None"),
    service("grpc", 50051, port_name="grpc"),
    instance("reviews-1", "reviews", "10.0.0.1", ports="{http: 9080, admin: 1234, tcp-x: 1235}"),
    instance("members-1", "members", "10.0.0.2"),
    """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [api.example.com], resolution: DNS, location: MESH_EXTERNAL, ports: [{name: tls, number: 443, protocol: TLS}, {name: http, number: 80, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec: {hosts: ["*.wild.com"], addresses: [192.0.2.0/24], resolution: NONE, ports: [{name: tls, number: 443, protocol: TLS}, {name: tcp, number: 99, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out}
spec: {host: api.example.com, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}, loadBalancer: {consistentHash: {httpHeaderName: x}}}], outlierDetection: {consecutive5xxErrors: 3}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {retryBudget: {percent: 20}, connectionPool: {tcp: {maxConnections: 9}}}, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - {match: [{uri: {regex: "/a.*"}, withoutHeaders: {x: {exact: "1"}}, queryParams: {q: {prefix: z}}}], redirect: {uri: /b}}
  - {match: [{uri: {prefix: /c}}], rewrite: {uriRegexRewrite: {match: "/c(.*)", rewrite: '/d\\1'}}, route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews}, weight: 2}], retries: {attempts: 2, retryOn: "5xx,503"}, mirrors: [{destination: {host: any}}]}
  - {fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}, abort: {httpStatus: 500, percentage: {value: 1}}}, corsPolicy: {allowOrigins: [{regex: ".*"}]}, route: [{destination: {host: reviews}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tls}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["a.example.com"], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["a.example.com"], tls: {mode: SIMPLE, credentialName: cert}}
  - {port: {number: 443, name: pass, protocol: TLS}, hosts: ["b.example.com"], tls: {mode: PASSTHROUGH}}
  - {port: {number: 8443, name: m, protocol: HTTPS}, hosts: ["*"], tls: {mode: MUTUAL, credentialName: cert}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [a.example.com, b.example.com]
  gateways: [tls]
  http: [{rewrite: {uri: /z}, route: [{destination: {host: reviews}}]}]
  tls: [{match: [{sniHosts: [b.example.com]}], route: [{destination: {host: api.example.com, port: {number: 443}}}]}]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: db, port: {number: 3306}}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: a, port: 8080, protocol: HTTP}, {name: b, port: 8081, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert}
type: kubernetes.io/tls
stringData: {tls.crt: CHAIN, tls.key: KEY}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: edge}]
  rules:
  - {matches: [{path: {value: /x}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: reviews, port: 9080}, {name: nobody, port: 1}]}
  - {matches: [{path: {value: /y}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}
""",
)
SECCOMP = ir.Attachment(
    capture=ir.Capture.SECCOMP,
    outbound_address="127.0.0.1",
    outbound_port=15400,
    app_address="127.1.0.9",
)
PROXY_ENV = ir.Attachment(capture=ir.Capture.PROXY_ENV, http_proxy_port=15500, inbound_ports=((9080, 19080),))
GATEWAY = {"istio": "ingressgateway", "gateway.networking.k8s.io/gateway-name": "edge"}
PROXIES = {
    "redirect": identity("sidecar~10.0.0.1~reviews-1.default"),
    "seccomp": identity("sidecar~127.2.0.1~reviews-1.default", attachment=SECCOMP),
    "proxy-env": identity("sidecar~127.2.0.1~reviews-1.default", attachment=PROXY_ENV),
    "gateway": identity("router~10.0.0.3~edge-1.default", GATEWAY),
}


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE", "DISABLE"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_envoy_accepts_it(proxy: str, mode: str, tmp_path: Path) -> None:
    pair = TestAuthority().issue("a.example.com")
    # In one go: the letters of either may stand in the other.
    parts = {"CHAIN": json.dumps(pair.certificate), "KEY": json.dumps(pair.key)}
    filled = (re.sub("CHAIN|KEY", lambda found: parts[found[0]], text) for text in EVERYTHING)
    of = world(*filled, peer(mode))
    made, problems = compile_proxy(of, PROXIES[proxy])
    assert [problem.path for problem in problems] == ["spec.rules[0].backendRefs[1]"]
    assert made.listeners
    bundle = emit(made)
    authority = TestAuthority()
    certificates, bundles = bundle_secrets(bundle)
    secrets = {name: authority.issue("a.example.com").secret(name) for name in certificates}
    trust = {"trusted_ca": {"inline_string": authority.pem}}
    secrets |= {name: {"name": name, "validation_context": trust} for name in bundles}
    sets = [
        endpoint_set(of, cluster.name) for cluster in made.clusters if cluster.discovery is ir.Discovery.EDS
    ]
    validate(static_bootstrap(bundle, sets, Settings(name=made.identity.name), secrets), tmp_path)
