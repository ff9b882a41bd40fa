"""What is known of proxies: phases, convergence, refusals, and Istio's series."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from weft import ir
from weft.control.convergence import Phase, Rejected
from weft.control.proxies import Entry, Proxies, authorizer
from weft.control.status import Status, sources
from weft.emit.packed import Packed
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ProxyName
from weft.xds.connection import Connection, Node, Peer, Refusal
from weft.xds.messages import Acknowledged, Refused, Request
from weft.xds.shared import Shared
from weft.xds.store import ConfigStore


class Silent:
    """A transport that nobody is at the other end of."""

    async def read(self) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async def write(self, message: bytes) -> None:
        pass


@dataclass
class Bundle:
    resources: Mapping[str, Mapping[str, Packed]]


class Mesh:
    """The parts that ``Status`` observes, driven by hand: the protocol is the real one."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.proxies = Proxies()
        self.rejected: list[Rejected] = []
        self.status = Status(self.proxies, clock=lambda: self.now, on_rejected=self.rejected.append)
        self.store = ConfigStore()
        self.shared = Shared()

    def connect(self, name: str = "web") -> Connection:
        node_id = f"sidecar~10.0.0.1~{name}.shop~shop.svc.cluster.local"
        identity = ir.ProxyIdentity(name=ProxyName.parse(node_id))
        peer = Peer(node_id, Node(node_id, version="1.40.0"), identity)
        connection = Connection(Silent(), peer, self.shared, self.store, self.status)
        self.store.attach(connection)
        self.status.connected(connection)
        return connection

    def publish(self, revision: int, **clusters: str) -> None:
        made = {name: Packed(name, version, b"\n\x01x") for name, version in clusters.items()}
        for connection in self.proxies.connections():
            self.store.publish(connection.proxy, Bundle({CLUSTER_TYPE: made}), revision)
        self.status.published(revision, self.store.sequence)

    def exchange(self, connection: Connection, *requests: Request, error: str | None = None) -> None:
        """Let the proxy say something, and answer everything that it is sent."""
        for request in requests:
            connection.stream.receive(request)
        while (response := connection.stream.send()) is not None:
            self.status.sent(connection, response)
            answer = Request(response.type_url, nonce=response.nonce, error=error)
            event = connection.stream.receive(answer)
            if isinstance(event, Acknowledged):
                self.status.acknowledged(connection, event)
            elif isinstance(event, Refused):
                self.status.refused(connection, event)
        self.status.progressed(connection)

    def cell(self, short: str, name: str = "web") -> str:
        (row,) = (row for row in self.status.table() if row["name"] == name)
        return str(row["types"][short]["status"])


@pytest.fixture
async def mesh() -> Mesh:
    return Mesh()


async def test_a_type_goes_from_not_sent_over_stale_to_synced(mesh: Mesh) -> None:
    web = mesh.connect()
    mesh.publish(1, a="1")
    assert mesh.cell("cds") == Phase.NOT_SENT
    web.stream.receive(Request(CLUSTER_TYPE))
    response = web.stream.send()
    assert response is not None
    mesh.status.sent(web, response)
    assert mesh.cell("cds") == Phase.STALE
    event = web.stream.receive(Request(CLUSTER_TYPE, nonce=response.nonce))
    assert isinstance(event, Acknowledged)
    mesh.now += 2
    mesh.status.acknowledged(web, event)
    mesh.now += 5
    assert mesh.cell("cds") == Phase.SYNCED
    assert mesh.status.table()[0]["types"]["cds"]["ageSeconds"] == 5
    assert mesh.cell("lds") == Phase.NOT_SENT


async def test_a_proxy_that_comes_back_with_everything_is_in_step(mesh: Mesh) -> None:
    before, web = mesh.connect("before"), mesh.connect()
    mesh.publish(1, a="1")
    before.stream.receive(Request(CLUSTER_TYPE))
    response = before.stream.send()
    assert response is not None
    held = {resource.name: resource.version for resource in response.resources}
    assert held
    web.stream.receive(Request(CLUSTER_TYPE, initial_versions=held))
    assert mesh.cell("cds") == Phase.NOT_SENT
    assert web.stream.send() is None
    assert mesh.cell("cds") == Phase.SYNCED
    assert mesh.cell("lds") == Phase.NOT_SENT


