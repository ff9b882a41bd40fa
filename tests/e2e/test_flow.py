"""The way of a request through a running shop, each step shown by what others than weft say of it:
Envoy's access logs and admin interface, the certificates themselves, the application."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import spiffe_client
from tests.support.certificates import TestAuthority
from tests.support.mesh import SHOP, WEFT, Mesh, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

GATEWAY = "istio-system.istio-ingressgateway"
IDENTITY = "spiffe://cluster.local/ns/shop/sa/"
GATEWAY_IDENTITY = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")
PORT = 8080

ECHO = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: shop}}
spec:
  selector: {{app: echo}}
  ports: [{{name: http, port: {PORT}}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: echo, namespace: shop, labels: {{app: echo}}}}
spec:
  command: [{sys.executable}, -m, weft, echo, --name, echo, --namespace, shop]
  ports: [{{name: http, port: {PORT}}}]
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {{name: echo, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: echo}}}}
  concurrency: 1
  environmentVariables: {{ISTIO_META_PURPOSE: echo, LD_PRELOAD: /tmp/of-somebody.so}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: echo, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: echo}}}}
  configPatches:
  - applyTo: BOOTSTRAP
    patch:
      operation: MERGE
      value: {{layered_runtime: {{layers: [{{name: own, static_layer: {{mine: 7}}}}]}}}}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    echo = tmp_path_factory.mktemp("flow") / "echo.yaml"
    echo.write_text(ECHO)
    with up(SHOP / "mesh.yaml", SHOP / "gateway.yaml", echo, "--logs") as mesh:
        yield mesh


def order(shop: Mesh, agent: str) -> None:
    """Buy something at the front door: orders asks users, catalog, inventory and payments in turn."""
    connection = http.client.HTTPConnection("127.0.0.1", shop.gateway_port, timeout=20)
    try:
        body = json.dumps({"user": "ada", "items": {"book-tea": 1}})
        connection.request("POST", "/api/orders", body, {"user-agent": agent})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    finally:
        connection.close()


def one(mesh: Mesh, workload: str, **fields: Any) -> dict[str, Any]:
    """The only line of an access log with these fields; it is written a moment after the answer."""
    lines = wait_until(lambda: mesh.requests(workload, **fields), f"{workload} logs {fields}")
    assert len(lines) == 1
    return lines[0]


def address(shop: Mesh, workload: str) -> str:
    found: str = shop.rows()[workload]["address"]
    return found


def trace_of(line: dict[str, Any]) -> str:
    found = TRACEPARENT.fullmatch(line["traceparent"] or "")
    assert found, line
    return found[1]


def test_a_request_from_the_client_to_the_second_service_and_who_proved_what(shop: Mesh) -> None:
    agent = f"flow-{secrets.token_hex(4)}"  # its own at every try
    order(shop, agent)

    at_gateway = one(shop, GATEWAY, user_agent=agent)
    request_id = at_gateway["request_id"]
    into_orders = one(shop, "shop.orders-v1-0", request_id=request_id, reporter="destination")
    from_orders = one(
        shop, "shop.orders-v1-0", request_id=request_id, reporter="source", authority="payments:8080"
    )
    into_payments = one(shop, "shop.payments-v1-0", request_id=request_id, reporter="destination")

    # client -> gateway: plain, as the shop's Gateway says; gateway -> orders: mutual TLS
    assert at_gateway["downstream_tls_version"] is None
    assert at_gateway["upstream_cluster"] == "outbound|8080||orders.shop.svc.cluster.local"
    assert at_gateway["upstream_host"] == f"{address(shop, 'shop/orders-v1-0')}:{PORT}"
    assert at_gateway["upstream_tls_version"] == "TLSv1.3"
    assert at_gateway["upstream_local_principal"] == GATEWAY_IDENTITY
    assert at_gateway["upstream_peer_principal"] == f"{IDENTITY}orders"

    # the sidecar of orders saw the gateway's certificate, and spoke plainly to its application
    assert into_orders["downstream_tls_version"] == "TLSv1.3"
    assert into_orders["downstream_peer_principal"] == GATEWAY_IDENTITY
    assert into_orders["downstream_local_principal"] == f"{IDENTITY}orders"
    assert into_orders["requested_server_name"] == "outbound_.8080_._.orders.shop.svc.cluster.local"
    assert into_orders["upstream_cluster"] == "inbound|8080||"
    assert into_orders["upstream_tls_version"] is None

    # orders called a name; its sidecar took the plain connection and made it mutual TLS
    assert from_orders["downstream_tls_version"] is None
    assert from_orders["downstream_local_address"].startswith("240.240.")
    assert from_orders["upstream_cluster"] == "outbound|8080||payments.shop.svc.cluster.local"
    assert from_orders["upstream_host"] == f"{address(shop, 'shop/payments-v1-0')}:{PORT}"
    assert from_orders["upstream_tls_version"] == "TLSv1.3"
    assert from_orders["upstream_local_principal"] == f"{IDENTITY}orders"
    assert from_orders["upstream_peer_principal"] == f"{IDENTITY}payments"

    # the sidecar of payments saw the certificate of orders
    assert into_payments["downstream_tls_version"] == "TLSv1.3"
    assert into_payments["downstream_peer_principal"] == f"{IDENTITY}orders"
    assert into_payments["downstream_local_principal"] == f"{IDENTITY}payments"
    assert into_payments["upstream_cluster"] == "inbound|8080||"
    assert into_payments["response_code"] == 200

    # one trace all along
    assert len({trace_of(line) for line in (into_orders, from_orders, into_payments)}) == 1


def test_a_proxy_starts_as_its_namespace_wants(shop: Mesh) -> None:
    assert shop.admin("shop.echo-0", "/server_info")["command_line_options"]["concurrency"] == 1
    assert shop.admin("shop.catalog-v1-0", "/server_info")["command_line_options"]["concurrency"] == 2
    dumps = shop.admin("shop.echo-0", "/config_dump")["configs"]
    bootstrap = next(dump["bootstrap"] for dump in dumps if "bootstrap" in dump)
    assert bootstrap["node"]["metadata"]["PURPOSE"] == "echo"
    assert shop.admin("shop.echo-0", "/runtime")["entries"]["mine"]["final_value"] == "7"
    pid = shop.rows()["shop/echo-0"]["proxyPid"]
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert "ISTIO_META_PURPOSE=echo" in variables
    # Whoever may write a ProxyConfig may not run code of his own beside the keys of others.
    assert not any(variable.startswith("LD_PRELOAD") for variable in variables)


def test_every_envoy_holds_the_certificate_of_its_own_service_account_and_no_other(shop: Mesh) -> None:
    serials = set()
    for row in shop.rows().values():
        certificates = shop.admin(f"{row['namespace']}.{row['name']}", "/certs")["certificates"]
        chains = [chain for one in certificates for chain in one["cert_chain"]]
        names = {name["uri"] for chain in chains[:1] for name in chain["subject_alt_names"]}
        assert names == {f"spiffe://cluster.local/ns/{row['namespace']}/sa/{row['serviceAccount']}"}
        serials |= {one["cert_chain"][0]["serial_number"] for one in certificates if one["cert_chain"]}
        assert any(one["ca_cert"] for one in certificates)
    assert len(serials) == len(shop.rows())


def test_an_application_is_given_the_tracing_headers_and_its_callers_identity(shop: Mesh) -> None:
    reply = shop.weft("call", "--mesh", shop.name, "--from", "front-v1-0.shop", f"http://echo:{PORT}/traced")
    headers = {name.lower(): values for name, values in json.loads(reply)["headers"].items()}
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["x-request-id"][0])
    assert TRACEPARENT.fullmatch(headers["traceparent"][0])
    assert f"URI={IDENTITY}front" in headers["x-forwarded-client-cert"][0]
    assert f"By={IDENTITY}default" in headers["x-forwarded-client-cert"][0]


def test_a_callers_trace_goes_on_and_its_spans_reach_the_control_plane(shop: Mesh) -> None:
    before = shop.metric("weft_spans_received_total")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    reply = shop.weft(
        "call", "--mesh", shop.name, "--from", "front-v1-0.shop", f"http://echo:{PORT}/traced",
        "-H", f"traceparent: 00-{trace}-{parent}-01", "-H", "x-request-id: mine-1",
    )  # fmt: skip
    headers = {name.lower(): values for name, values in json.loads(reply)["headers"].items()}
    found = TRACEPARENT.fullmatch(headers["traceparent"][0])
    assert found is not None
    assert (found[1], found[3]) == (trace, "01")
    assert found[2] != parent, "the sidecars' spans lie between"
    assert headers["x-request-id"] == ["mine-1"]
    # One span by each of the two sidecars; Envoy sends them every five seconds.
    wait_until(lambda: shop.metric("weft_spans_received_total") >= before + 2, "two spans arrived")


def test_an_application_fetches_its_identity_and_no_others(shop: Mesh) -> None:
    def fetch(*prefix: str) -> dict[str, Any]:
        asked = {"raw": "/SpiffeWorkloadAPI/FetchX509SVID", "metadata": [["workload.spiffe.io", "true"]]}
        done = subprocess.run(
            [*prefix, sys.executable, spiffe_client.__file__, str(shop.runtime / "workload.sock")],
            input='{"x509": true}\n' if prefix else json.dumps(asked) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    for name in ("catalog", "orders"):
        within = ("nsenter", f"--net={shop.netns(f'shop/{name}-v1-0')}")
        assert fetch(*within)["id"] == f"spiffe://cluster.local/ns/shop/sa/{name}"
    assert fetch()["code"] == "PERMISSION_DENIED"


def test_a_plaintext_caller_without_a_sidecar_is_refused(shop: Mesh) -> None:
    assert _reached(address(shop, "shop/payments-v1-0"), PORT) == b""
    # It is no matter of routes or readiness: with a sidecar the same address answers.
    reply = shop.weft(
        "call", "--mesh", shop.name, "--from", "orders-v1-0.shop", f"http://payments:{PORT}/charges"
    )
    assert "cents" in json.loads(reply)


def _reached(where: str, port: int) -> bytes:
    """What a plain request to an address and port is answered; empty when it is refused or cut off."""
    try:
        with socket.create_connection((where, port), timeout=5) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET /charges HTTP/1.1\r\nhost: payments\r\n\r\n")
            return plain.recv(100)
    except OSError:
        return b""


# The way out, the way in, DNS, a port that nobody declared, and Envoy's default for its admin interface.
@pytest.mark.parametrize("port", [15001, 15006, 15053, 9999, 15000])
def test_a_sidecars_own_ports_lead_a_stranger_nowhere(shop: Mesh, port: int) -> None:
    assert _reached(address(shop, "shop/payments-v1-0"), port) == b""


def test_private_sockets_are_closed_to_other_users(shop: Mesh) -> None:
    sockets = sorted(path for path in shop.runtime.rglob("*.sock") if path.is_socket())
    assert any(path.name == "admin.sock" for path in sockets)
    ask = (
        "import os,socket,sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path)\n"
        "    except PermissionError: continue\n"
        "    print(path)"
    )
    command = [sys.executable, "-ISc", ask, *map(str, sockets)]
    reached = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    # What everybody may connect to asks the kernel who it is.
    assert {Path(path).name for path in reached} <= {"node.sock", "workload.sock"}


@pytest.mark.parametrize("certificate", ["none", "of another authority"])
def test_a_caller_who_cannot_prove_who_it_is_is_refused(shop: Mesh, certificate: str, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["istio"])
    if certificate != "none":
        pair = TestAuthority().issue(f"{IDENTITY}orders")
        (tmp_path / "pair.pem").write_text(pair.certificate + pair.key)
        context.load_cert_chain(tmp_path / "pair.pem")
    sni = f"outbound_.{PORT}_._.payments.shop.svc.cluster.local"
    # In TLS 1.3 the client hears of the refusal with its first read.
    answer = b""
    with (
        socket.create_connection((address(shop, "shop/payments-v1-0"), PORT), timeout=5) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname=sni) as caller,
    ):
        caller.sendall(b"GET /charges HTTP/1.1\r\nhost: payments\r\n\r\n")
        answer = caller.recv(100)
    assert answer == b""


def test_kubectl_and_the_commands_show_the_running_mesh(shop: Mesh) -> None:
    names = set(shop.kubectl("get", "workloads", "-n", "shop", "-o", "name").split())
    assert {"workload.weft.dev/orders-v1", "workload.weft.dev/echo"} <= names
    assert shop.kubectl("get", "service", "payments", "-n", "shop", "-o", "name") == "service/payments\n"
    entries = shop.kubectl("get", "workloadentries", "-n", "shop", "-o", "json")
    addresses = {entry["spec"]["address"] for entry in json.loads(entries)["items"]}
    assert address(shop, "shop/orders-v1-0") in addresses

    rows = json.loads(shop.weft("proxy", "status", "-o", "json"))
    assert {f"{row['namespace']}/{row['name']}" for row in rows} == set(shop.rows())
    for row in rows:
        states = {kind: state["status"] for kind, state in row["types"].items()}
        assert set(states.values()) <= {"SYNCED", "NOT SENT"}, states
        assert states["cds"] == states["lds"] == "SYNCED"

    assert all(row["ready"] and row["state"] == "running" for row in shop.rows().values())
    assert "orders v1 listens on 8080" in shop.weft("logs", "--mesh", shop.name, "orders-v1-0.shop")
    shop.output.wait_for(r"^orders-v1-0 \| orders v1 listens on 8080$", 10)  # up --logs
    assert "virtualservice" in shop.weft("get", "virtualservice", "-n", "shop", "-o", "name")


def test_the_answer_of_call_says_who_answered(shop: Mesh) -> None:
    done = json.loads(
        shop.weft(
            "call", "--mesh", shop.name, "--from", "front-v1-0.shop", f"http://recommendations:{PORT}/healthz",
            "--count", "20", "-o", "json",
        )
    )  # fmt: skip
    assert done["summary"]["statuses"] == {"200": 20}
    assert set(done["summary"]["answeredBy"]) == {"recommendations-v1-0", "recommendations-v2-0"}


def test_explain_follows_a_request_and_says_where_the_next_one_would_go(shop: Mesh) -> None:
    agent = f"explain-{secrets.token_hex(4)}"
    order(shop, agent)
    request_id = one(shop, GATEWAY, user_agent=agent)["request_id"]
    one(shop, "shop.orders-v1-0", request_id=request_id, reporter="destination")

    hops = json.loads(shop.weft("explain", request_id, "-o", "json"))["hops"]
    assert (hops[0]["proxy"].partition("/")[0], hops[0]["direction"]) == (
        GATEWAY.partition(".")[0],
        "outbound",
    )
    assert hops[0]["route"]["kind"] == "VirtualService"
    assert hops[0]["service"] == "orders.shop.svc.cluster.local"
    (into_orders,) = (h for h in hops if (h["proxy"], h["direction"]) == ("shop/orders-v1-0", "inbound"))
    assert (into_orders["cluster"], into_orders["peer"]) == ("inbound|8080||", GATEWAY_IDENTITY)
    (asked,) = (h for h in hops if h["authority"] == "payments:8080" and h["direction"] == "outbound")
    assert asked["virtualHost"] == "payments.shop.svc.cluster.local:8080"

    url = f"http://payments:{PORT}/charge"
    told = json.loads(shop.weft("explain", "--live", "--from", "workload:shop/orders-v1", url))
    assert (told["action"], told["status"], told["virtualHost"]) == ("forward", 200, asked["virtualHost"])
    (target,) = told["upstream"]["destinations"]
    assert (target["cluster"], target["service"], told["upstream"]["tls"]) == (
        asked["cluster"], "payments", "mtls",
    )  # fmt: skip
    there = told["arrivals"][0]
    assert (told["delivered"], there["endpoints"][0]["workload"]) == ("all", "shop/payments-v1-0"), there
    assert there["answer"]["authn"]["peer"].endswith("/sa/orders")
    assert there["answer"]["listener"] == "virtualInbound"

    door = "http://localhost/api/orders"  # asked by the Gateway, answered by the proxy that it selects
    told = json.loads(shop.weft("explain", "--live", "--from", "gateway:shop/shop", door))
    assert (told["action"], told["route"]["name"]) == ("forward", "shop"), told


def asked(shop: Mesh, *argv: str) -> Any:
    return json.loads(shop.weft(*argv, "-o", "json"))


def send(shop: Mesh, url: str, count: int, source: str = "front") -> None:
    workload = f"{source}-v1-0.shop"
    done = asked(shop, "call", "--mesh", shop.name, "--from", workload, url, "--count", str(count))
    assert done["summary"]["statuses"] == {"200": count}


def share(shop: Mesh) -> str:
    """What the sidecar of echo was told to tell to those who watch."""
    entries = shop.admin("shop.echo-0", "/runtime")["entries"]
    return str(entries.get("weft.tap.share", {}).get("final_value", ""))


@contextlib.contextmanager
def tapping(shop: Mesh, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """``weft tap`` on echo, once its sidecar tells."""
    process = subprocess.Popen(
        [*WEFT, "tap", "echo", "-n", "shop", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "WEFT_SERVER": str(shop.runtime / "api.sock")},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watching shop/echo")
        assert share(shop) == "1000000"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_watched_requests_are_all_shown_and_the_proxy_is_put_back(shop: Mesh) -> None:
    mark = f"/seen-{secrets.token_hex(4)}"
    with tapping(shop, "--path", mark, "--count", "25", "-o", "json") as process:
        send(shop, f"http://echo:{PORT}{mark}/%1b%5b31m", 25)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert len({record["requestId"] for record in records}) == 25
    for record in records:
        assert (record["source"], record["tls"], record["code"]) == (f"{IDENTITY}front", "mtls", 200)
    wait_until(lambda: share(shop) == "", "the share is put back")

    with tapping(shop, "--path", mark) as process:
        send(shop, f"http://echo:{PORT}{mark}/%1b%5b31m?secret=1", 1)
        assert process.stdout is not None
        line = process.stdout.readline().rstrip("\n")
        assert f"GET {mark}/%1b%5b31m  shop/front-v1 -> shop/echo-0  mtls" in line
        assert line.isprintable()
        process.kill()
        process.wait()
        wait_until(lambda: share(shop) == "", "the share is put back after a kill")


def test_counts_callers_and_versions(shop: Mesh) -> None:
    # Nothing else here calls echo as this one.
    send(shop, f"http://echo:{PORT}/counted", 37, "payments")
    send(shop, f"http://recommendations:{PORT}/healthz", 120)

    def counted() -> float:
        rows = asked(shop, "stat", "svc/echo", "-n", "shop", "--by", "caller", "--window", "1h")["rows"]
        return float(sum(row["requests"] for row in rows if row["key"] == "shop/payments-v1"))

    wait_until(lambda: counted() >= 37, "the counts", 60)
    assert counted() == 37
    edges = asked(shop, "edges", "echo", "-n", "shop", "--window", "1h")["edges"]
    (edge,) = [one for one in edges if one["source"]["workload"] == "payments-v1"]
    assert (edge["source"]["principal"], edge["secured"]) == (f"{IDENTITY}payments", True)
    graph = asked(shop, "graph", "--window", "1h")
    assert ("shop/payments-v1", "shop/echo") in {(one["from"], one["to"]) for one in graph["edges"]}
    drawn = shop.weft("graph", "-o", "dot", "--window", "1h")
    assert '"workload:shop/payments-v1" -> "workload:shop/echo"' in drawn

    def compared() -> Any:
        done = shop.run(
            "compare", "recommendations", "v1", "v2", "--window", "1h", "-o", "json", "--fail-on-regression"
        )
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert done.returncode == int(found["regression"]), done.stderr
        enough = min(found[name]["requests"] for name in ("baseline", "candidate")) >= 30
        return found if enough else None

    success, latency = wait_until(compared, "enough requests", 60)["findings"]
    assert (success["about"], success["verdict"]) == ("success", "same")
    assert latency["verdict"] in {"same", "worse", "better"}
    assert 0 <= latency["p"] <= 1
    assert shop.run("compare", "v1", "v2", "--window", "1h").returncode == 0  # only one service has both
    missing = shop.run("compare", "recommendations", "v1", "v3", "--window", "1h")
    assert missing.returncode == 1
    assert "it has v1, v2" in missing.stderr or "did you mean" in missing.stderr


def test_what_had_no_traffic_yet_is_known(shop: Mesh, tmp_path: Path) -> None:
    quiet = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "quiet", "namespace": "shop"},
             "spec": {"ports": [{"name": "http", "port": 80}]}}  # fmt: skip
    (tmp_path / "quiet.json").write_text(json.dumps(quiet))
    shop.weft("apply", str(tmp_path / "quiet.json"))
    assert "no traffic of quiet" in shop.weft("stat", "quiet")
    wrong = shop.run("stat", "quite")
    assert (wrong.returncode, "did you mean 'quiet'?" in wrong.stderr) == (1, True), wrong.stderr


def test_a_trace_is_one_tree_over_gateway_and_services(shop: Mesh) -> None:
    agent = f"trace-{secrets.token_hex(4)}"
    order(shop, agent)
    trace = trace_of(one(shop, GATEWAY, user_agent=agent))

    def spans() -> list[dict[str, Any]]:
        done = shop.run("trace", trace, "-o", "json")
        found = json.loads(done.stdout)["spans"] if done.returncode == 0 else []
        # Each proxy tells its own when it likes to.
        served = {span["service"] for span in found if span["kind"] == "server"}
        whole = served >= {"orders", "users", "catalog", "inventory", "payments", "notifications"}
        return found if whole and not any(span["orphan"] for span in found) else []

    found = wait_until(spans, "the spans", 60)
    assert (found[0]["service"], found[0]["depth"]) == ("istio-ingressgateway", 0)
    assert [span["depth"] for span in found].count(0) == 1
    above: list[dict[str, Any]] = []
    for span in found:
        above = above[: span["depth"]]
        if above:
            assert span["parentId"] == above[-1]["spanId"]
            # What is inside of another lasts no longer; clocks are one on this machine.
            assert span["duration"] <= above[-1]["duration"]
        above.append(span)
    order_of = {span["spanId"]: span for span in found}
    for service in ("users", "catalog", "inventory", "payments"):
        (served,) = [one for one in found if (one["service"], one["kind"]) == (service, "server")]
        caller = order_of[served["parentId"]]
        assert (caller["service"], caller["kind"]) == ("orders", "client")
    text = shop.weft("trace", trace).splitlines()
    assert len(text) == len(found) + 1
    assert all(line.isprintable() for line in text)
    assert trace in shop.weft("trace", "--service", "payments", "--limit", "500")
