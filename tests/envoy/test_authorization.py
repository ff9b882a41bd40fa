"""AuthorizationPolicies on real proxies: who is let in, by what they show and what they ask for."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
import yaml

from tests.envoy.control import ControlPlane
from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, TcpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.dial import Connection, Reply
from tests.support.envoy import Envoy, wait_until
from tests.support.ports import free_port
from weft import ir
from weft.analysis.explain.hops import describe, hops_of
from weft.analysis.explain.live import Running
from weft.names import ProxyName

HTTP_PORT: Final = 8080
TCP_PORT: Final = 9000
FRONT: Final = "default/front"
OPS: Final = "ops/admin"
JOBS: Final = "jobs/batch"

RESOURCES: Final = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh, namespace: istio-system}
spec: {accessLogFile: access.log, accessLogEncoding: JSON}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 8080}
  - {name: tcp, port: 9000}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everywhere, namespace: istio-system}
spec:
  action: DENY
  rules:
  - from: [{source: {notNamespaces: [ops]}}]
    to: [{operation: {ports: ["8080"], paths: [/for-ops]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: first, namespace: default}
spec:
  action: DENY
  rules:
  - to: [{operation: {ports: ["8080"], paths: [/closed]}}]
  - from: [{source: {principals: [cluster.local/ns/default/sa/front]}}]
    to: [{operation: {ports: ["8080"], paths: [/not-for-front]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/front]}}]
    to: [{operation: {paths: [/principal]}}]
  - from: [{source: {namespaces: [ops]}}]
    to: [{operation: {paths: [/namespace]}}]
  - from: [{source: {serviceAccounts: [jobs/batch]}}]
    to: [{operation: {paths: [/account]}}]
  - from: [{source: {ipBlocks: [127.0.0.9]}}]
    to: [{operation: {paths: [/address]}}]
  - to: [{operation: {paths: [/method], methods: [POST]}}]
  - to: [{operation: {paths: ["/users/{*}/orders", "/tree/{**}", "*.css", "/prefix/*"]}}]
  - to: [{operation: {paths: [/header]}}]
    when: [{key: "request.headers[x-tenant]", values: [gold, "silver-*"], notValues: [silver-test]}]
  - to: [{operation: {paths: [/host], hosts: [web.example]}}]
  - to: [{operation: {paths: [/closed, /not-for-front, /for-ops, /tried, /live]}}]
  - from: [{source: {principals: [cluster.local/ns/default/sa/front]}}]
    to: [{operation: {ports: ["9000"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: writes, namespace: default}
spec:
  action: AUDIT
  rules: [{to: [{operation: {methods: [POST]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried-refusal, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules: [{to: [{operation: {ports: ["8080"], paths: [/tried]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried-list, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec:
  rules: [{from: [{source: {namespaces: [ops]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-others, namespace: default}
spec: {selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-another-namespace, namespace: ops}
spec: {action: DENY, rules: [{}]}
"""


@dataclass(frozen=True, slots=True)
class Web:
    """A workload behind its sidecar, and those who call it."""

    plane: ControlPlane
    envoy: Envoy
    backend: HttpBackend
    address: str
    authority: TestAuthority
    contexts: dict[str, ssl.SSLContext]

    def ask(self, who: str, path: str, method: str = "GET", source: str = "", **headers: str) -> Reply:
        """One request of a service account ``namespace/name``."""
        connection = Connection((self.address, HTTP_PORT))
        plain = socket.create_connection(
            (self.address, HTTP_PORT), 20, source_address=(source, 0) if source else None
        )
        connection.sock = self.contexts[who].wrap_socket(plain)
        try:
            return connection.ask(path, method, **headers)
        finally:
            connection.close()

    def dial(self, who: str) -> ssl.SSLSocket:
        """A connection to the TCP port."""
        plain = socket.create_connection((self.address, TCP_PORT), 20)
        return self.contexts[who].wrap_socket(plain)


def caller(authority: TestAuthority, who: str) -> ssl.SSLContext:
    """The TLS of a service account."""
    namespace, _, name = who.partition("/")
    pair = authority.issue(f"spiffe://cluster.local/ns/{namespace}/sa/{name}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.pem)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    base = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
    address, application = f"{base}.1", f"{base}.2"
    authority = TestAuthority()
    place = {
        "outboundAddress": address, "outboundPort": free_port(address),
        "inboundAddress": address, "appAddress": application,
    }  # fmt: skip
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend(application, HTTP_PORT, "web")))
        stack.enter_context(serving(TcpBackend(application, TCP_PORT, "web")))
        plane = stack.enter_context(ControlPlane(tmp_path_factory.mktemp("plane"), authority))
        plane.apply(*yaml.safe_load_all(RESOURCES))
        envoy = stack.enter_context(plane.sidecar("web", address, place, drain_s=2))
        plane.settle(1)
        contexts = {who: caller(authority, who) for who in (FRONT, OPS, JOBS)}
        yield Web(plane, envoy, backend, address, authority, contexts)