async def test_a_refusal_is_kept_with_its_words_until_it_is_mended(mesh: Mesh) -> None:
    web = mesh.connect()
    mesh.publish(1, a="1")
    mesh.exchange(web, Request(CLUSTER_TYPE), error="ring too large")
    assert mesh.cell("cds") == Phase.NACK
    row = mesh.status.table()[0]
    assert row["types"]["cds"]["error"] == "ring too large"
    assert row["rejected"] == [{"type": "cds", "name": "a", "error": "ring too large", "sources": []}]
    assert [(r.type, r.name, r.error) for r in mesh.rejected] == [("cds", "a", "ring too large")]
    report = mesh.status.convergence(1)
    assert (report.missing, report.done) == ((), False)
    mesh.publish(2, a="2")
    mesh.exchange(web)
    assert mesh.cell("cds") == Phase.SYNCED
    assert mesh.status.convergence(2).done


async def test_an_old_refusal_does_not_hold_up_a_later_change(mesh: Mesh) -> None:
    web = mesh.connect()
    mesh.publish(1, a="1")
    mesh.exchange(web, Request(CLUSTER_TYPE), error="no")
    mesh.publish(2, a="1", b="1")
    mesh.exchange(web)
    assert mesh.status.convergence(2).done
    assert [r.name for r in mesh.status.rejections()] == ["a"]


async def test_convergence_names_who_is_missing_and_ends_when_nobody_is(mesh: Mesh) -> None:
    web, api = mesh.connect("web"), mesh.connect("api")
    mesh.publish(1, a="1")
    waiting = asyncio.create_task(mesh.status.wait_converged(1, 10))
    mesh.exchange(web, Request(CLUSTER_TYPE))
    await asyncio.sleep(0)
    assert mesh.status.convergence(1).missing == (api.proxy,)
    assert not waiting.done()
    mesh.exchange(api, Request(CLUSTER_TYPE))
    report = await waiting
    assert (report.done, report.total) == (True, 2)
    # A revision that the pipeline has not come to is not converged, whatever proxies have.
    assert mesh.status.convergence(2).missing == (api.proxy, web.proxy)
    assert not mesh.status.convergence(2).published
    late = await mesh.status.wait_converged(2, 0.01)
    assert not late.done


async def test_a_proxy_that_leaves_is_not_waited_for(mesh: Mesh) -> None:
    web, api = mesh.connect("web"), mesh.connect("api")
    mesh.publish(1, a="1")
    mesh.exchange(web, Request(CLUSTER_TYPE))
    waiting = asyncio.create_task(mesh.status.wait_converged(1, 10))
    await asyncio.sleep(0)
    mesh.status.disconnected(api)
    assert (await waiting).done


