"""Automatic mutual TLS through real sidecars: one client calls each endpoint as that can be called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.envoy.mesh import VIP, run_compiled, spiffe
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.dial import Connection
from tests.support.envoy import Envoy
from tests.support.ports import free_ports
from weft import ir
from weft.names import ProxyName

_APPLICATION = "127.0.0.2"
MESH = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: with-sidecar, namespace: default}}
spec:
  address: 127.0.0.1
  ports: {{http: {app}}}
  serviceAccount: web
  labels: {{app: web, at: sidecar, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: without, namespace: default}}
spec:
  address: 127.0.0.1
  ports: {{http: {plain}}}
  labels: {{app: web, at: plain}}
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{accessLogFile: access.log, accessLogEncoding: JSON}}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
OFF = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: plain-text, namespace: default}
spec:
  selector: {matchLabels: {at: sidecar}}
  mtls: {mode: DISABLE}
"""
PORT_OFF = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: port, namespace: default}}
spec:
  selector: {{matchLabels: {{at: sidecar}}}}
  mtls: {{mode: STRICT}}
  portLevelMtls: {{"{app}": {{mode: DISABLE}}}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A client's sidecar, and one of the two servers'."""

    client: Envoy
    server: Envoy
    outbound: int


def _attached(outbound: int, *ports: tuple[int, int]) -> ir.Attachment:
    return ir.Attachment(
        capture=ir.Capture.SECCOMP,
        outbound_address="127.0.0.1",
        outbound_port=outbound,
        inbound_address="127.0.0.1",
        app_address=_APPLICATION,
        inbound_ports=ports,
    )


@contextmanager
def scene(*rules: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        outbound, other, app, plain = free_ports(4)
        # The first application's sidecar has its port, at the address that others know.
        stack.enter_context(serving(HttpBackend(_APPLICATION, app, "in")))
        stack.enter_context(serving(HttpBackend("127.0.0.1", plain, "out")))
        authority = TestAuthority()
        texts = [text.format(app=app) if "{{" in text else text for text in rules]
        of = world(MESH.format(app=app, plain=plain), *texts)
        server = ir.ProxyIdentity(
            name=ProxyName("sidecar", "127.0.0.1", "with-sidecar", "default"),
            labels=(("app", "web"), ("at", "sidecar")),
            service_account="web",
            attachment=_attached(other, (app, app)),
        )
        client = ir.ProxyIdentity(
            name=ProxyName("sidecar", "127.0.0.1", "client", "default"),
            service_account="client",
            attachment=_attached(outbound),
        )
        running = stack.enter_context(run_compiled(of, server, authority))
        yield Scene(stack.enter_context(run_compiled(of, client, authority)), running, outbound)


def called(of: Scene) -> dict[str, str | None]:
    """How each of the servers was called: the version of TLS by its name, None for plain text."""
    connection = Connection((VIP, 80), through=("127.0.0.1", of.outbound))
    names: dict[str, str] = {}
    for number in range(200):
        reply = connection.ask(f"/{number}", host="web.default.svc.cluster.local")
        assert reply.status == 200, reply
        names[reply.body["name"]] = f"/{number}"
        if len(names) == 2:
            break
    connection.close()
    return {name: of.client.requests(path=path)[0]["upstream_tls_version"] for name, path in names.items()}


@pytest.mark.parametrize("rules", [(), (STRICT,)], ids=["permissive", "strict"])
def test_each_endpoint_is_called_as_it_can_be(rules: tuple[str, ...]) -> None:
    with scene(*rules) as of:
        assert called(of) == {"in": "TLSv1.3", "out": None}
        line = of.server.requests()[0]
        assert line["downstream_peer_principal"] == spiffe("client")


@pytest.mark.parametrize("rules", [(OFF,), (STRICT, OFF), (STRICT, PORT_OFF)], ids=["off", "strict", "port"])
def test_where_it_is_turned_off_plain_text_is_spoken(rules: tuple[str, ...]) -> None:
    with scene(*rules) as of:
        assert called(of) == {"in": None, "out": None}
        assert of.server.requests()[0]["downstream_peer_principal"] is None
