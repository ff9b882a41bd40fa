"""The real kubectl and the Kubernetes client library from PyPI against store and API in a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.api_server import api_server

from weft.model.catalog import KINDS, KindRow

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl 1.28 or later on PATH")

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

# One small valid object of every kind: what follows meta data.
EXAMPLES: dict[str, dict[str, Any]] = {
    "/Namespace": {},
    "/Service": {"spec": {"ports": [{"name": "http", "port": 80}], "selector": {"app": "a"}}},
    "/ServiceAccount": {},
    "/Secret": {"type": "Opaque", "data": {"password": "aHVudGVyMg=="}},
    "/ConfigMap": {"data": {"key": "value"}},
    "/Endpoints": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    "discovery.k8s.io/EndpointSlice": {
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
    },
    "rbac.authorization.k8s.io/Role": {
        "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["get"]}]
    },
    "rbac.authorization.k8s.io/ClusterRole": {
        "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    },
    "rbac.authorization.k8s.io/RoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    },
    "rbac.authorization.k8s.io/ClusterRoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}],
    },
    "networking.istio.io/VirtualService": {
        "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}
    },
    "networking.istio.io/DestinationRule": {"spec": {"host": "a"}},
    "networking.istio.io/Gateway": {
        "spec": {"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}
    },
    "networking.istio.io/ServiceEntry": {
        "spec": {
            "hosts": ["example.com"], "resolution": "DNS",
            "ports": [{"number": 443, "name": "https", "protocol": "TLS"}],
        }
    },
    "networking.istio.io/WorkloadEntry": {"spec": {"address": "10.0.0.1"}},
    "networking.istio.io/WorkloadGroup": {"spec": {"template": {"serviceAccount": "a"}}},
    "networking.istio.io/Sidecar": {"spec": {"egress": [{"hosts": ["./*"]}]}},
    "networking.istio.io/ProxyConfig": {"spec": {"concurrency": 1}},
    "networking.istio.io/EnvoyFilter": {"spec": {}},
    "security.istio.io/PeerAuthentication": {"spec": {"mtls": {"mode": "STRICT"}}},
    "security.istio.io/AuthorizationPolicy": {"spec": {"action": "ALLOW"}},
    "security.istio.io/RequestAuthentication": {"spec": {}},
    "telemetry.istio.io/Telemetry": {"spec": {}},
    "gateway.networking.k8s.io/GatewayClass": {"spec": {"controllerName": "weft.dev/gateway-controller"}},
    "gateway.networking.k8s.io/Gateway": {
        "spec": {
            "gatewayClassName": "weft", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        }
    },
    "gateway.networking.k8s.io/ListenerSet": {
        "spec": {
            "parentRef": {"name": "a"}, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        }
    },
    "gateway.networking.k8s.io/HTTPRoute": {"spec": {"parentRefs": [{"name": "a"}]}},
    "gateway.networking.k8s.io/GRPCRoute": {"spec": {"parentRefs": [{"name": "a"}]}},
    "gateway.networking.k8s.io/TLSRoute": {
        "spec": {
            "parentRefs": [{"name": "a"}], "hostnames": ["a.example.com"],
            "rules": [{"backendRefs": [{"name": "a", "port": 443}]}],
        }
    },
    "gateway.networking.k8s.io/TCPRoute": {"spec": {"rules": [{"backendRefs": [{"name": "a", "port": 1}]}]}},
    "gateway.networking.k8s.io/UDPRoute": {"spec": {"rules": [{"backendRefs": [{"name": "a", "port": 1}]}]}},
    "gateway.networking.k8s.io/ReferenceGrant": {
        "spec": {"from": [{"group": "", "kind": "Service", "namespace": "b"}],
                 "to": [{"group": "", "kind": "Secret"}]}
    },
    "gateway.networking.k8s.io/BackendTLSPolicy": {
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "a"}],
            "validation": {"hostname": "a.example.com", "wellKnownCACertificates": "System"},
        }
    },
    "weft.dev/Workload": {"spec": {"command": ["/bin/true"]}},
    "weft.dev/MeshConfig": {"spec": {}},
    "weft.dev/RateLimit": {"spec": {"limits": [{"name": "all", "requests": 10}]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("api")
    with api_server(directory):
        yield directory


@pytest.fixture(scope="module")
def kubectl(home: Path) -> Kubectl:
    environ = {**os.environ, "KUBECONFIG": str(home / "kubeconfig"), "HOME": str(home)}

    def run(*argv: str, stdin: str | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["kubectl", *argv], input=stdin, capture_output=True, text=True, env=environ, timeout=60
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    return run


def example(row: KindRow, name: str = "example", **labels: str) -> str:
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = labels
    return yaml.safe_dump(
        {"apiVersion": row.api_version, "kind": row.kind, "metadata": metadata, **EXAMPLES[row.id]}
    )


def full_name(row: KindRow) -> str:
    return f"{row.plural}.{row.group}" if row.group else row.plural


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.id)
def test_every_kind_from_birth_to_death(kubectl: Kubectl, row: KindRow) -> None:
    kind = full_name(row)
    assert "created" in kubectl("create", "-f", "-", stdin=example(row)).stdout
    assert "AlreadyExists" in kubectl("create", "-f", "-", stdin=example(row), code=1).stderr
    applied = kubectl("apply", "-f", "-", stdin=example(row, step="apply")).stdout
    assert "configured" in applied
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=example(row, step="apply")).stdout
    assert kubectl("diff", "-f", "-", stdin=example(row, step="apply")).stdout == ""
    assert "+    step: diff" in kubectl("diff", "-f", "-", stdin=example(row, step="diff"), code=1).stdout
    kubectl("replace", "-f", "-", stdin=example(row, step="replace"))
    kubectl("patch", kind, "example", "--type=merge", "-p", '{"metadata":{"labels":{"patch":"merge"}}}')
    operations = '[{"op":"add","path":"/metadata/labels/json","value":"patch"}]'
    kubectl("patch", kind, "example", "--type=json", "-p", operations)
    found = json.loads(kubectl("get", kind, "example", "-o", "json").stdout)
    labels = {k: v for k, v in found["metadata"]["labels"].items() if "/" not in k}
    assert labels == {"step": "replace", "patch": "merge", "json": "patch"}
    assert {name: found[name] for name in EXAMPLES[row.id]} == EXAMPLES[row.id]
    assert yaml.safe_load(kubectl("get", kind, "example", "-o", "yaml").stdout) == found
    wide = kubectl("get", kind, "-o", "wide").stdout.splitlines()
    assert wide[0].startswith("NAME")
    assert any(line.startswith("example ") for line in wide)
    described = kubectl("describe", kind, "example").stdout
    assert "example" in described
    assert "step=replace" in described
    explained = kubectl("explain", row.plural, f"--api-version={row.api_version}").stdout
    assert f"KIND:       {row.kind}" in explained
    assert "metadata" in explained
    assert "deleted" in kubectl("delete", kind, "example", "--timeout=20s").stdout
    assert "NotFound" in kubectl("get", kind, "example", code=1).stderr


def test_every_kind_has_an_example() -> None:
    assert {row.id for row in KINDS} == set(EXAMPLES)


def test_api_resources(kubectl: Kubectl) -> None:
    lines = kubectl("api-resources", "--no-headers").stdout.splitlines()
    kinds = {(line.split()[-1], line.split()[-3].rpartition("/")[0]) for line in lines}
    assert {(row.kind, row.group) for row in KINDS} <= kinds
    assert "networking.istio.io/v1beta1" in kubectl("api-versions").stdout.splitlines()
    assert "Server Version: v1.32" in kubectl("version").stdout


def test_plurals_are_those_of_the_public_definitions(kubectl: Kubectl) -> None:
    plurals = {line.split()[0] for line in kubectl("api-resources", "--no-headers").stdout.splitlines()}
    assert {
        "gateways", "gatewayclasses", "virtualservices", "destinationrules", "serviceentries", "sidecars",
        "workloadentries", "workloadgroups", "envoyfilters", "proxyconfigs", "peerauthentications",
        "authorizationpolicies", "requestauthentications", "telemetries", "httproutes", "grpcroutes",
        "tlsroutes", "tcproutes", "udproutes", "referencegrants", "backendtlspolicies", "listenersets",
        "services", "endpoints", "endpointslices", "secrets", "configmaps", "serviceaccounts", "namespaces",
        "workloads", "meshconfigs",
    } <= plurals  # fmt: skip


def test_explain_goes_deep(kubectl: Kubectl) -> None:
    assert "FIELD: host" in kubectl("explain", "virtualservice.spec.http.route.destination.host").stdout
    explained = kubectl("explain", "virtualservice.spec.http").stdout
    assert "A rule: requests that match, and what becomes of them." in explained
    assert "Any of these; every request unless given." in explained


def test_typed_creation(kubectl: Kubectl) -> None:
    """These commands send Kubernetes' protobuf."""
    kubectl("create", "namespace", "typed")
    kubectl("-n", "typed", "create", "secret", "generic", "s", "--from-literal=a=b")
    kubectl("-n", "typed", "create", "configmap", "c", "--from-literal=a=b")
    kubectl("-n", "typed", "create", "serviceaccount", "sa")
    kubectl("-n", "typed", "create", "service", "clusterip", "svc", "--tcp=80:8080")
    service = json.loads(kubectl("-n", "typed", "get", "service", "svc", "-o", "json").stdout)
    assert service["spec"]["ports"][0] | {"protocol": "TCP"} == {
        "name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080,
    }  # fmt: skip
    assert service["spec"]["selector"] == {"app": "svc"}
    secret = json.loads(kubectl("-n", "typed", "get", "secret", "s", "-o", "json").stdout)
    assert secret["data"] == {"a": "Yg=="}
    config = json.loads(kubectl("-n", "typed", "get", "configmap", "c", "-o", "json").stdout)
    assert config["data"] == {"a": "b"}
    kubectl("delete", "namespace", "typed", "--timeout=20s")
    assert kubectl("get", "secrets", "-A", "-o", "name").stdout == ""


