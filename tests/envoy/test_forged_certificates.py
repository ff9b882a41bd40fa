"""Certificates that nobody should accept, shown at every door: sidecar, gateway, xDS port and API."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509

from tests.envoy import xds
from tests.envoy.mesh import run_compiled, spiffe
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import Pair, TestAuthority
from tests.support.compiled import world
from tests.support.edge_backends import pem_file
from tests.support.forgeries import Forger, Wish, uri, wishes
from tests.support.identities import SERVICE, sidecar_of
from tests.support.plane import Plane, plane
from tests.support.ports import free_ports
from weft import ir
from weft.identity.card import other_name
from weft.names import CLUSTER_TYPE, CONTROL_PLANE_HOST, ProxyName
from weft.node.remote import trusting_context
from weft.protos import discovery_v3

FRIEND = spiffe("friend")
FORGERIES = wishes(FRIEND, spiffe("other"))
# Envoy looks at no CA flag of a leaf. Who has such a certificate can make itself any that is accepted.
AT_PROXIES = sorted(FORGERIES.keys() - {"an authority itself"})
REFUSED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)

STRICT = (
    SERVICE
    + """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: edge}}
  servers:
  - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ["*"], tls: {{mode: ISTIO_MUTUAL}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routes, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{{directResponse: {{status: 200}}}}]
"""
)


GUARDED = """
---
apiVersion: v1
kind: Service
metadata: {{name: safe, namespace: default}}
spec:
  selector: {{app: safe}}
  ports: [{{name: http, port: 80, targetPort: {app}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: guard, namespace: default}}
spec:
  selector: {{matchLabels: {{app: safe}}}}
  rules:
  - from:
    - source: {{principals: ["*-admin", "*/sa/boss", "root/*"]}}
    - source: {{namespaces: ["bank", "v*t"]}}
    - source: {{serviceAccounts: ["bank/teller"]}}
"""


@dataclass(frozen=True, slots=True)
class Doors:
    """Ports of a sidecar and of a gateway that demand mutual TLS of the mesh."""

    forger: Forger
    roots: str
    ports: dict[str, int]

    def knock(self, where: str, pair: Pair) -> int:
        """The status that who shows this certificate gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.roots)
        context.set_alpn_protocols(["istio-http/1.1", "http/1.1"])
        with pem_file(pair) as path:
            context.load_cert_chain(path)
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[where], timeout=20)
        try:
            connection.connect()
            connection.sock = context.wrap_socket(connection.sock, server_hostname="web")
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with ExitStack() as stack:
        backend = stack.enter_context(serving(HttpBackend("127.0.0.1", 0, "web")))
        app = int(backend.server_address[1])
        outbound, sidecar, gateway, second, safe = free_ports(5)
        of, authority = world((STRICT + GUARDED).format(app=app)), TestAuthority()
        web = sidecar_of("web", app, sidecar, outbound)
        edge = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge", "default"),
            labels=(("istio", "edge"),),
            service_account="edge",
            attachment=ir.Attachment(capture=ir.Capture.NONE),
            port_map=((443, gateway),),
        )
        for identity in (web, edge, sidecar_of("safe", app, safe, second)):
            stack.enter_context(run_compiled(of, identity, authority))
        forger = Forger(authority.key, authority.certificate)
        yield Doors(forger, authority.pem, {"sidecar": sidecar, "gateway": gateway, "safe": safe})


@pytest.mark.parametrize("where", ["sidecar", "gateway"])
class TestProxies:
    def test_a_good_one_is_accepted(self, doors: Doors, where: str) -> None:
        for good in (FRIEND, "spiffe://cluster.local/any/other/path", "spiffe://cluster.local/a.b/..c/..."):
            assert doors.knock(where, doors.forger.make(Wish(names=(uri(good),)))) == 200

    @pytest.mark.parametrize("forgery", AT_PROXIES)
    def test_a_bad_one_is_refused(self, doors: Doors, where: str, forgery: str) -> None:
        with pytest.raises(REFUSED):
            doors.knock(where, doors.forger.make(FORGERIES[forgery]))


class TestPolicies:
    """A principal is compared with the one SPIFFE ID; what else a certificate says is its owner's word."""

    @pytest.mark.parametrize(
        "known", ["spiffe://cluster.local/ns/default/sa/web-admin", "spiffe://cluster.local/ns/bank/sa/x"]
    )
    def test_who_is_meant_comes_in(self, doors: Doors, known: str) -> None:
        assert doors.knock("safe", doors.forger.make(Wish(names=(uri(known),)))) == 200

    @pytest.mark.parametrize(
        "said",
        [
            "web-admin",
            "x/ns/default/sa/boss",
            "root/x",
            "x/ns/bank/sa/teller",
            "/ns/vault/",
            "spiffe://cluster.local/ns/bank/sa/teller",
        ],
    )
    def test_no_other_name_is_taken_for_an_identity(self, doors: Doors, said: str) -> None:
        friend = uri(FRIEND)
        for wish in (
            Wish(names=(friend,)),
            Wish(names=(friend,), subject=said),
            Wish(names=(x509.DNSName(said), friend)),
            Wish(names=(friend, x509.RFC822Name(said))),
            Wish(names=(friend, other_name(said))),
            Wish(names=(friend, other_name(f"weft1/{said}/web-admin/v1/east/boss/v1"))),
        ):
            try:
                assert doors.knock("safe", doors.forger.make(wish)) == 403, wish
            except REFUSED:
                assert "/" in said, wish
                assert x509.DNSName(said) in wish.names, wish