async def test_endpoints_count_for_convergence(mesh: Mesh) -> None:
    web = mesh.connect()
    mesh.publish(1, a="1")
    mesh.exchange(web, Request(CLUSTER_TYPE), Request(ENDPOINT_TYPE, subscribe=("a",)))
    mesh.store.publish_endpoints(None, {"a": Packed("a", "2", b"\n\x01x")})
    mesh.store.flush()
    mesh.publish(2, a="1")
    assert mesh.status.convergence(2).missing == (web.proxy,)
    waiting = asyncio.create_task(mesh.status.wait_endpoints_of(2, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    mesh.exchange(web)
    assert await waiting == ()
    assert mesh.status.convergence(2).done


async def test_series_have_istios_names(mesh: Mesh) -> None:
    web = mesh.connect()
    mesh.publish(1, a="1")
    mesh.status.awaiting(web.proxy, 1, mesh.now - 0.2)
    mesh.exchange(web, Request(CLUSTER_TYPE))
    mesh.exchange(web, Request(LISTENER_TYPE), error="no")
    text = mesh.status.metrics.text().decode()
    for line in (
        'pilot_xds{version="1.40.0"} 1.0',
        'pilot_xds_pushes{type="cds"} 1.0',
        'pilot_total_xds_rejects{type="pilot_xds_lds_reject"} 1.0',
        'pilot_total_xds_rejects{type="pilot_xds_cds_reject"} 0.0',
        "pilot_total_xds_internal_errors 0.0",
        "galley_validation_passed 0.0",
        "galley_validation_failed 0.0",
        'pilot_proxy_convergence_time_bucket{le="0.5"} 1.0',
        'pilot_proxy_convergence_time_bucket{le="0.1"} 0.0',
        'pilot_xds_config_size_bytes_bucket{le="10000.0",type="cds"} 1.0',
        'pilot_xds_push_time_count{type="cds"} 1.0',
    ):
        assert line in text.splitlines()
    mesh.status.disconnected(web)
    assert 'pilot_xds{version="1.40.0"} 0.0' in mesh.status.metrics.text().decode()


def test_sources_of_a_resource_are_found_in_its_unit() -> None:
    path = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews"
    route = ir.Route(
        name="r",
        match=ir.RequestMatch(),
        action=ir.Respond(status=200),
        source=ir.Source(path=path, rule=0),
    )
    table = ir.RouteTable(
        name="80", virtual_hosts=(ir.VirtualHost(name="a", domains=("a",), routes=(route, route)),)
    )
    assert sources(Packed("80", "1", b"", table)) == (path,)
    assert sources(Packed("80", "1", b"")) == ()


SPIFFE = "spiffe://cluster.local/ns/shop/sa/web"
NODE = Node(
    "sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local",
    metadata={
        "SERVICE_ACCOUNT": "web",
        "LABELS": {"app": "web"},
        "INTERCEPTION_MODE": "SECCOMP",
        "WEFT": {
            "outboundPort": 15401.0,
            "appAddress": "127.1.2.3",
            "inboundPorts": {"8080": 8080.0},
            "portMap": {"80": 10080.0},
        },
    },
)


def test_a_proxy_is_who_its_node_id_metadata_and_certificate_say() -> None:
    identity = authorizer()(NODE, SPIFFE)
    assert isinstance(identity, ir.ProxyIdentity)
    assert str(identity.spiffe) == SPIFFE
    assert identity.labels == (("app", "web"),)
    assert identity.port_map == ((80, 10080),)
    assert identity.attachment == ir.Attachment(
        capture=ir.Capture.SECCOMP,
        outbound_port=15401,
        app_address="127.1.2.3",
        inbound_ports=((8080, 8080),),
    )


@pytest.mark.parametrize(
    ("spiffe", "why"),
    [
        (None, "is not spiffe://"),
        ("spiffe://cluster.local/ns/shop/sa/other", "runs as web, its certificate is for"),
        ("spiffe://cluster.local/ns/other/sa/web", "is not in the namespace of its certificate"),
        ("spiffe://elsewhere/ns/shop/sa/web", "another trust domain"),
        ("spiffe://cluster.local/weft/node/one", "is not spiffe://"),
    ],
)
def test_a_certificate_for_somebody_else_is_refused(spiffe: str | None, why: str) -> None:
    verdict = authorizer()(NODE, spiffe)
    assert isinstance(verdict, Refusal)
    assert why in verdict.message


def test_what_is_registered_wins_over_what_the_proxy_says() -> None:
    known = {("shop", "web-0"): Entry(service_account="web", labels=(("app", "real"),), network="n1")}
    authorize = authorizer(registered=lambda namespace, name: known.get((namespace, name)))
    identity = authorize(NODE, SPIFFE)
    assert isinstance(identity, ir.ProxyIdentity)
    assert (identity.labels, identity.network) == ((("app", "real"),), "n1")
    known.clear()
    assert authorize(NODE, SPIFFE) == Refusal("no workload shop/web-0 is registered", transient=True)


@pytest.mark.parametrize(
    "metadata",
    [
        {"INTERCEPTION_MODE": "TPROXY"},
        {"WEFT": {"portMap": {"http": 1}}},
        {"WEFT": {"outboundPort": 70_000}},
        {"WEFT": []},
        {"LABELS": "app=web"},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(metadata: dict[str, object]) -> None:
    assert isinstance(
        authorizer()(Node(NODE.id, metadata={"SERVICE_ACCOUNT": "web", **metadata}), SPIFFE), Refusal
    )


def test_a_sidecar_that_calls_itself_a_gateway_is_refused() -> None:
    router = Node(NODE.id.replace("sidecar~", "router~"), metadata=NODE.metadata)
    authorize = authorizer(registered=lambda *_: Entry(service_account="web"))
    assert isinstance(authorize(NODE, SPIFFE), ir.ProxyIdentity)
    refusal = authorize(router, SPIFFE)
    assert refusal == Refusal("shop/web-0 is registered as sidecar, not as router")
    authorize = authorizer(registered=lambda *_: Entry(service_account="web", kind="router"))
    assert isinstance(authorize(router, SPIFFE), ir.ProxyIdentity)
