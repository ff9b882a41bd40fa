"""Three hosts, real processes: discovery, identity and survival across them.

The control plane runs on host a. The tests share one mesh and run in this order; each leaves it whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.support.certificates import Pair, TestAuthority
from tests.support.cluster import Cluster, Machine, Member, cluster
from tests.support.mesh import WEFT, leftovers, wait_until

from weft.node.capture.cgroup import Hierarchy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

WEB, API = 8080, 8081
ALL = {"10.77.0.1", "10.77.0.2", "10.77.0.3"}
VIRTUAL = "240.240.0.0/16"
PRINCIPAL = "spiffe://cluster.local/ns/shop/sa/"

# "near" and "far" are the same workloads, chosen by where they run.
MESH = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {accessLogFile: /dev/stdout, accessLogEncoding: JSON}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {selector: {place: near}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec: {selector: {place: far}, ports: [{name: http, port: 8080}]}
"""

LATE = """
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec: {selector: {place: near}, ports: [{name: http, port: 8080}]}
"""


class Shop:
    """The mesh, with ``web`` on each host and ``api``, which calls it, on two."""

    def __init__(self, mesh: Cluster) -> None:
        self.mesh = mesh
        mesh.apply(MESH)
        self.web = {
            name: mesh.run(name, f"web-{name}", WEB, service="web", labels=[f"place={place}"])
            for name, place in (("a", "near"), ("b", "near"), ("c", "far"))
        }
        self.api = {name: mesh.run(name, f"api-{name}", API, service="api") for name in ("a", "c")}
        for member in self.members:
            member.wait_ready()

    @property
    def members(self) -> list[Member]:
        """All that run."""
        return [*self.web.values(), *self.api.values()]

    def wait_endpoints(self, machine: str, want: set[str]) -> None:
        """Until the sidecar of ``api`` on a machine knows just these addresses of ``web``."""
        asked = self.api[machine].id
        wait_until(
            lambda: self.mesh.endpoints(machine, asked, "web") == want, f"{asked} has {want} for web", 30
        )


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with cluster(["a", "b", "c"]) as mesh:
        shop = Shop(mesh)
        for machine in ("a", "c"):
            shop.wait_endpoints(machine, ALL)
        yield shop


def logged(machine: Machine, workload: str, **fields: Any) -> list[dict[str, Any]]:
    """Lines of an access log, which is written a moment after the answer."""
    return wait_until(lambda: machine.requests(workload, **fields), f"{workload} logs {fields}", 20)


def configuration(shop: Shop) -> dict[str, dict[str, int]]:
    """How often each sidecar took configuration in."""
    names = "(cds|lds|rds).*(update_success|update_rejected|config_reload)$|^cluster.outbound.*update_success"
    return {member.id: member.machine.stats(member.id, names) for member in shop.members}


def connected(shop: Shop) -> bool:
    """Whether every sidecar has its stream to the control plane."""
    return all(
        member.machine.stats(member.id, "connected_state")["control_plane.connected_state"] == 1
        for member in shop.members
    )


def test_names_are_known_on_every_host(shop: Shop) -> None:
    found = [
        shop.web[machine].resolve(name)
        for machine in ("a", "b", "c")
        for name in ("web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local")
    ]
    assert len(found[0]) == 1
    assert found[0][0].startswith("240.240.")
    assert found == [found[0]] * 12
    for host in ("web", "web.shop", "web.shop.svc.cluster.local", found[0][0]):
        status, body = shop.api["c"].get(f"http://{host}:{WEB}/by-{host}")
        assert status == 200
        assert body in {"web-a", "web-b", "web-c"}
    assert shop.web["a"].resolve("nothing.shop") == []


def test_both_sides_log_who_the_other_was(shop: Shop) -> None:
    bodies = {shop.api["a"].get(f"http://web.shop:{WEB}/who")[1] for _ in range(30)}
    assert bodies == {"web-a", "web-b", "web-c"}
    sent = logged(shop.mesh["a"], "shop/api-a", path="/who", reporter="source")
    assert {line["upstream_peer_principal"] for line in sent} == {f"{PRINCIPAL}web"}
    assert {line["upstream_local_principal"] for line in sent} == {f"{PRINCIPAL}api"}
    assert {line["requested_server_name"] for line in sent} == {None}
    for name, member in shop.web.items():
        got = logged(shop.mesh[name], member.id, path="/who", reporter="destination")
        assert {line["downstream_peer_principal"] for line in got} == {f"{PRINCIPAL}api"}
        assert {line["downstream_local_principal"] for line in got} == {f"{PRINCIPAL}web"}
        assert {line["downstream_tls_version"] for line in got} == {"TLSv1.3"}


