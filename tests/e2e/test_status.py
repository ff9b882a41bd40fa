"""What a running mesh says of its objects, asked with the real kubectl."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.mesh import Mesh, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("kubectl") is None, reason="needs root and kubectl"),
]

EDGE = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: shop}}
spec:
  selector: {{app: echo}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: echo, namespace: shop, labels: {{app: echo}}}}
spec:
  command: [{sys.executable}, -m, weft, echo, --name, echo, --namespace, shop]
  ports: [{{name: http, port: 8080}}]
  readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: weft
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: echo, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: echo, port: 8080}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: twin, namespace: shop}}
spec:
  gatewayClassName: weft
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: elsewhere, namespace: shop}}
spec:
  parentRefs: [{{name: twin}}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: elsewhere.example}}}}]}}]
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    path = tmp_path_factory.mktemp("status") / "edge.yaml"
    path.write_text(EDGE)
    with up(path) as running:
        yield running


def columns(text: str) -> dict[str, dict[str, str]]:
    """Rows of ``kubectl get`` by name."""
    header, *lines = text.splitlines()
    return {line.split()[0]: dict(zip(header.split(), line.split(), strict=True)) for line in lines}


def wait_for(mesh: Mesh, condition: str, what: str) -> None:
    mesh.kubectl("wait", "-n", "shop", f"--for=condition={condition}", what, "--timeout=20s")


def test_what_programmed_promises_holds(mesh: Mesh) -> None:
    wait_for(mesh, "Programmed", "gateways.gateway.networking.k8s.io/edge")
    rows = columns(mesh.kubectl("get", "gateways.gateway.networking.k8s.io", "-n", "shop"))
    assert (rows["edge"]["CLASS"], rows["edge"]["PROGRAMMED"]) == ("weft", "True")
    with socket.create_connection((rows["edge"]["ADDRESS"], mesh.gateway_port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"


def test_gateways_have_the_same_port_at_addresses_of_their_own(mesh: Mesh) -> None:
    wait_for(mesh, "Programmed", "gateways.gateway.networking.k8s.io/twin")
    rows = columns(mesh.kubectl("get", "gateways.gateway.networking.k8s.io", "-n", "shop"))
    for name, status in (("edge", "200"), ("twin", "302")):
        with socket.create_connection((rows[name]["ADDRESS"], mesh.gateway_port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert client.recv(12).decode() == f"HTTP/1.1 {status}"


def test_a_new_listener_is_programmed_again(mesh: Mesh) -> None:
    name = "gateways.gateway.networking.k8s.io/edge"
    two = [{"name": n, "port": port, "protocol": "HTTP"} for n, port in (("http", 80), ("more", 18080))]
    mesh.kubectl("patch", "-n", "shop", name, "--type=merge", "-p", json.dumps({"spec": {"listeners": two}}))

    def observed() -> bool:
        gateway = json.loads(mesh.kubectl("get", "-n", "shop", name, "-o", "json"))
        said = [one for one in gateway["status"]["conditions"] if one["type"] == "Programmed"]
        return (said[0]["observedGeneration"], said[0]["status"]) == (
            gateway["metadata"]["generation"],
            "True",
        )

    wait_until(observed, "the new generation is programmed")


def test_classes_and_routes_are_accepted(mesh: Mesh) -> None:
    rows = columns(mesh.kubectl("get", "gatewayclasses"))
    assert {name: row["ACCEPTED"] for name, row in rows.items()} == {"istio": "True", "weft": "True"}
    wait_until(
        lambda: "parents" in mesh.kubectl("get", "-n", "shop", "httproute/echo", "-o", "json"), "a status"
    )
    route = json.loads(mesh.kubectl("get", "-n", "shop", "httproute/echo", "-o", "json"))
    (parent,) = route["status"]["parents"]
    assert {one["type"]: one["status"] for one in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }


def test_workloads_count_what_is_ready(mesh: Mesh) -> None:
    wait_for(mesh, "Ready", "workload/echo")
    assert columns(mesh.kubectl("get", "workloads", "-n", "shop"))["echo"]["READY"] == "1/1"


def test_the_address_that_a_service_shows_leads_there(mesh: Mesh) -> None:
    address = columns(mesh.kubectl("get", "services", "-n", "shop"))["echo"]["CLUSTER-IP"]
    ask = f"import urllib.request as r; print(r.urlopen('http://{address}:8080/', timeout=10).status)"
    done = subprocess.run(
        ["nsenter", f"--net={mesh.netns('shop/echo-0')}", sys.executable, "-c", ask],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "200", done.stderr


def test_status_makes_no_noise(mesh: Mesh) -> None:
    before = mesh.kubectl("get", "--raw", "/api/v1/namespaces")
    revision = int(json.loads(before)["metadata"]["resourceVersion"])
    mesh.kubectl("annotate", "namespace", "shop", "a=b", "--overwrite")
    after = json.loads(mesh.kubectl("get", "--raw", "/api/v1/namespaces"))["metadata"]["resourceVersion"]
    assert int(after) == revision + 1


def test_every_object_in_the_mesh_has_its_namespace(mesh: Mesh) -> None:
    spaces = set(columns(mesh.kubectl("get", "namespaces")))
    entries = json.loads(mesh.kubectl("get", "workloadentries", "-A", "-o", "json"))["items"]
    assert {entry["metadata"]["namespace"] for entry in entries} <= spaces
