"""``weft describe``: what it says of services and workloads, and where from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from weft.analysis.analyze import Input, survey
from weft.analysis.describe.picture import Asked, Picture
from weft.analysis.describe.policies import mode_of
from weft.analysis.describe.service import members_of, service
from weft.analysis.describe.workload import workload
from weft.analysis.objects import Object
from weft.analysis.scene import Bearer
from weft.cli.describe import describe
from weft.cli.describe_text import text
from weft.model.parse import Part, unwrap
from weft.yaml import load

SHOP = (Path(__file__).parent / "shop.yaml").read_text()


def weft(*arguments: str) -> Result:
    return CliRunner().invoke(describe, list(arguments), standalone_mode=False)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "shop.yaml").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    return "shop.yaml"


def report(*arguments: str) -> dict[str, Any]:
    done = weft(*arguments, "-o", "json")
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def line(text: str, after: str = "") -> int:
    """The line of the file on which ``text`` stands, the first after ``after``."""
    start = SHOP.index(after) if after else 0
    return SHOP.count("\n", 0, SHOP.index(text, start)) + 1


def test_ports_say_what_decides_their_protocol(shop: str) -> None:
    ports = report("reviews", shop)["ports"]
    assert [(port["number"], port["targetPort"], port["protocol"], port["decidedBy"]) for port in ports] == [
        (9080, "http", "http", "the name 'http'"),
        (9081, "9081", "grpc", "appProtocol: grpc"),
        (3306, "3306", "tcp", "port 3306 is one where servers speak first"),
        (7000, "7000", "auto", "nothing says, so the first bytes of a connection do"),
    ]
    assert ports[1]["line"] == line("name: admin")


def test_endpoints_and_their_subsets(shop: str) -> None:
    endpoints = report("reviews", shop)["endpoints"]
    assert [
        (one["workload"]["name"], one["address"], one["health"], one["subsets"]) for one in endpoints
    ] == [
        ("reviews-v2-0", "10.0.0.7", "healthy", ["v2"]),
        ("reviews-v1", "", "", ["v1"]),
    ]


def test_destination_rules(shop: str) -> None:
    own, foreign = report("reviews", shop)["destinationRules"]
    assert (own["name"], own["effective"], own["tls"], own["policy"]) == (
        "reviews",
        True,
        "ISTIO_MUTUAL",
        ["connectionPool"],
    )
    assert [(one["name"], one["workloads"], one["line"]) for one in own["subsets"]] == [
        ("v1", ["reviews-v1"], line("- name: v1", "kind: DestinationRule")),
        ("v2", ["reviews-v2-0"], line("- name: v2", "kind: DestinationRule")),
    ]
    assert own["ports"] == [{"number": 9081, "tls": "DISABLE", "policy": []}]
    assert (foreign["namespace"], foreign["effective"]) == ("team", False)


def test_virtual_services(shop: str) -> None:
    mesh, edge = report("reviews", shop)["virtualServices"]
    assert (mesh["name"], mesh["roles"], mesh["gateways"]) == ("reviews", ["host", "destination"], ["mesh"])
    first, last = mesh["rules"]
    assert (first["matches"], first["does"]) == (
        ["path prefix /api, header end-user exact jason"],
        ["timeout 2s"],
    )
    host = "reviews.default.svc.cluster.local"
    assert last["destinations"] == [
        {"host": host, "subset": "v1", "port": 9080, "weight": 90},
        {"host": host, "subset": "v2", "port": 9080, "weight": 10},
    ]
    assert (edge["name"], edge["roles"]) == ("edge", ["destination"])
    assert [rule["name"] for rule in edge["rules"]] == ["reviews"]  # the one to ratings is not about it


def test_routes_of_the_gateway_api(shop: str) -> None:
    found = {route["name"]: route for route in report("svc/reviews", shop)["routes"]}
    assert {name: route["roles"] for name, route in found.items()} == {
        "reviews-mesh": ["parent", "backend"],
        "reviews-edge": ["backend"],
    }
    assert found["reviews-edge"]["rules"][0]["matches"] == ["path PathPrefix /reviews"]
    assert found["reviews-edge"]["parents"] == ["Gateway default/public, web"]


def test_where_it_is_reached(shop: str) -> None:
    exposed = report("reviews", shop)["exposed"]
    assert [(one["urls"], one["gateway"]["name"], one["via"]["name"]) for one in exposed] == [
        (["https://shop.example.com/reviews"], "edge", "edge"),
        (["http://www.example.com:8080/reviews"], "public", "reviews-edge"),
    ]
    assert exposed[0]["gateway"]["line"] == line("- hosts: [default/shop.example.com]")


def test_who_may_connect(shop: str) -> None:
    modes = report("reviews", shop)["mutualTls"]
    assert [(one["port"], one["mode"], one["workloads"]) for one in modes] == [
        (8080, "STRICT", ["reviews-v1"]),
        (9081, "DISABLE", ["reviews-v1", "reviews-v2-0"]),
        (3306, "STRICT", ["reviews-v1", "reviews-v2-0"]),
        (7000, "STRICT", ["reviews-v1", "reviews-v2-0"]),
        (9080, "STRICT", ["reviews-v2-0"]),
    ]
    by = modes[1]["decidedBy"]
    assert (by["name"], by["line"]) == ("reviews", line("mode: DISABLE", "kind: PeerAuthentication"))
    assert modes[0]["decidedBy"]["namespace"] == "istio-system"


def test_the_modes_are_those_that_are_compiled() -> None:
    parts: list[Part] = [part for document in load(SHOP, "f.yaml")[0] for part in unwrap(document)[0]]
    picture = Picture(survey(Input(parts=parts)))
    item = picture.scene.find("/Service", "default", "reviews")
    assert item is not None
    members = members_of(picture, item)
    assert len(members) == 2
    for pod in (*members, *picture.scene.pods):
        labels = tuple(sorted(pod.labels.items()))
        modes = picture.world.peer_modes(pod.namespace, labels)
        for port in (8080, 9081, 1):
            said = mode_of(picture.scene, pod.namespace, pod.labels, port)
            assert said["mode"] == modes.of(port).value, (pod.owner.origin, port)


TOLD = "traces 10 % of what is called to weft; no logs; metrics with 1 change"


def test_policies(shop: str) -> None:
    policies = report("reviews", shop)["policies"]
    assert {(one["kind"], one["name"], one["scope"], one["summary"]) for one in policies} == {
        ("AuthorizationPolicy", "reviews", "workload", "DENY, 1 rule, dry run"),
        ("AuthorizationPolicy", "everybody", "mesh", "ALLOW nothing"),
        ("AuthorizationPolicy", "at-the-service", "target", "ALLOW nothing"),
        ("Telemetry", "logs", "namespace", TOLD),
        ("Sidecar", "default", "namespace", "sees ./*, istio-system/*"),
        ("EnvoyFilter", "patch", "workload", "1 patch"),
    }


def test_findings_of_all_that_has_to_do_with_it(shop: str) -> None:
    found = report("reviews", shop)["findings"]
    assert {(one["code"], one["origin"]) for one in found} >= {
        ("IST0118", "Service default/reviews"),
        ("IST0101", "VirtualService default/edge"),
    }
    assert not [one for one in found if one["origin"] == "Service default/lonely"]


def test_a_workload(shop: str) -> None:
    found = report("workload/reviews-v1", shop)
    assert found["identity"] == "spiffe://cluster.local/ns/default/sa/reviews"
    assert found["ports"] == [{"name": "http", "number": 8080}]
    (service,) = found["services"]
    assert (service["name"], [one["name"] for one in service["subsets"]]) == ("reviews", ["v1"])
    assert [(one["port"], one["mode"]) for one in found["mutualTls"]] == [(8080, "STRICT")]
    assert "reviews" in {one["name"] for one in found["policies"]}


def test_a_workload_that_runs(shop: str) -> None:
    """Its replicas stand for it, and their proxies are its own."""
    entry = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1-0, labels: {weft.dev/workload: reviews-v1}}
spec: {address: 10.0.0.1, labels: {app: reviews, version: v1, weft.dev/workload: reviews-v1}}
"""
    parts = [part for document in load(f"{SHOP}---{entry}", "f.yaml")[0] for part in unwrap(document)[0]]
    types = {"cds": {"status": "SYNCED"}}
    rows: list[dict[str, Any]] = [
        {"name": name, "namespace": "default", "types": types, "rejected": [], "version": "1.40"}
        for name in ("reviews-v1-0", "reviews-v2-0")
    ]
    picture = Picture(survey(Input(parts=parts)), rows, {("default", "reviews"): "240.240.0.9"})
    item = picture.find(Asked.of("reviews", "default"))
    assert isinstance(item, Object)
    found = service(picture, item)
    assert found["addresses"] == ["240.240.0.9"]
    assert [one["workload"]["name"] for one in found["endpoints"]] == ["reviews-v1-0", "reviews-v2-0"]
    pod = picture.find(Asked.of("workload/reviews-v1", "default"))
    assert isinstance(pod, Bearer)
    said = workload(picture, pod)
    assert [(one["name"], one["address"]) for one in said["replicas"]] == [("reviews-v1-0", "10.0.0.1")]
    assert [row["name"] for row in said["proxies"]] == ["reviews-v1-0"]
    assert "cds SYNCED" in text(said)


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        ("reviews", "Service", "reviews"),
        ("reviews.default", "Service", "reviews"),
        ("reviews.default.svc.cluster.local", "Service", "reviews"),
        ("reviews-v1", "Workload", "reviews-v1"),
        ("workload/reviews-v1.default", "Workload", "reviews-v1"),
        ("we/reviews-v2-0", "WorkloadEntry", "reviews-v2-0"),
        ("db.example.com", "ServiceEntry", "database"),
        ("serviceentry/database", "ServiceEntry", "database"),
        ("pod/batch-1", "Pod", "batch-1"),
        ("pod/reviews-v2-0.default", "WorkloadEntry", "reviews-v2-0"),
        ("deploy/reviews-v1", "Workload", "reviews-v1"),
    ],
)
def test_names(shop: str, target: str, kind: str, name: str) -> None:
    resource = report(target, shop)["resource"]
    assert (resource["kind"], resource["name"]) == (kind, name)
    assert resource["line"] == line(f"name: {name}\n", f"kind: {kind}\n") - 3