def test_who_is_refused(shop: Shop) -> None:
    mesh = shop.mesh
    b, c = mesh["b"], mesh["c"]
    assert shop.api["c"].dial("web.shop", WEB).startswith("HTTP/1.1 200")
    # From outside the mesh: on another host, on the workload's own host, by its address and by loopback.
    assert c.outside("dial", b.address, str(WEB)) == ""
    assert b.outside("dial", b.address, str(WEB)) == ""
    assert b.outside("dial", "127.0.0.1", str(WEB)) == ""
    # One workload's way out is not another's, nor anybody's.
    ways = {
        member.id: json.loads(
            member.machine.runtime.joinpath(
                "workloads", member.id.replace("/", "."), "bootstrap.json"
            ).read_text()
        )["node"]["metadata"]["WEFT"]["outboundPort"]
        for member in (shop.web["a"], shop.api["a"])
    }
    assert shop.api["a"].dial("127.0.0.1", ways["shop/web-a"]) == ""
    assert mesh["a"].outside("dial", "127.0.0.1", str(ways["shop/web-a"])) == ""
    assert len(set(ways.values())) == 2


def test_explain_goes_on_to_the_other_host(shop: Shop) -> None:
    first = shop.mesh.first
    door = ("--from", f"workload:{shop.api['a'].id}", f"http://web.shop:{WEB}/", "-o", "json")
    told = json.loads(first.weft("explain", "--live", *door))
    ends = [end for arrival in told["arrivals"] for end in arrival["endpoints"]]
    assert {end["workload"] for end in ends} == {member.id for member in shop.web.values()}
    assert told["delivered"] == "all", told["arrivals"]
    assert {arrival["answer"]["authn"]["peer"] for arrival in told["arrivals"]} == {f"{PRINCIPAL}api"}


def test_prometheus_finds_every_host_and_has_to_show_a_token(shop: Shop, tmp_path: Path) -> None:
    first, root = shop.mesh.first, tmp_path / "root.pem"
    root.write_text(first.weft("ca", "export"))
    create = ("user", "create", "prometheus", "--for", "monitoring")
    token, narrow = (first.weft(*create, *more).strip() for more in (("--group", "system:monitoring"), ()))

    def fetch(name: str, address: str, path: str, token: str = "") -> tuple[str, str]:
        """As Prometheus does: a name is verified that is not the address."""
        host, _, port = address.rpartition(":")
        shown = ("-H", f"authorization: Bearer {token}") if token else ()
        text = first.host.run(
            "curl", "-sS", "--cacert", str(root), *shown, "-w", "\n%{http_code}", "--connect-to",
            f"{name}:{port}:{host}:{port}", f"https://{name}:{port}{path}",
        )  # fmt: skip
        body, _, status = text.rpartition("\n")
        return status, body

    listed = fetch("istiod.istio-system.svc", f"{first.address}:15014", "/sd?role=node", token)[1]
    targets = {one["labels"]["node"]: one["targets"][0] for one in json.loads(listed)}
    assert targets == {name: f"{shop.mesh[name].address}:15020" for name in ("a", "b", "c")}
    for name, target in targets.items():
        status, page = fetch("weft-node.istio-system.svc", target, "/metrics", token)
        assert status == "200"
        assert f'weft_node_workload_ready{{namespace="shop",pod="web-{name}"}} 1\n' in page
        assert f'container_memory_rss{{namespace="shop",pod="web-{name}",container="web-{name}"}}' in page
        assert f'container_memory_rss{{namespace="shop",pod="web-{name}",container="weft-run"}}' in page
    for refused in ("", narrow, f"{token[:-1]}-"):
        assert fetch("weft-node.istio-system.svc", targets["b"], "/metrics", refused)[0] == "401"


def test_the_control_plane_is_killed_under_load(shop: Shop) -> None:
    mesh = shop.mesh
    before = configuration(shop)
    with (
        shop.api["a"].load(f"http://web.shop:{WEB}/load") as near,
        shop.api["c"].load(f"http://web.shop:{WEB}/load") as far,
    ):
        mesh.kill_plane()
        wait_until(
            lambda: all(
                member.machine.stats(member.id, "connected_state")["control_plane.connected_state"] == 0
                for member in shop.members
            ),
            "every sidecar has lost its stream",
        )
        assert shop.api["a"].machine.status()["controlPlane"]["connected"] is False  # type: ignore[index]
        assert shop.web["b"].resolve("api.shop") != []
        mesh.start_plane()
        wait_until(lambda: connected(shop), "every sidecar has a stream again", 30)
        wait_until(
            lambda: all(m.status()["controlPlane"]["connected"] for m in mesh.machines.values()),  # type: ignore[index]
            "every node has its session again",
        )
        pushes = {
            line
            for line in mesh.metrics()
            if line.startswith("pilot_xds_pushes{") and not line.endswith(" 0.0")
        }
    for outcome in (near, far):
        assert outcome["failed"] == []
        assert outcome["sent"] > 100
        assert set(outcome["by"]) == {"web-a", "web-b", "web-c"}
    assert pushes == set()
    assert configuration(shop) == before
    answer = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: far, namespace: shop}
