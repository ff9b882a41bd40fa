"""``weft xds`` as a process: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.envoy import validate

PROXY = "sidecar~10.0.0.1~web-0.default"
GOOD = Path(__file__).parents[2] / "golden" / "virtual-service" / "in.yaml"
GATEWAY = Path(__file__).parents[2] / "golden" / "istio-gateway" / "in.yaml"


def _run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weft", "xds", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _dump(*arguments: str, stdin: str = "") -> dict[str, Any]:
    done = _run(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_whole_is_a_config_dump() -> None:
    kinds = [part["@type"].rpartition(".")[2] for part in _dump(str(GOOD), "--proxy", PROXY)["configs"]]
    assert kinds == [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "EndpointsConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ]


def test_parts_may_be_chosen() -> None:
    done = _dump(str(GOOD), "--proxy", PROXY, "--type", "cds", "--type", "eds")
    assert len(done["configs"]) == 2
    (endpoints,) = [
        row["endpoint_config"]
        for row in done["configs"][1]["dynamic_endpoint_configs"]
        if row["endpoint_config"]["cluster_name"].startswith("outbound|9080|v1|")
    ]
    (place,) = endpoints["endpoints"]
    (host,) = place["lb_endpoints"]
    assert host["endpoint"]["address"]["socket_address"] == {"address": "10.0.0.11", "port_value": 9080}


@pytest.mark.parametrize(
    ("file", "proxy", "labels"),
    [
        (GOOD, PROXY, ""),
        (GATEWAY, "router~10.0.0.2~ingress.istio-system", "istio=ingressgateway"),
    ],
    ids=["sidecar", "gateway"],
)
def test_a_static_bootstrap_is_accepted(file: Path, proxy: str, labels: str, tmp_path: Path) -> None:
    made = _dump(str(file), "--proxy", proxy, "--labels", labels, "--static")
    validate(made, tmp_path)
    assert made["static_resources"]["listeners"]


def test_the_same_input_gives_the_same_text() -> None:
    for form in ("--static", "--type=all"):
        first, second = (_run(str(GOOD), "--proxy", PROXY, form) for _ in range(2))
        assert first.returncode == 0
        assert first.stdout == second.stdout


def test_no_secret_is_shown() -> None:
    text = GATEWAY.read_text() + (
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: shop, namespace: istio-system}\n"
        "type: kubernetes.io/tls\nstringData: {tls.crt: CERTIFICATE-TEXT, tls.key: KEY-TEXT}\n"
    )
    router = ("--proxy", "router~10.0.0.2~ingress.istio-system", "--labels", "istio=ingressgateway")
    for form in ((), ("--static",)):
        shown = _run("-", *router, *form, stdin=text)
        assert shown.returncode == 0, shown.stderr
        assert "KEY-TEXT" not in shown.stdout
        assert "kubernetes-gateway://istio-system/shop" in shown.stdout


def test_yaml_is_the_same_content() -> None:
    asked = (str(GOOD), "--proxy", PROXY, "--type", "rds")
    done = _run(*asked, "-o", "yaml")
    assert yaml.safe_load(done.stdout) == _dump(*asked)


def test_a_folder_and_standard_input_are_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mesh.yaml").write_text(GOOD.read_text())
    from_folder = _dump(str(tmp_path), "--proxy", PROXY, "--type", "rds")
    assert from_folder == _dump("-", "--proxy", PROXY, "--type", "rds", stdin=GOOD.read_text())


DECLARED = """
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web, labels: {app: web}}
spec: {serviceAccount: shop, command: [web]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  ingress:
    - {port: {number: 7000, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:7000"}
"""


@pytest.mark.parametrize(("name", "chosen"), [("web-0", True), ("web", True), ("web-x", False)])
def test_a_replica_has_the_labels_of_its_workload(name: str, chosen: bool) -> None:
    done = _run("-", "--proxy", f"sidecar~10.0.0.1~{name}.default", stdin=DECLARED)
    assert done.returncode == 0, done.stderr
    assert ("inbound|7000" in done.stdout) is chosen
    assert ('"SERVICE_ACCOUNT": "shop"' in done.stdout) is chosen


def test_errors_are_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: [{prot: 80}]\n")
    done = _run(str(file), "--proxy", PROXY)
    assert done.returncode == 1
    assert f"{file}:5:" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-file.yaml", "--proxy", PROXY), "no-such-file.yaml"),
        ((str(GOOD), "--proxy", "web-0"), "sidecar~IP~NAME.NAMESPACE"),
        ((str(GOOD), "--proxy", PROXY, "--labels", "app"), "is not a label"),
        ((str(GOOD),), "--proxy"),
        ((str(GOOD), "--proxy", PROXY, "--type", "xyz"), "xyz"),
        (("--proxy", PROXY), "no files are given"),
    ],
)
def test_wrong_use_exits_with_2(arguments: tuple[str, ...], said: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_a_kind_that_weft_does_not_know_is_a_warning() -> None:
    text = GOOD.read_text() + "\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"
    done = _run("-", "--proxy", PROXY, "--type", "rds", stdin=text)
    assert done.returncode == 0
    assert "Deployment" in done.stderr


def test_a_class_of_another_controller_is_served_when_asked_for() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  gatewayClassName: theirs
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""
    router = "router~10.0.0.2~shop.default"
    label = "gateway.networking.k8s.io/gateway-name=shop"
    asked = ("-", "--proxy", router, "--labels", label, "--type", "lds")
    (ignored,) = _dump(*asked, stdin=text)["configs"]
    assert ignored["dynamic_listeners"] == []
    (served,) = _dump(*asked, "--controller-name", "example.com/controller", stdin=text)["configs"]
    assert [row["name"] for row in served["dynamic_listeners"]] == ["0.0.0.0_80"]