def test_who_and_may(kubectl: Kubectl, home: Path) -> None:
    assert "admin" in kubectl("auth", "whoami").stdout
    assert kubectl("auth", "can-i", "delete", "virtualservices").stdout == "yes\n"
    reader = f"--kubeconfig={home / 'kubeconfig.reader'}"
    assert kubectl(reader, "auth", "can-i", "delete", "virtualservices", code=1).stdout.startswith("no")
    kubectl(reader, "get", "virtualservices")
    assert "Forbidden" in kubectl(reader, "create", "namespace", "x", code=1).stderr


def test_wrong_input_is_refused_in_kubectl_s_words(kubectl: Kubectl) -> None:
    wrong = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wrong}
spec: {hosts: reviews, htp: []}
"""
    refused = kubectl("apply", "-f", "-", stdin=wrong, code=1).stderr
    assert 'The VirtualService "wrong" is invalid' in refused
    assert "spec.hosts" in refused
    assert "did you mean 'http'" in refused
    assert "NotFound" in kubectl("get", "virtualservice", "wrong", code=1).stderr


def test_server_side_apply_is_refused_with_a_remedy(kubectl: Kubectl) -> None:
    row = next(row for row in KINDS if row.kind == "VirtualService")
    refused = kubectl("apply", "--server-side", "-f", "-", stdin=example(row), code=1).stderr
    assert "server-side" in refused


def test_watch(kubectl: Kubectl, home: Path) -> None:
    row = next(row for row in KINDS if row.id == "security.istio.io/PeerAuthentication")
    environ = {**os.environ, "KUBECONFIG": str(home / "kubeconfig"), "HOME": str(home)}
    kubectl("create", "-f", "-", stdin=example(row, "first"))
    process = subprocess.Popen(
        ["kubectl", "get", "peerauthentications", "-w", "--output-watch-events"],
        stdout=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    killer = threading.Timer(30, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["EVENT", "NAME", "MODE", "AGE"]
        assert process.stdout.readline().split()[:3] == ["ADDED", "first", "STRICT"]
        kubectl("create", "-f", "-", stdin=example(row, "second"))
        assert process.stdout.readline().split()[:2] == ["ADDED", "second"]
        patch = '{"spec":{"mtls":{"mode":"DISABLE"}}}'
        kubectl("patch", "peerauthentications", "second", "--type=merge", "-p", patch)
        assert process.stdout.readline().split()[:3] == ["MODIFIED", "second", "DISABLE"]
        kubectl("delete", "peerauthentications", "second")
        assert process.stdout.readline().split()[:2] == ["DELETED", "second"]
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        kubectl("delete", "peerauthentications", "first")


def test_apply_takes_away_what_it_gave(kubectl: Kubectl) -> None:
    def service(*ports: int, **spec: Any) -> str:
        body = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "strategic"},
            "spec": {"ports": [{"name": f"p{port}", "port": port} for port in ports], **spec},
        }  # fmt: skip
        return yaml.safe_dump(body)

    kubectl("apply", "-f", "-", stdin=service(80, 81, selector={"app": "a"}))
    kubectl("patch", "service", "strategic", "-p", '{"spec":{"ports":[{"name":"extra","port":90}]}}')
    kubectl("apply", "-f", "-", stdin=service(80))
    spec = json.loads(kubectl("get", "service", "strategic", "-o", "json").stdout)["spec"]
    assert sorted(port["port"] for port in spec["ports"]) == [80, 90]
    assert not spec.get("selector")
    kubectl("delete", "service", "strategic")


def test_the_client_library_lists_and_watches(home: Path) -> None:
    from kubernetes import client, config, watch

    library: Any = config  # partly typed
    api_client = library.new_client_from_config(str(home / "kubeconfig"))
    core: Any
    custom: Any
    core, custom = client.CoreV1Api(api_client), client.CustomObjectsApi(api_client)
    names = {item.metadata.name for item in core.list_namespace().items}
    assert {"default", "istio-system"} <= names
    place = ("networking.istio.io", "v1", "default", "destinationrules")
    body = {
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "library"}, "spec": {"host": "a"},
    }  # fmt: skip
    listed = custom.list_namespaced_custom_object(*place)
    made = custom.create_namespaced_custom_object(*place, body)
    custom.patch_namespaced_custom_object(*place, "library", {"spec": {"host": "b"}})
    with pytest.raises(client.ApiException) as conflict:
        custom.replace_namespaced_custom_object(*place, "library", {**made, "spec": {"host": "c"}})
    assert conflict.value.status == 409
    custom.delete_namespaced_custom_object(*place, "library")
    watching: Any = watch
    stream = watching.Watch().stream(
        custom.list_namespaced_custom_object, *place,
        resource_version=listed["metadata"]["resourceVersion"], timeout_seconds=2,
    )  # fmt: skip
    assert [event["type"] for event in stream] == ["ADDED", "MODIFIED", "DELETED"]
    core.create_namespaced_config_map(
        "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="library"), data={"a": "b"})
    )
    assert core.read_namespaced_config_map("library", "default").data == {"a": "b"}
    core.delete_namespaced_config_map("library", "default")