GOLD: Final = {"x_tenant": "gold"}
CASES: Final[list[tuple[str, str, dict[str, Any], int]]] = [
    (FRONT, "/principal", {}, 200),
    (OPS, "/principal", {}, 403),
    (OPS, "/namespace", {}, 200),
    (FRONT, "/namespace", {}, 403),
    (JOBS, "/account", {}, 200),
    (OPS, "/account", {}, 403),
    (FRONT, "/address", {"source": "127.0.0.9"}, 200),
    (FRONT, "/address", {"source": "127.0.0.8"}, 403),
    (FRONT, "/method", {"method": "POST"}, 200),
    (FRONT, "/method", {}, 403),
    (FRONT, "/users/7/orders", {}, 200),
    (FRONT, "/users/7/x/orders", {}, 403),
    (FRONT, "/tree/a/b/c", {}, 200),
    (FRONT, "/style.css?v=2", {}, 200),
    (FRONT, "/style.css2", {}, 403),
    (FRONT, "/prefix/x", {}, 200),
    (FRONT, "/prefix", {}, 403),
    (FRONT, "/header", GOLD, 200),
    (FRONT, "/header", {"x_tenant": "silver-1"}, 200),
    (FRONT, "/header", {"x_tenant": "silver-test"}, 403),
    (FRONT, "/header", {}, 403),
    (FRONT, "/host", {"host": "WEB.example"}, 200),
    (FRONT, "/host", {"host": "other.example"}, 403),
    (FRONT, "/elsewhere", {}, 403),
    # What is refused stays refused, whatever lets it pass.
    (OPS, "/closed", {}, 403),
    (OPS, "/not-for-front", {}, 200),
    (FRONT, "/not-for-front", {}, 403),
    # The root namespace's policies hold for every workload.
    (OPS, "/for-ops", {}, 200),
    (FRONT, "/for-ops", {}, 403),
]


@pytest.mark.parametrize(
    ("who", "path", "how", "status"), CASES, ids=lambda value: str(value).replace("/", "_")
)
def test_who_is_let_in(web: Web, who: str, path: str, how: dict[str, Any], status: int) -> None:
    before = web.backend.seen[path.partition("?")[0]]
    assert web.ask(who, path, **how).status == status
    assert web.backend.seen[path.partition("?")[0]] - before == (status == 200)


def test_a_refusal_tells_nothing(web: Web) -> None:
    reply = web.ask(OPS, "/principal")
    assert reply.text == "RBAC: access denied"


def test_the_log_names_policy_and_rule(web: Web) -> None:
    ids = {name: f"log-{name}-{random.getrandbits(40)}" for name in ("allow", "deny", "nobody", "audit")}
    web.ask(OPS, "/namespace", x_request_id=ids["allow"])
    web.ask(FRONT, "/not-for-front", x_request_id=ids["deny"])
    web.ask(FRONT, "/elsewhere", x_request_id=ids["nobody"])
    web.ask(FRONT, "/elsewhere", "POST", x_request_id=ids["audit"])
    for request_id in ids.values():
        web.envoy.requests(request_id=request_id)
    lines = (web.envoy.directory / "access.log").read_text().splitlines()
    running = Running(yaml.safe_load(web.envoy.admin("/config_dump?include_eds")))
    told = {}
    for name, request_id in ids.items():
        (hop,) = hops_of(request_id, [("default/web", line) for line in lines])
        authz = describe(hop, running)["authz"]
        told[name] = (authz["decision"], authz["policy"], authz["rule"])
    assert told == {
        "allow": ("allow", "default/callers", 1),
        "deny": ("deny", "default/first", 1),
        "nobody": ("deny", None, None),
        "audit": ("deny", None, None),
    }


def test_what_is_tried_out_is_told_and_not_done(web: Web) -> None:
    request_id = f"tried-{random.getrandbits(40)}"
    assert web.ask(FRONT, "/tried", x_request_id=request_id).status == 200
    (line,) = web.envoy.requests(request_id=request_id)
    assert (line["authz_result"], line["authz_policy"]) == ("allowed", "ns[default]-policy[callers]-rule[8]")
    assert line["dry_run_deny_result"] == "denied"
    assert line["dry_run_deny_policy"] == "ns[default]-policy[tried-refusal]-rule[0]"
    assert line["dry_run_allow_result"] == "denied"
    (hop,) = hops_of(request_id, [("default/web", json.dumps(line))])
    told = describe(hop, None)["authz"]
    assert (told["decision"], told["policy"], told["rule"]) == ("allow", "default/callers", 8)
    assert (told["dryRun"], told["dryRunPolicy"], told["dryRunRule"]) == ("deny", "default/tried-refusal", 0)
    metrics = web.envoy.admin("/stats/prometheus?filter=rbac")
    for action, result in (("deny", "denied"), ("allow", "denied")):
        labels = f'authz_dry_run_action="{action}",authz_dry_run_result="{result}"'
        assert labels in metrics, metrics


