"""From YAML to traffic: what users write, compiled, emitted and run by real Envoys, captured rootlessly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.envoy.mesh import Client, Running, run_compiled, spiffe
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.dial import Connection
from tests.support.ports import free_port
from weft import ir
from weft.cli.documents import read_resources, refuse_errors
from weft.compile.world import World
from weft.names import ProxyName

VIP = "10.96.0.10"
RESOURCES = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {accessLogFile: access.log, accessLogEncoding: JSON}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.96.0.10
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1, namespace: default}
spec:
  address: V1_ADDRESS
  labels: {app: reviews, version: v1}
  serviceAccount: reviews
  ports: {http: 9080}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2, namespace: default}
spec:
  address: V2_ADDRESS
  labels: {app: reviews, version: v2}
  serviceAccount: reviews
  ports: {http: 9080}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /flaky}}]
    route: [{destination: {host: reviews, subset: v1}}]
    retries: {attempts: 2, retryOn: 5xx}
  - match: [{uri: {prefix: /teapot}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route: [{destination: {host: reviews, subset: v1}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop.example.com]
  gateways: [shop]
  http:
  - match: [{uri: {prefix: /shop/}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews, subset: v1}}]
"""


@dataclass(frozen=True, slots=True)
class Mesh:
    client: Client
    v1: HttpBackend
    v1_sidecar: Running
    edge: tuple[str, int]


def _sidecar(name: str, account: str, attachment: ir.Attachment, address: str) -> ir.ProxyIdentity:
    return ir.ProxyIdentity(
        name=ProxyName("sidecar", address, name, "default"),
        service_account=account,
        attachment=attachment,
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
    addresses = {"v1": f"{base}.1", "v2": f"{base}.2"}
    text = RESOURCES
    for name, address in addresses.items():
        text = text.replace(f"{name.upper()}_ADDRESS", address)
    path: Path = tmp_path_factory.mktemp("resources") / "mesh.yaml"
    path.write_text(text)
    resources, problems = read_resources([str(path)])
    refuse_errors(problems)
    world = World.build(resources)
    authority = TestAuthority()
    with ExitStack() as stack:
        backends: dict[str, HttpBackend] = {}
        sidecars: dict[str, Running] = {}
        for number, (name, address) in enumerate(addresses.items(), 101):
            application = f"{base}.{number}"
            backends[name] = stack.enter_context(serving(HttpBackend(application, 9080, name)))
            attachment = ir.Attachment(
                capture=ir.Capture.SECCOMP,
                outbound_address=address,
                outbound_port=15001,
                inbound_address=address,
                app_address=application,
            )
            identity = _sidecar(f"reviews-{name}", "reviews", attachment, address)
            sidecars[name] = Running(
                stack.enter_context(run_compiled(world, identity, authority)), (address, 9080)
            )
        outbound = free_port()
        attachment = ir.Attachment(
            capture=ir.Capture.SECCOMP,
            outbound_address="127.0.0.1",
            outbound_port=outbound,
            inbound_address=f"{base}.3",
            app_address=f"{base}.103",
        )
        client = stack.enter_context(
            run_compiled(world, _sidecar("web", "web", attachment, f"{base}.3"), authority)
        )
        edge = free_port()
        router = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "ingress", "istio-system"),
            service_account="ingress",
            labels=(("istio", "ingressgateway"),),
            attachment=ir.Attachment(capture=ir.Capture.NONE),
            port_map=((80, edge),),
        )
        stack.enter_context(run_compiled(world, router, authority))
        yield Mesh(
            Client(Running(client, ("127.0.0.1", outbound))),
            backends["v1"],
            sidecars["v1"],
            ("127.0.0.1", edge),
        )


def _ask(mesh: Mesh) -> Connection:
    return Connection((VIP, 9080), through=mesh.client.address)


def test_an_unmodified_caller_reaches_the_service_over_mtls(mesh: Mesh) -> None:
    assert _ask(mesh).ask("/hello", host="reviews:9080", end_user="jason").body["name"] == "v2"
    (line,) = mesh.client.envoy.requests(path="/hello")
    assert line["upstream_peer_principal"] == spiffe("reviews")
    assert line["upstream_cluster"] == "outbound|9080|v2|reviews.default.svc.cluster.local"


def test_weights(mesh: Mesh) -> None:
    connection = _ask(mesh)
    count = 500
    answered = Counter(connection.ask("/w", host="reviews").body["name"] for _ in range(count))
    assert abs(answered["v2"] - count * 0.2) <= 4 * (count * 0.2 * 0.8) ** 0.5, answered


def test_retries(mesh: Mesh) -> None:
    assert _ask(mesh).ask("/flaky/x?fail=2&key=x", host="reviews").status == 200
    assert mesh.v1.seen["/flaky/x"] == 3


def test_faults(mesh: Mesh) -> None:
    assert _ask(mesh).ask("/teapot", host="reviews").status == 418
    assert mesh.v1.seen["/teapot"] == 0


def test_strict_refuses_whoever_is_not_in_the_mesh(mesh: Mesh) -> None:
    with pytest.raises(OSError):
        Connection(mesh.v1_sidecar.address).ask("/plain")
    assert mesh.v1.seen["/plain"] == 0


def test_the_application_listens_where_only_its_sidecar_looks(mesh: Mesh) -> None:
    assert mesh.v1.server_address[0] != mesh.v1_sidecar.address[0]
    assert mesh.v1.server_address[1] == mesh.v1_sidecar.address[1]


def test_the_gateway_leads_into_the_mesh(mesh: Mesh) -> None:
    reply = Connection(mesh.edge).ask("/shop/cart?x=1", host="shop.example.com")
    assert (reply.status, reply.body["name"], reply.body["path"]) == (200, "v1", "/cart?x=1")
    request = reply.body["headers"]["x-request-id"]
    (line,) = mesh.v1_sidecar.envoy.requests(request_id=request)
    assert line["downstream_peer_principal"] == spiffe("ingress")
    assert line["requested_server_name"] == "outbound_.9080_.v1_.reviews.default.svc.cluster.local"


def test_the_gateway_knows_only_its_hosts(mesh: Mesh) -> None:
    assert Connection(mesh.edge).ask("/shop/cart", host="other.example.com").status == 404
    assert Connection(mesh.edge).ask("/elsewhere", host="shop.example.com").status == 404