class TestConfiguration:
    """The xDS port: bytes of configuration are for the proxy that the certificate names, and nobody else."""

    METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

    @pytest.fixture
    async def control(self) -> AsyncIterator[xds.Control]:
        control = xds.Control(xds.Authority())
        async with control.running():
            for name in ("app", "other"):
                control.store.publish(node(name), xds.bundle(xds.cluster(f"secret of {name}")), 1)
            yield control

    async def asked(self, control: xds.Control, pair: Pair, who: str) -> discovery_v3.DeltaDiscoveryResponse:
        credentials = grpc.ssl_channel_credentials(
            control.authority.pem, pair.key.encode(), pair.certificate.encode()
        )
        named = (("grpc.ssl_target_name_override", "weft.test"),)
        async with (
            asyncio.timeout(20),
            grpc.aio.secure_channel(f"127.0.0.1:{control.port}", credentials, named) as channel,
        ):
            call = channel.stream_stream(self.METHOD)()
            first = discovery_v3.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE)
            first.node.id = who
            await call.write(first.SerializeToString())
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise PermissionError(await call.code(), await call.details())
            return discovery_v3.DeltaDiscoveryResponse.FromString(answer)

    @pytest.fixture
    def forger(self, control: xds.Control) -> Forger:
        return Forger(control.authority.key, control.authority.certificate)

    async def test_a_good_one_gets_its_own(self, control: xds.Control, forger: Forger) -> None:
        pair = forger.make(Wish(names=(uri(spiffe("default")),)))
        answer = await self.asked(control, pair, node("app"))
        assert [resource.name for resource in answer.resources] == ["secret of app"]

    async def test_no_bad_one_gets_anything(self, control: xds.Control, forger: Forger) -> None:
        for name, wish in wishes(spiffe("default"), spiffe("other")).items():
            try:
                answer = await self.asked(control, forger.make(wish), node("app"))
            except (grpc.RpcError, PermissionError):
                continue
            pytest.fail(f"{name}: {answer}")

    @pytest.mark.parametrize(
        "who",
        [
            "sidecar~127.0.0.1~app.bank~bank.svc.cluster.local",
            "router~127.0.0.1~app.istio-system~istio-system.svc.cluster.local",
            "sidecar~127.0.0.1~app.default/../bank~default.svc.cluster.local",
            "istio-system",
            "",
        ],
    )
    async def test_nobody_gets_what_is_anothers(self, control: xds.Control, forger: Forger, who: str) -> None:
        pair = forger.make(Wish(names=(uri(spiffe("default")),)))
        with pytest.raises((grpc.RpcError, PermissionError)):
            await self.asked(control, pair, who)

    async def test_another_account_gets_nothing(self, control: xds.Control, forger: Forger) -> None:
        pair = forger.make(Wish(names=(uri(spiffe("other")),)))
        with pytest.raises((grpc.RpcError, PermissionError)):
            await self.asked(control, pair, node("app"))


def node(name: str) -> str:
    return f"sidecar~127.0.0.1~{name}.default~default.svc.cluster.local"


class TestApi:
    """The API: an administrator's certificate opens everything, so a false one must open nothing."""

    ADMIN = "spiffe://cluster.local/weft/admin/root"

    @pytest.fixture
    async def control(self, tmp_path: Path) -> AsyncIterator[Plane]:
        async with plane(tmp_path / "control") as running:
            yield running

    async def status(self, control: Plane, pair: Pair) -> int:
        context = trusting_context(control.authority.bundle, key=pair.key, certificate=pair.certificate)
        async with (
            aiohttp.ClientSession() as http,
            http.get(
                f"{control.url}/weft/v1/tokens", ssl=context, server_hostname=CONTROL_PLANE_HOST
            ) as reply,
        ):
            return reply.status

    async def test_only_the_true_one_opens(self, control: Plane) -> None:
        forger = Forger(control.authority.key, control.authority.roots[0])
        assert await self.status(control, forger.make(Wish(names=(uri(self.ADMIN),)))) == 200
        for name, wish in wishes(self.ADMIN, "spiffe://cluster.local/weft/admin/other").items():
            try:
                status = await self.status(control, forger.make(wish))
            except (aiohttp.ClientError, ssl.SSLError, ConnectionError):
                continue
            assert status in {401, 403}, name

    async def test_a_certificate_of_an_identity_is_no_other_identitys(self, control: Plane) -> None:
        forger = Forger(control.authority.key, control.authority.roots[0])
        for other in (
            "spiffe://cluster.local/weft/node/root",
            "spiffe://cluster.local/ns/istio-system/sa/istiod",
            "spiffe://cluster.local/ns/weft/sa/admin",
            "spiffe://cluster.local/weft/admin/root/more",
            "spiffe://cluster.local/weft/administrator/root",
        ):
            assert await self.status(control, forger.make(Wish(names=(uri(other),)))) in {401, 403}, other
