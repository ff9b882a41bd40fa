"""A running mesh under load, and every kind of change one after another: no request fails by any of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.load import Load, load, streams
from tests.support.mesh import Mesh, up
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]


def _workload(name: str, app: str, version: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: {name}, labels: {{app: {app}, version: {version}}}}}
spec:
  serviceAccount: {app}
  command: [{sys.executable}, -m, weft, echo, --port, "8080", --tcp-port, "7070"]
  ports: [{{name: http, port: 8080}}, {{name: raw, port: 7070}}]
  readinessProbe: {{tcpSocket: {{port: http}}}}
---"""


def _service(more: str = "", name: str = "http") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: {name}, port: 8080}}{more}]}}
---"""


def _gateway(more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}{more}]
---"""


def _rules(http: str, name: str = "web", hosts: str = "hosts: [web], ") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec: {{{hosts}http: {http}}}
---"""


def _subsets(one: str, two: str, more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec:
  host: web{more}
  subsets: [{{name: {one}, labels: {{version: v1}}}}, {{name: {two}, labels: {{version: v2}}}}]
---"""


def _weights(one: str, share: int, two: str) -> str:
    parts = ((one, share), (two, 100 - share))
    route = ", ".join(f"{{destination: {{host: web, subset: {to}}}, weight: {part}}}" for to, part in parts)
    return _rules(f"[{{route: [{route}]}}]")


def _peers(mode: str, app: str = "web") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {app}}}
spec: {{selector: {{matchLabels: {{app: {app}}}}}, mtls: {{mode: {mode}}}}}
---"""


def _scope(hosts: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client}}
spec: {{workloadSelector: {{labels: {{app: client}}}}, egress: [{{hosts: [{hosts}]}}]}}
---"""


def _policy(spec: str, kind: str = "AuthorizationPolicy") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: {kind}
metadata: {{name: web}}
spec: {{selector: {{matchLabels: {{app: web}}}}, {spec}}}
---"""


def _settings(spec: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{{spec}}}
---"""