spec: {hosts: [far], http: [{directResponse: {status: 299}}]}
"""
    mesh.apply(answer, "--wait")
    assert shop.api["a"].get(f"http://far:{WEB}/")[0] == 299
    mesh.first.weft("delete", "vs/far", "-n", "shop")
    wait_until(lambda: shop.api["a"].get(f"http://far:{WEB}/") == (200, "web-c"), "the rule is gone")


def test_a_host_is_cut_off_and_comes_back(shop: Shop) -> None:
    mesh, c = shop.mesh, shop.mesh["c"]
    with (
        shop.api["a"].load(f"http://near.shop:{WEB}/elsewhere") as elsewhere,
        shop.api["c"].load(f"http://far.shop:{WEB}/inside") as inside,
    ):
        c.host.partition()
        try:
            shop.wait_endpoints("a", ALL - {c.address})
            # Its own sidecars keep what they had, and its names.
            assert mesh.endpoints("c", "shop/api-c", "web") == ALL
            assert shop.web["c"].resolve("web.shop") != []
            bodies = {shop.api["a"].get(f"http://web.shop:{WEB}/")[1] for _ in range(10)}
            assert bodies == {"web-a", "web-b"}
            mesh.apply(LATE)
        finally:
            c.host.heal()
        wait_until(lambda: shop.web["c"].resolve("late.shop"), "the new name has arrived", 30)
        wait_until(lambda: shop.api["c"].get(f"http://late:{WEB}/")[0] == 200, "and its configuration", 30)
        shop.wait_endpoints("a", ALL)
    for outcome, by in ((elsewhere, {"web-a", "web-b"}), (inside, {"web-c"})):
        assert outcome["failed"] == []
        assert outcome["sent"] > 100
        assert set(outcome["by"]) == by


def test_a_node_agent_is_killed_and_its_successor_adopts(shop: Shop) -> None:
    b = shop.mesh["b"]
    before = b.rows()["shop/web-b"]
    dns = b.status()["dns"]["pid"]  # type: ignore[index]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with shop.api["a"].load(f"http://web.shop:{WEB}/agent") as outcome:
            assert b.node is not None
            b.node.send_signal(number)
            b.node.wait()
            if number is signal.SIGKILL:
                # Nobody comes for a whole lease: its workload leaves the others' endpoints.
                shop.wait_endpoints("a", ALL - {b.address})
            assert shop.web["b"].get(f"http://api.shop:{API}/")[0] == 200
            assert shop.web["b"].resolve("api.shop") != []
            b.start_node()
            wait_until(
                lambda: (row := b.rows()["shop/web-b"])["ready"] and row["pid"] == before["pid"],
                "it is ready again, and its wrapper has found the new agent",
            )
            shop.wait_endpoints("a", ALL)
        assert outcome["failed"] == []
        after = b.rows()["shop/web-b"]
        assert {key: after[key] for key in ("pid", "proxyPid", "ports", "address")} == {
            key: before[key] for key in ("pid", "proxyPid", "ports", "address")
        }
        assert b.status()["dns"]["pid"] == dns  # type: ignore[index]
    assert shop.web["b"].process.poll() is None


def test_run_passes_streams_exit_codes_and_signals(shop: Shop) -> None:
    b = shop.mesh["b"]
    run = ("run", "--mesh", b.mesh, "--namespace", "shop", "-q", "--name", "once")
    assert b.weft(*run, "--", "tr", "a-z", "A-Z", stdin="through\n") == "THROUGH\n"
    b.weft(*run, "--", "sh", "-c", "exit 7", code=7)
    process = b.host.popen(
        *WEFT, *run, "--", "sh", "-c", "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.read() == "asked\n"
        assert process.wait(30) == 5
    wait_until(lambda: set(b.rows()) == {"shop/web-b"}, "nothing of them is left")


EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example.com]
    tls: {mode: SIMPLE, credentialName: edge}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: web, port: {number: 8080}}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: weft
  listeners:
  - name: https
    port: 8443
    protocol: HTTPS
    hostname: api.example.com
    tls: {certificateRefs: [{name: api, namespace: vault}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 8080}]}]
"""
GRANT = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: edge, namespace: vault}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}]
  to: [{group: "", kind: Secret, name: api}]