def test_two_words_as_istioctl_has_them(shop: str) -> None:
    assert report("pod", "batch-1", shop)["name"] == "batch-1"
    done = weft("pod", shop)
    assert getattr(done.exception, "exit_code", None) == 2


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("revews", "did you mean 'reviews'?"),
        ("strict", "one is in team: add -n team"),
        ("svc/reviews-v1", "there is a Workload of that name"),
        ("vs/reviews", "what can be described: service/NAME"),
    ],
)
def test_nothing_of_that_name(shop: str, target: str, hint: str) -> None:
    done = weft(target, shop)
    assert getattr(done.exception, "exit_code", None) == 1
    assert hint in getattr(done.exception, "hint", "")


def test_a_pod_without_sidecar(shop: str) -> None:
    assert "it has no sidecar" in weft("batch-1", shop).stdout


def test_as_text(shop: str) -> None:
    shown = weft("reviews", shop).stdout
    assert shown.splitlines()[0] == "Service default/reviews (shop.yaml:1)"
    for part in (
        "  9081  admin  to 9081  grpc  appProtocol: grpc (shop.yaml:",
        "WorkloadEntry default/reviews-v2-0  10.0.0.7  healthy",
        "subset v1  version=v1  reviews-v1 (shop.yaml:",
        "-> reviews.default.svc.cluster.local:9080 subset v1 (90), ",
        "https://shop.example.com/reviews  Gateway default/edge (shop.yaml:",
        "STRICT   mTLS only",
        "Info [IST0118] (Service default/reviews shop.yaml:",
    ):
        assert part in shown, part


def test_yaml_says_the_same_as_json(shop: str) -> None:
    assert yaml.safe_load(weft("reviews", shop, "-o", "yaml").stdout) == report("reviews", shop)


ASKED = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app}]}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask}
spec: {selector: {matchLabels: {app: web}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters:
    - {type: ExternalAuth, externalAuth: {protocol: GRPC, grpc: {}, backendRef: {name: authz, port: 9000}}}
    backendRefs: [{name: web, port: 80}]
"""


def test_whoever_else_decides_is_named(tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text(ASKED)
    shown = json.dumps(report("web", str(tmp_path / "asked.yaml")))
    assert "CUSTOM, 1 rule, opa decides" in shown
    assert "ExternalAuth by authz:9000" in shown
