"""Each analyzer on an example: ``examples/*.yaml``, whose first lines say which one and what it finds."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from weft.analysis.analyze import Filter, Input, analyze
from weft.analysis.analyzers import ANALYZERS
from weft.analysis.codes import CODES
from weft.analysis.tree import table
from weft.model.parse import Part, unwrap
from weft.yaml import load

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.yaml"))

Row = tuple[str, str]


def expected(example: Path) -> tuple[str, list[Row]]:
    """The analyzer, and (code, origin) of what it finds."""
    head = [line[2:] for line in example.read_text().splitlines() if line.startswith("# ")]
    rows = [line.partition(" ") for line in head[1:]]
    return head[0], sorted((code, origin) for code, _, origin in rows)


def parts_of(*texts: str) -> list[Part]:
    documents, problems = load("\n---\n".join(texts), "f.yaml")
    assert not problems, problems
    return [part for document in documents for part in unwrap(document)[0]]


def run(analyzer: str, *texts: str, mesh: str = "", networks: str = "") -> list[Row]:
    def settings(text: str) -> dict[str, object] | None:
        return table(load(text, "mesh.yaml")[0][0].data) if text else None

    given = Input(parts=parts_of(*texts), mesh=settings(mesh), networks=settings(networks))
    return sorted((item.code, item.origin) for item in analyze(given, Filter(only=(analyzer,))))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_finds(example: Path) -> None:
    analyzer, wanted = expected(example)
    assert run(analyzer, example.read_text()) == wanted


# Those that need more than a file of resources have tests of their own below.
APART = {
    "gateway.SecretAnalyzer": {"IST0161"},
    "gateway.CertificateAnalyzer": {"IST0138"},
    "meshnetworks.MeshNetworksAnalyzer": {"IST0126"},
    "services.MultiClusterServiceAnalyzer": {"IST0170"},
    "telemetry.LightstepAnalyzer": {"IST0002"},
}


def test_every_analyzer_has_an_example() -> None:
    assert {expected(example)[0] for example in EXAMPLES} | APART.keys() == {one.name for one in ANALYZERS}


def test_every_code_has_an_example_unless_it_is_the_schemas() -> None:
    given = {code for example in EXAMPLES for code, _ in expected(example)[1]}.union(*APART.values())
    istios = {code.id for code in CODES.values() if code.id.startswith("IST") and not code.silent}
    assert istios - given == {"IST0001", "IST0106", "IST0130", "IST0131", "IST0133"}


def document(version: str, kind: str, metadata: str, rest: str) -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\n{rest}\n"


def tls_gateway(name: str, credential: str) -> str:
    server = (
        f"{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{name}.example.com], "
        f"tls: {{mode: SIMPLE, credentialName: {credential}}}}}"
    )
    spec = f"spec: {{selector: {{istio: ingressgateway}}, servers: [{server}]}}"
    return document("networking.istio.io/v1", "Gateway", f"name: {name}", spec)


def tls_secret(name: str, first: int, last: int) -> str:
    """A certificate that is good from so many to so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=first))
        .not_valid_after(now + timedelta(days=last))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain, secret = (base64.b64encode(item).decode() for item in (made.public_bytes(pem), private))
    rest = f"type: kubernetes.io/tls\ndata: {{tls.crt: {chain}, tls.key: {secret}}}"
    return document("v1", "Secret", f"name: {name}, namespace: istio-system", rest)


def test_secrets_of_gateways() -> None:
    texts = (
        *(tls_gateway(name, name) for name in ("good", "old", "young", "nowhere", "odd", "empty")),
        tls_secret("good", -1, 1),
        tls_secret("old", -2, -1),
        tls_secret("young", 1, 2),
        document("v1", "Secret", "name: odd, namespace: istio-system", "stringData: {cert: x, key: y}"),
        document("v1", "Secret", "name: empty, namespace: istio-system", "data: {tls.crt: '?', tls.key: ''}"),
    )
    assert run("gateway.SecretAnalyzer", *texts) == [
        ("IST0101", "Gateway default/nowhere"),
        ("IST0161", "Gateway default/empty"),
        ("IST0161", "Gateway default/odd"),
        ("IST0161", "Gateway default/old"),
        ("IST0161", "Gateway default/young"),
    ]