"""


def secret(name: str, namespace: str, pair: Pair) -> str:
    """A TLS Secret in YAML, which JSON is."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key},
        }
    )


def secrets_of(machine: Machine, workload: str) -> set[str]:
    """Names of the secrets that an Envoy got from the control plane."""
    dump = json.loads(machine.admin(workload, "/config_dump?resource=dynamic_active_secrets"))
    return {one["name"] for one in dump.get("configs", ()) if one["name"].startswith("kubernetes-gateway:")}


def test_a_gateway_ends_tls_with_the_secrets_it_may_have(shop: Shop, tmp_path: Path) -> None:
    mesh, b, c = shop.mesh, shop.mesh["b"], shop.mesh["c"]
    authority = TestAuthority()
    roots = tmp_path / "roots.pem"
    roots.write_text(authority.pem)

    def dial(port: int, host: str) -> str:
        return c.outside("tls", b.address, str(port), host, str(roots))

    first, second, api = (authority.issue(f"{name}.example.com") for name in ("shop", "shop", "api"))
    mesh.apply(EDGE)
    mesh.apply(secret("edge", "shop", first))
    mesh.apply(secret("api", "vault", api))
    ports = ("--port-map", "443=18443", "--port-map", "8443=18444")
    gateway = b.start("gateway", "gateway", "edge", "-n", "shop", "--mesh", b.mesh, *ports)
    b.wait_started(gateway, "gateway", lambda: bool(b.rows().get("shop/edge", {}).get("ready")))
    mine = f"{serial(first)} 200 "
    wait_until(lambda: dial(18443, "shop.example.com").startswith(mine), "it serves TLS")
    answered = dial(18443, "shop.example.com").removeprefix(mine)
    assert secrets_of(b, "shop/edge") == {"kubernetes-gateway://shop/edge"}

    # A certificate of another namespace: refused, until that namespace grants it.
    assert "Refused" in dial(18444, "api.example.com")
    mesh.apply(GRANT, "--wait")
    wait_until(lambda: dial(18444, "api.example.com").startswith(f"{serial(api)} 200 "), "the grant counts")

    # A new certificate is shown at once; no sidecar ever gets one.
    mesh.apply(secret("edge", "shop", second))
    wait_until(lambda: dial(18443, "shop.example.com").startswith(f"{serial(second)} 200 "), "it is replaced")
    for member in shop.members:
        assert secrets_of(member.machine, member.id) == set()
    web = next(member for member in shop.web.values() if member.name == answered)
    called = logged(web.machine, web.id, authority="shop.example.com", reporter="destination")
    assert {line["downstream_peer_principal"] for line in called} == {f"{PRINCIPAL}edge"}

    gateway.terminate()
    assert gateway.wait(30) == 0
    assert "shop/edge" not in b.rows()


def serial(pair: Pair) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(pair.certificate.encode()).serial_number


def test_a_new_version_is_rolled_out_under_load(shop: Shop) -> None:
    mesh = shop.mesh
    with shop.api["a"].load(f"http://web.shop:{WEB}/v1", 4) as outcome:
        for name, port in (("b", 8090), ("c", 8090)):
            new = mesh.run(name, f"web-{name}2", port, service="web", labels=["version=v2"], latency_s=0.05)
            new.wait_ready()
            old = shop.web[name]
            old.process.terminate()
            assert old.process.wait(40) in {128 + signal.SIGTERM, -signal.SIGTERM}, mesh[name].tail(old.name)
            assert old.id not in mesh[name].rows()
            shop.web[name] = new
        wait_until(
            lambda: shop.api["c"].get(f"http://web.shop:{WEB}/")[1] == "web-c2", "the new one is called"
        )
    assert outcome["failed"] == []
    assert set(outcome["by"]) == {"web-a", "web-b", "web-c", "web-b2", "web-c2"}


def test_what_a_crash_leaves_is_cleaned_away(shop: Shop) -> None:
    c = shop.mesh["c"]
    found = leftovers(c.mesh)
    assert any("run/weft" in one for one in found)
    rules = c.host.run("nft", "list", "tables")
    assert f"weft-{c.mesh}" in rules
    mine = [child for child in c.children if child.poll() is None]
    for child in mine:
        child.kill()
        child.wait()
    c.weft("clean", "--mesh", c.mesh)
    assert leftovers(c.mesh) == []
    assert c.host.run("nft", "list", "tables") == ""
    assert VIRTUAL not in c.host.run("ip", "route", "show", "table", "all")
    # The others notice, and go on.
    shop.wait_endpoints("a", ALL - {c.address})
    assert shop.api["a"].get(f"http://web.shop:{WEB}/")[0] == 200