def test_tcp_by_identity(web: Web) -> None:
    with web.dial(FRONT) as connection:
        assert connection.recv(100).startswith(b"hello")
        connection.sendall(b"ping")
        assert connection.recv(100) == b"ping"
    received = b""
    with web.dial(OPS) as connection, contextlib.suppress(ConnectionError, ssl.SSLError):
        connection.sendall(b"ping")
        while data := connection.recv(100):
            received += data
    # Rules are asked with the first byte of the client: until then it hears a server that speaks first.
    assert received in {b"", b"hello from web\n"}
    (line,) = web.envoy.requests(
        downstream_peer_principal="spiffe://cluster.local/ns/ops/sa/admin", method=None
    )
    assert line["connection_termination_details"] == "rbac_access_denied_matched_policy[none]"


def test_a_connection_that_is_not_allowed_any_more_is_ended(web: Web) -> None:
    policy = {
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-more", "namespace": "default"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": [str(TCP_PORT)]}}]}]},
    }  # fmt: skip
    with web.dial(FRONT) as connection:
        assert connection.recv(100).startswith(b"hello")
        connection.sendall(b"ping")
        assert connection.recv(100) == b"ping"
        web.plane.apply(policy)
        try:
            # The listener that let it in drains: what outlives that is cut.
            connection.settimeout(60)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert connection.recv(100) == b""
            with web.dial(FRONT) as fresh, contextlib.suppress(ConnectionError, ssl.SSLError):
                fresh.sendall(b"ping")
                assert b"ping" not in fresh.recv(100)
        finally:
            web.plane.delete(policy)


def test_a_change_costs_no_allowed_request(web: Web) -> None:
    failed: list[object] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                status = web.ask(OPS, "/namespace").status
            except OSError as error:
                failed.append(error)
            else:
                if status != 200:
                    failed.append(status)

    policy = {
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "live", "namespace": "default"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/live"]}}]}]},
    }  # fmt: skip
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            web.plane.apply(policy)
            wait_until(lambda: web.ask(FRONT, "/live").status == 403, 20, "the policy")
            web.plane.delete(policy)
            wait_until(lambda: web.ask(FRONT, "/live").status == 200, 20, "the policy to be gone")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


EDGE: Final = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}
  - {{port: {{number: 9000, name: tcp, protocol: TCP}}, hosts: ["*"]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{{directResponse: {{status: 200, body: {{string: fine}}}}}}]
  tcp: [{{match: [{{port: 9000}}], route: [{{destination: {{host: db.example, port: {{number: 9000}}}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: db, namespace: default}}
spec:
  hosts: [db.example]
  resolution: STATIC
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {backend}}}}}]
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: mesh, namespace: istio-system}}
spec: {{defaultConfig: {{gatewayTopology: {{numTrustedProxies: 1}}}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: clients, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  rules:
  - from: [{{source: {{remoteIpBlocks: [198.51.100.0/24]}}}}]
    to: [{{operation: {{ports: ["80"], notHosts: [admin.example]}}}}]
  - from: [{{source: {{ipBlocks: [127.0.0.9]}}}}]
    to: [{{operation: {{ports: ["9000"]}}}}]
"""


def test_a_gateway_by_client_address_and_port() -> None:
    http, tcp, backend = free_port(), free_port(), free_port()
    identity = ir.ProxyIdentity(
        name=ProxyName("router", "127.0.0.1", "edge", "default"), service_account="edge",
        labels=(("istio", "ingressgateway"),), port_map=((80, http), (9000, tcp)),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    )  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(serving(TcpBackend("127.0.0.1", backend, "db")))
        stack.enter_context(run_compiled(world(EDGE.format(backend=backend)), identity, TestAuthority()))

        def status(client: str, host: str = "shop.example") -> int:
            connection = Connection(("127.0.0.1", http))
            try:
                return connection.ask("/", host=host, x_forwarded_for=client).status
            finally:
                connection.close()

        assert status("198.51.100.7") == 200
        assert status("203.0.113.1") == 403
        # Only the last address is a trusted proxy's word: what the client says of itself counts for nothing.
        assert status("198.51.100.7, 203.0.113.1") == 403
        assert status("203.0.113.1, 198.51.100.7") == 200
        assert status("198.51.100.7", "admin.example") == 403
        for source, answer in (("127.0.0.9", b"ping"), ("127.0.0.8", b"")):
            with socket.create_connection(("127.0.0.1", tcp), 20, source_address=(source, 0)) as connection:
                connection.sendall(b"ping")
                received = b""
                with contextlib.suppress(ConnectionError):
                    while data := connection.recv(100):
                        received += data
                        if received.endswith(b"ping"):
                            break
                assert received.endswith(answer), source
                assert (b"ping" in received) == bool(answer), source
