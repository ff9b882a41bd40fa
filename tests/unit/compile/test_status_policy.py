"""Status of BackendTLSPolicies: what they are worth to the Gateways that use their targets."""

from __future__ import annotations

import pytest
from tests.support.compiled import service, world
from tests.support.judged import authorities, gateway, route, status, verdicts

WEB = service("web", 80)
FINE = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
CA = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]"
TARGET = "{group: '', kind: Service, name: web}"


def policy(
    targets: str = f"[{TARGET}]", trust: str = CA, name: str = "tls", created: str = "2026-01-01T00:00:00Z"
) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, creationTimestamp: "{created}", generation: 3}}
spec: {{targetRefs: {targets}, validation: {{hostname: web.example.com, {trust}}}}}
"""


def test_each_gateway_with_a_route_to_the_target_is_an_ancestor() -> None:
    apart = gateway().replace("name: edge", "name: apart")
    of = world(WEB, authorities("ca"), gateway(), apart, route(), policy())
    edge, mesh = status(of, "BackendTLSPolicy", "tls")["ancestors"]
    assert edge["ancestorRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "default",
        "name": "edge",
    }
    assert edge["controllerName"] == "weft.dev/gateway-controller"
    assert mesh["ancestorRef"] == {"group": "", "kind": "Service", "name": "web"}
    assert mesh["controllerName"] == "weft.dev/mesh-controller"
    for ancestor in (edge, mesh):
        assert verdicts(ancestor["conditions"]) == FINE
        assert {item["observedGeneration"] for item in ancestor["conditions"]} == {3}


def test_a_route_that_is_refused_makes_no_ancestor() -> None:
    of = world(WEB, authorities("ca"), gateway(), route(parentRefs="[{name: edge, port: 81}]"), policy())
    (mesh,) = status(of, "BackendTLSPolicy", "tls")["ancestors"]
    assert mesh["ancestorRef"]["kind"] == "Service"


@pytest.mark.parametrize(
    ("targets", "trust", "accepted", "resolved"),
    [
        (
            f"[{TARGET}]",
            "caCertificateRefs: [{group: '', kind: ConfigMap, name: nobody}]",
            "!NoValidCACertificate",
            "!InvalidCACertificateRef",
        ),
        (
            f"[{TARGET}]",
            "caCertificateRefs: [{group: x.io, kind: Bundle, name: ca}]",
            "!NoValidCACertificate",
            "!InvalidKind",
        ),
        (f"[{TARGET}]", "wellKnownCACertificates: System", "Accepted", "ResolvedRefs"),
        (f"[{TARGET}]", "wellKnownCACertificates: example.com/ours", "!Invalid", "ResolvedRefs"),
        ("[{group: '', kind: Service, name: nobody}]", CA, "!TargetNotFound", "ResolvedRefs"),
        ("[{group: '', kind: Service, name: web, sectionName: x}]", CA, "!TargetNotFound", "ResolvedRefs"),
        ("[{group: apps, kind: Deployment, name: web}]", CA, "!Invalid", "ResolvedRefs"),
    ],
)
def test_policies_that_are_not_in_force(targets: str, trust: str, accepted: str, resolved: str) -> None:
    of = world(WEB, authorities("ca"), gateway(), route(), policy(targets, trust))
    ancestors = status(of, "BackendTLSPolicy", "tls")["ancestors"]
    assert [verdicts(item["conditions"]) for item in ancestors] == [
        {"Accepted": accepted, "ResolvedRefs": resolved}
    ] * len(ancestors)
    assert ancestors


def test_the_older_policy_of_a_target_holds() -> None:
    newer = policy(name="late", created="2026-01-02T00:00:00Z")
    port = policy("[{group: '', kind: Service, name: web, sectionName: http}]", name="port")
    of = world(WEB, authorities("ca"), gateway(), route(), policy(), newer, port)
    said = {
        name: {
            verdicts(item["conditions"])["Accepted"]
            for item in status(of, "BackendTLSPolicy", name)["ancestors"]
        }
        for name in ("tls", "late", "port")
    }
    assert said == {"tls": {"Accepted"}, "late": {"!Conflicted"}, "port": {"Accepted"}}


def test_of_several_targets_each_is_told_apart() -> None:
    targets = f"[{TARGET}, {{group: '', kind: Service, name: nobody}}]"
    of = world(WEB, authorities("ca"), gateway(), route(), policy(targets))
    said = {
        item["ancestorRef"]["name"]: verdicts(item["conditions"])["Accepted"]
        for item in status(of, "BackendTLSPolicy", "tls")["ancestors"]
    }
    assert said == {"edge": "Accepted", "web": "Accepted", "nobody": "!TargetNotFound"}