def test_a_certificate_of_two_gateways() -> None:
    texts = (tls_gateway("a", "same"), tls_gateway("b", "same"), tls_gateway("c", "other"))
    assert run("gateway.CertificateAnalyzer", *texts) == [
        ("IST0138", "Gateway default/a"),
        ("IST0138", "Gateway default/b"),
    ]


def test_networks() -> None:
    endpoints = "[{fromRegistry: east}, {fromRegistry: Kubernetes}, {fromCidr: 10.0.0.0/8}]"
    networks = f"networks: {{one: {{endpoints: {endpoints}}}}}"
    found = run("meshnetworks.MeshNetworksAnalyzer", networks=networks)
    assert found == [("IST0126", "MeshNetworks istio-system/meshnetworks")]
    metadata = "name: remote, namespace: istio-system, labels: {istio/multiCluster: 'true'}"
    secret = document("v1", "Secret", metadata, "stringData: {east: kubeconfig}")
    assert run("meshnetworks.MeshNetworksAnalyzer", secret, networks=networks) == []


def test_clusters() -> None:
    here = document("v1", "Service", "name: a", "spec: {ports: [{name: http, port: 80}]}")
    same = document("v1", "Service", "name: b", "spec: {}")
    given = Input(parts=parts_of(here, same), others={"west": parts_of(here.replace("80", "81"), same)})
    found = analyze(given, Filter(only=("services.MultiClusterServiceAnalyzer",)))
    assert [(item.code, item.origin) for item in found] == [("IST0170", "Service default/a")]
    assert "ports differ" in found[0].message


def test_lightstep() -> None:
    spec = "spec: {tracing: [{providers: [{name: traces}]}]}"
    text = document("telemetry.istio.io/v1", "Telemetry", "name: a", spec)
    mesh = "extensionProviders: [{name: traces, lightstep: {service: x, port: 1}}]"
    assert run("telemetry.LightstepAnalyzer", text, mesh=mesh) == [("IST0002", "Telemetry default/a")]
    assert run("telemetry.LightstepAnalyzer", text) == []


def test_addresses_that_the_mesh_gives() -> None:
    spec = "spec: {hosts: [db.example.com], ports: [{number: 1, name: t, protocol: TCP}]}"
    text = document("networking.istio.io/v1", "ServiceEntry", "name: a", spec)
    metadata = "{ISTIO_META_DNS_CAPTURE: 'true', ISTIO_META_DNS_AUTO_ALLOCATE: 'true'}"
    mesh = f"defaultConfig: {{proxyMetadata: {metadata}}}"
    assert run("serviceentry.Analyzer", text) == [("IST0134", "ServiceEntry default/a")]
    assert run("serviceentry.Analyzer", text, mesh=mesh) == []


def test_no_gateway_is_assumed_where_the_mesh_has_none() -> None:
    gateway = tls_gateway("edge", "any")
    assert run("gateway.IngressGatewayPortAnalyzer", gateway) == []
    without = run("gateway.IngressGatewayPortAnalyzer", gateway, mesh="ingressControllerMode: 'OFF'")
    assert without == [("IST0101", "Gateway default/edge")]


VALUES = [
    ("sidecar.istio.io/interceptionMode", "NONE", True),
    ("sidecar.istio.io/interceptionMode", "redirect", False),
    ("traffic.sidecar.istio.io/includeInboundPorts", "*", True),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "*", False),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "80, 443", True),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "80,70000", False),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8,fd00::/8", True),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.1", False),
    ("traffic.sidecar.istio.io/excludeInterfaces", "eth0,eth1", True),
    ("traffic.sidecar.istio.io/excludeInterfaces", "a/b", False),
    ("readiness.status.sidecar.istio.io/periodSeconds", "-1", False),
    ("prometheus.istio.io/merge-metrics", "yes", False),
    ("sidecar.istio.io/proxyCPU", "100m", True),
    ("sidecar.istio.io/proxyMemory", "much", False),
    ("proxy.istio.io/config", "concurrency: 2", True),
    ("proxy.istio.io/config", "concurency: 2", False),
    ("proxy.istio.io/config", "- 1", False),
]


@pytest.mark.parametrize(("name", "value", "fine"), VALUES, ids=lambda value: str(value))
def test_values_of_annotations(name: str, value: str, fine: bool) -> None:
    pod = document("v1", "Pod", f"name: a, annotations: {{{name}: '{value}'}}", "")
    assert run("annotations.K8sAnalyzer", pod) == ([] if fine else [("IST0125", "Pod default/a")])
