# ruff: noqa: E501
"""Resources: what is read is written back unchanged, and what is wrong is said plainly, all at once."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import yaml
from weft.errors import Severity
from weft.model.catalog import KINDS, by_id, by_kind, by_plural
from weft.model.parse import dump, parse, parse_object, unwrap
from weft.model.resource import Key, Resource
from weft.model.virtual_service import VirtualService
from weft.yaml import Document, join

SAMPLES = Path(__file__).parent / "samples"
CONFORMANCE = Path(__file__).parents[4] / "shared" / "conformance" / "manifests"


def read(folder: Path) -> list[Document]:
    found: list[Document] = []
    for file in sorted(folder.rglob("*.yaml")):
        documents, problems = yaml.load(file.read_text(), str(file))
        assert problems == ()
        found += documents
    return found


def name_of(document: Document) -> str:
    return f"{document.data['kind']}-{document.data['metadata']['name']}"


def findings(text: str) -> list[str]:
    documents, problems = yaml.load(textwrap.dedent(text), "f.yaml")
    assert problems == ()
    resource, found = parse(documents[0])
    assert resource is None or not any(problem.severity is Severity.ERROR for problem in found)
    return [str(problem).removeprefix("f.yaml:") for problem in found]


def virtual_service(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "x"},
        "spec": spec,
    }


@pytest.mark.parametrize("document", read(SAMPLES), ids=name_of)
def test_a_sample_comes_back_unchanged(document: Document) -> None:
    resource, problems = parse(document)
    assert [problem for problem in problems if problem.severity is Severity.ERROR] == []
    assert resource is not None
    assert dump(resource) == document.data
    again, _ = parse_object(dump(resource))
    assert again == resource


def test_every_kind_has_a_sample() -> None:
    shown = {by_kind(item.data["apiVersion"], item.data["kind"]) for item in read(SAMPLES)}
    assert [row.id for row in KINDS if row not in shown] == []


@pytest.mark.skipif(not CONFORMANCE.exists(), reason="the sample cases are not here")
def test_public_manifests_are_read_whole() -> None:
    seen = 0
    for document in read(CONFORMANCE):
        for part in unwrap(document)[0]:
            resource, problems = parse(part)
            assert [str(item) for item in problems if item.severity is Severity.ERROR] == []
            if resource is not None:
                assert dump(resource) == part.data
                seen += 1
    assert seen > 40


def test_a_key_tells_the_kind_the_namespace_and_the_name() -> None:
    data = virtual_service({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]})
    resource, _ = parse_object(data, namespace="shop")
    assert isinstance(resource, VirtualService)
    assert resource.key == Key("networking.istio.io/VirtualService", "shop", "x")
    assert str(resource.key) == "VirtualService shop/x"
    assert resource.metadata.namespace == "shop"
    assert dump(resource) == data


def test_what_has_no_namespace_gets_none() -> None:
    data = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    resource, _ = parse_object(data)
    assert resource is not None
    assert resource.key == Key("/Namespace", "", "shop")


def test_a_duration_is_a_duration_and_is_written_as_it_was() -> None:
    rule = {"route": [{"destination": {"host": "a"}}], "timeout": "90.0s"}
    data = virtual_service({"hosts": ["a"], "http": [rule]})
    resource, _ = parse_object(data)
    assert isinstance(resource, VirtualService)
    assert resource.spec.http is not None
    assert resource.spec.http[0].timeout == timedelta(seconds=90)
    assert dump(resource) == data


def test_a_whole_number_may_be_written_with_a_point() -> None:
    rule = {"route": [{"destination": {"host": "a", "port": {"number": 80}}, "weight": 10.0}]}
    resource, problems = parse_object(virtual_service({"hosts": ["a"], "http": [rule]}))
    assert problems == ()
    assert isinstance(resource, VirtualService)
    assert dump(resource)["spec"]["http"] == [
        {"route": [{"destination": {"host": "a", "port": {"number": 80}}, "weight": 10}]}
    ]


def test_a_list_of_bad_items_is_not_said_to_be_empty() -> None:
    limits = """
        apiVersion: weft.dev/v1alpha1
        kind: RateLimit
        metadata: {name: x}
        spec:
          limits: %s
    """
    assert findings(limits % "[{name: a, requests: 0}]") == [
        "6:22: spec.limits[0].requests: 0 is too small: at least 1"
    ]
    (empty,) = findings(limits % "[]")
    assert "at least 1 needed" in empty


def test_all_errors_at_once_in_the_order_of_the_file() -> None:
    assert findings(
        """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata:
          name: Reviews
          labels: {version: 1}
        spec:
          host: reviews
          http:
          - match:
            - sourceLabel: {app: web}
            route:
            - destination: {host: reviews, port: 9080}
              wieght: 90
            timeout: 5
            retries: {attempts: three, per_try_timeout: 1s}
          - redirect: {derivePort: FROM_REQUEST_PROT}
            mirror: [a]
          tcp: {}
        """
    ) == [
        "5:3: metadata.name: 'Reviews' is not a DNS name: lower-case letters, digits, '-' and '.'",
        '6:12: metadata.labels.version: must be text, not a number: write it in quotes, "1"',
        "8:3: spec.host: there is no field 'host' here (did you mean 'hosts'?)",
        "11:7: spec.http[0].match[0].sourceLabel: there is no field 'sourceLabel' here"
        " (did you mean 'sourceLabels'?)",
        "13:36: spec.http[0].route[0].destination.port: must be a mapping, not 9080 (write {number: 9080})",
        "14:7: spec.http[0].route[0].wieght: there is no field 'wieght' here (did you mean 'weight'?)",
        "15:5: spec.http[0].timeout: 5 is not a duration: write a number and a unit, like '250ms'",
        "16:15: spec.http[0].retries.attempts: must be a whole number, not 'three'",
        "16:32: spec.http[0].retries.per_try_timeout: there is no field 'per_try_timeout' here"
        " (did you mean 'perTryTimeout'?)",
        "17:16: spec.http[1].redirect.derivePort: 'FROM_REQUEST_PROT' is not known: write one of"
        " FROM_PROTOCOL_DEFAULT, FROM_REQUEST_PORT (did you mean 'FROM_REQUEST_PORT'?)",
        "18:5: spec.http[1].mirror: must be a mapping, not a list",
        "19:3: spec.tcp: must be a list, not a mapping (put '- ' before the element)",
    ]


HTTP = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n"
GATEWAY_API = "apiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: x}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "apiVersion: apiVersion is missing (as 'networking.istio.io/v1')"),
        ("{apiVersion: 1, kind: Service}", "apiVersion: apiVersion must be text, not a number"),
        (
            "{apiVersion: networking.istio.io/v1, kind: VirtualServices}",
            "there is no kind 'VirtualServices' in networking.istio.io (did you mean 'VirtualService'?)",
        ),
        (
            "{apiVersion: networking.istio.io/v2, kind: VirtualService}",
            "VirtualService has no version 'networking.istio.io/v2' (write networking.istio.io/v1, "
            "networking.istio.io/v1beta1, networking.istio.io/v1alpha3)",
        ),
        ("{apiVersion: v1, kind: ConfigMap}", "metadata: metadata is missing (add metadata)"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {}}", "metadata.name: a name is missing"),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}",
            "metadata.name: 'a.b' is not a DNS label",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: yes}}",
            "data.a: must be text, not True (YAML takes yes, on, y and their like for booleans",
        ),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {'a b': c}}", "is not a key"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {a: plain!}}", "data.a: is not base64"),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: x}, type: kubernetes.io/tls, data: {tls.crt: YQ==}}",
            "data: a secret of type kubernetes.io/tls needs 'tls.key'",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 0}]}}",
            "spec.ports[0].port: 0 is too small: at least 1",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 1}, {port: 2}]}}",
            "spec.ports[0].name: each of several ports needs a name",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {}}",
            "spec.ports: a Service needs ports",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {a/b/c: d}}}",
            "'a/b/c' is not a label's key",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {a: '-'}}}",
            "metadata.labels.a: '-' is not a label's value",
        ),
        (HTTP + "spec: {hosts: [a]}", "spec: the VirtualService has no rules"),
        (
            HTTP + "spec: {hosts: [a], http: [{}]}",
            "spec.http[0]: the rule does not say what becomes of requests",
        ),
        (
            HTTP + "spec: {hosts: [a], http: [{redirect: {}, rewrite: {}}]}",
            "spec.http[0].rewrite: rewrite has no effect with redirect",
        ),
        (
            HTTP
            + "spec: {hosts: [a], http: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]}",
            "spec.http[0].route: no destination has a weight",
        ),
        (
            HTTP + "spec: {hosts: [a], http: [{directResponse: {status: 200}, timeout: 0s}]}",
            "spec.http[0].timeout: '0s' is too short",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: x}\n"
            "spec: {hosts: [a.b], resolution: NONE, endpoints: [{address: 1.2.3.4}]}",
            "spec.endpoints: resolution NONE has no endpoints",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: x}\n"
            "spec: {host: a, trafficPolicy: {tls: {mode: MUTUAL, privateKey: k}}}",
            "spec.trafficPolicy.tls.clientCertificate: mode MUTUAL needs clientCertificate",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\n"
            "spec: {portLevelMtls: {http: {mode: STRICT}}}",
            "spec.portLevelMtls: portLevelMtls needs a selector",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\n"
            "spec: {mtls: {mode: strict}}",
            "spec.mtls.mode: 'strict' is not known: write one of UNSET, DISABLE, PERMISSIVE, STRICT"
            " (did you mean 'STRICT'?)",
        ),
        (
            GATEWAY_API % "HTTPRoute" + "spec: {rules: [{matches: [{path: {value: a//b}}]}]}",
            "spec.rules[0].matches[0].path.value: 'a//b' does not begin with '/'",
        ),
        (
            GATEWAY_API % "HTTPRoute" + "spec: {rules: [{filters: [{type: URLRewrite}]}]}",
            "spec.rules[0].filters[0].urlRewrite: type URLRewrite needs urlRewrite",
        ),
        (
            GATEWAY_API % "HTTPRoute" + "spec: {rules: [{backendRefs: [{name: a}]}]}",
            "spec.rules[0].backendRefs[0].port: a Service is called at a port",
        ),
        (
            GATEWAY_API % "HTTPRoute" + "spec: {rules: [{timeouts: {request: 1.5s}}]}",
            "spec.rules[0].timeouts.request: '1.5s' is not a Gateway API duration",
        ),
        (
            GATEWAY_API % "HTTPRoute" + "spec: {parentRefs: [{name: a}, {name: a, sectionName: b}]}",
            "spec.parentRefs[1].sectionName: one reference",
        ),
        (
            GATEWAY_API % "Gateway"
            + "spec: {gatewayClassName: a, listeners: [{name: a, port: 1, protocol: TLS}]}",
            "spec.listeners[0].tls: protocol TLS needs tls.mode",
        ),
        (
            GATEWAY_API
            % "Gateway"
            + "spec: {gatewayClassName: a, listeners: [{name: a, port: 1, protocol: HTTP}, "
            "{name: b, port: 1, protocol: HTTP}]}",
            "spec.listeners[1]: another listener has the same port, protocol and hostname",
        ),
        (
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: x}\n"
            "spec: {command: [a], readinessProbe: {httpGet: {port: web}}}",
            "spec.readinessProbe.httpGet.port: no port is named 'web' (add it to ports)",
        ),
        (
            "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: x}, spec: {command: []}}",
            "spec.command: at least 1 needed, there are none",
        ),
    ],
)
def test_bad_input_is_named(text: str, message: str) -> None:
    assert [item for item in findings(text) if message in item], findings(text)


def test_other_kinds_are_skipped_with_a_warning() -> None:
    (found,) = findings("{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}")
    assert found == "1:23: kind: weft does not know Deployment of apps/v1: it is skipped"


def test_lists_are_opened_and_keep_their_places() -> None:
    text = (
        "kind: List\napiVersion: v1\nitems:\n- kind: ServiceList\n  apiVersion: v1\n  items:\n"
        "  - metadata: {name: x}\n    spec: {ports: [{port: x}]}\n- 7\n"
    )
    (document,), _ = yaml.load(text, "f.yaml")
    parts, problems = unwrap(document)
    assert [str(problem) for problem in problems] == [
        "f.yaml:9:3: items[1]: an item of a List must be a resource, not a number"
    ]
    (part,) = parts
    assert part.data["kind"] == "Service"
    assert part.where().line == 7
    assert [str(problem) for problem in parse(part)[1]] == [
        "f.yaml:8:21: spec.ports[0].port: must be a whole number, not 'x'"
    ]


LEAVES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
)
DOCUMENTS = read(SAMPLES)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_damaged_document_is_refused_where_it_is_damaged_or_comes_back(
    document: Document, data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from(sorted(filter(None, document.positions), key=str)))
    damaged = _put(document.data, place, data.draw(LEAVES))
    resource, problems = parse(Document("f.yaml", 0, damaged, document.positions))
    if resource is None:
        assert all(problem.path for problem in problems)
    else:
        again, _ = parse_object(dump(resource))
        assert again == resource


def _put(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, list):
        return [_put(item, path[1:], new) if number == path[0] else item for number, item in enumerate(value)]
    return {key: _put(item, path[1:], new) if key == path[0] else item for key, item in value.items()}


def test_the_catalog_finds_kinds_by_every_name() -> None:
    for row in KINDS:
        assert by_id(row.id) is row
        assert issubclass(row.model, Resource)
        for version in row.versions:
            assert by_kind(row.api_version_of(version), row.kind) is row
            assert by_plural(row.group, version, row.plural) is row
    assert join(("spec", "http", 0, "a.b/c")) == 'spec.http[0]["a.b/c"]'


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        # Each of these went as far as the bytes for Envoy, and stopped there for every proxy.
        ("v1/Service", {"clusterIP": "./*", "ports": [{"port": 80}]}, "spec.clusterIP"),
        ("v1/Service", {"clusterIPs": ["10.0.0.1", "x"], "ports": [{"port": 80}]}, "spec.clusterIPs[1]"),
        (
            "networking.istio.io/v1/DestinationRule",
            {"host": "a", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": -1}}}},
            "spec.trafficPolicy.connectionPool.tcp.maxConnections",
        ),
        (
            "networking.istio.io/v1/DestinationRule",
            {
                "host": "a",
                "trafficPolicy": {
                    "loadBalancer": {"consistentHash": {"httpCookie": {"name": "x", "ttl": "soon"}}}
                },
            },
            "spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.ttl",
        ),
        (
            "networking.istio.io/v1/VirtualService",
            {
                "hosts": ["a"],
                "http": [{"timeout": "99999999999999999h", "route": [{"destination": {"host": "a"}}]}],
            },
            "spec.http[0].timeout",
        ),
        (
            "networking.istio.io/v1/DestinationRule",
            {"host": "a", "trafficPolicy": {"outlierDetection": {"maxEjectionPercent": 101}}},
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
        ),
        (
            "networking.istio.io/v1/VirtualService",
            {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "weight": 2**63}]}]},
            "spec.http[0].route[0].weight",
        ),
        (
            "gateway.networking.k8s.io/v1/HTTPRoute",
            {
                "rules": [
                    {"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 10**30}}]}
                ]
            },
            "spec.rules[0].filters[0].requestRedirect.statusCode",
        ),
    ],
)
def test_what_no_proxy_could_be_told_is_refused(kind: str, spec: dict[str, Any], path: str) -> None:
    version, _, name = kind.rpartition("/")
    _, problems = parse_object({"apiVersion": version, "kind": name, "metadata": {"name": "x"}, "spec": spec})
    assert path in [problem.path for problem in problems if problem.severity is Severity.ERROR]