BASE = (
    _workload("web-v1", "web", "v1")
    + _workload("web-v2", "web", "v2")
    + _workload("client", "client", "v1")
    + _workload("guard", "guard", "v1")
    + _service().replace("web", "guard").replace("port: 8080", "port: 9000, targetPort: 8080")
    + _service(name="tcp").replace("name: web", "name: db").replace("web", "guard").replace("8080", "7070")
    # Speaks HTTP at the number of web's port, which keeps their common listener when web's turns to TCP.
    + _service().replace("name: web", "name: neighbour").replace("app: web", "app: guard")
)
EDGE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: web, port: {number: 8080}}}]}]}
---"""
LUA = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: lua}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager,
      subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "function envoy_on_response(h) h:headers():add('x', '1') end"}
---"""
LIMIT = """
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {name: web}
spec: {selector: {matchLabels: {app: web}}, limits: [{name: all, requests: 1000000}]}
---"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 8080}]
  rules: [{backendRefs: [{name: web, port: 8080}]}]
---"""
ASKING = ROUTE.replace(
    "rules: [{",
    "rules: [{filters: [{type: ExternalAuth, externalAuth: "
    "{protocol: HTTP, backendRef: {name: guard, port: 9000}, http: {}}}], ",
)
GUARD = "envoyExtAuthzHttp: {service: guard.default.svc.cluster.local, port: 9000}"
TOKENS = "jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]"
HTTPS = ", {port: {number: 443, name: s, protocol: HTTPS}, hosts: [a.com], tls: {mode: PASSTHROUGH}}"
# What is applied, or the words of what is deleted.
CHANGES: dict[str, str | tuple[str, ...]] = {
    "subsets and weights": _subsets("a", "b") + _weights("a", 50, "b"),
    "a weight of zero": _weights("a", 0, "b"),
    "and back": _weights("a", 100, "b"),
    "renamed subsets": _subsets("c", "d") + _weights("c", 50, "d"),
    "a delegate": _rules("[{route: [{destination: {host: web, subset: c}}]}]", "leaf", "")
    + _rules("[{delegate: {name: leaf}}]"),
    "another delegate": _rules("[{route: [{destination: {host: web, subset: d}}]}]", "other", "")
    + _rules("[{delegate: {name: other}}]"),
    "no rules": ("virtualservice", "web"),
    "the rule of a connection": _subsets("c", "d", "\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"),
    "no subsets": ("destinationrule", "web"),
    "a route of the other API": ROUTE,
    "none again": ("httproute", "web"),
    # Listeners are exchanged for others: by host name and port for HTTP, by address for TCP.
    "bytes instead of requests": _service(name="tcp"),
    "requests again": _service(),
    "another port": _service(", {name: tcp-x, port: 9999, targetPort: 8080}", "http2"),
    "one port again": _service(),
    "mutual TLS": _peers("STRICT"),
    "none": _peers("DISABLE"),
    "as it comes": ("peerauthentication", "web"),
    # Nobody tries a TCP connection again.
    "bytes without mutual TLS": _peers("DISABLE", "guard"),
    "bytes within it": ("peerauthentication", "guard"),
    "a filter and a limit": LUA + LIMIT,
    "no filter": ("envoyfilter", "lua"),
    "no limit": ("ratelimit", "web"),
    "a narrow view": _scope("./web.default.svc.cluster.local, ./db.default.svc.cluster.local"),
    "the whole view": ("sidecar", "client"),
    "whom to trust": _settings("trustDomainAliases: [other.example]"),
    "TLS as it shall be": _settings("compliancePolicy: pqc"),
    "who decides": _settings(f"extensionProviders: [{{name: guard, {GUARD}}}]")
    + _policy("action: CUSTOM, provider: {name: guard}, rules: [{}]"),
    "a policy": _policy("rules: [{to: [{operation: {methods: [GET]}}]}]"),
    "tokens": _policy(TOKENS, "RequestAuthentication"),
    "no tokens": ("requestauthentication", "web"),
    "no policy": ("authorizationpolicy", "web"),
    "nobody to ask": _settings(""),
    "a route that asks": ASKING,
    "a route that does not": ROUTE,
    "more ports at the gateway": _gateway(HTTPS),
    "one port at the gateway": _gateway(),
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    file = tmp_path_factory.mktemp("mesh") / "mesh.yaml"
    file.write_text(BASE + _service() + _gateway() + EDGE)
    with up(file, "--port-map", f"443={free_port()}") as running:
        yield running


def _address(netns: Path, name: str) -> str:
    command = ["nsenter", f"--net={netns}", "getent", "ahostsv4", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]


def test_no_change_fails_a_request(mesh: Mesh) -> None:
    netns = mesh.netns("default/client-0")
    host, db = _address(netns, "web"), _address(netns, "db")
    failed: dict[str, list[str]] = {}
    with ExitStack() as stack:
        loads: list[Load] = [
            stack.enter_context(load(*to, netns=inside, keep_alive=kept, threads=1, pause_s=0.01))
            for to, inside in ((("127.0.0.1", mesh.gateway_port), None), ((host, 8080), netns))
            for kept in (True, False)
        ]
        loads += [
            stack.enter_context(streams(db, 7070, netns=netns, life_s=life, pause_s=0.02)) for life in (0, 3)
        ]
        for name, change in CHANGES.items():
            before = [(len(stream.failures), stream.answers.copy()) for stream in loads]
            if isinstance(change, str):
                mesh.weft("apply", "--wait", "-", stdin=change)
            else:
                mesh.weft("delete", *change)
            for stream in loads:
                stream.wait_for(5)
            for stream, (count, answers) in zip(loads, before, strict=True):
                if stream.failures[count:] or set(stream.answers - answers) != {200}:
                    failed.setdefault(name, []).append(
                        f"{stream.answers - answers}, {stream.failures[count : count + 3]}"
                    )
    assert failed == {}
