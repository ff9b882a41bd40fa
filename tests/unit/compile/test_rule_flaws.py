"""Parts of DestinationRules that have no effect are told with their path."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import service, world

from weft.compile.problems import problems_of
from weft.errors import Severity

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
"""
HASH = "consistentHash: {useSourceIp: true}"


@pytest.mark.parametrize(
    ("spec", "path", "severity"),
    [
        (
            "  trafficPolicy: {loadBalancer: {simple: RANDOM, warmup: {duration: 9s}}}",
            "spec.trafficPolicy.loadBalancer.warmup",
            Severity.WARNING,
        ),
        (
            f"  trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, loadBalancer: {{{HASH}, warmupDurationSecs: 9s}}}}]}}",
            "spec.trafficPolicy.portLevelSettings[0].loadBalancer.warmupDurationSecs",
            Severity.WARNING,
        ),
        (
            f"  subsets: [{{name: v1, trafficPolicy: {{loadBalancer: {{{HASH}, zoneAwareLbSetting: {{}}}}}}}}]",
            "spec.subsets[0].trafficPolicy.loadBalancer.zoneAwareLbSetting",
            Severity.WARNING,
        ),
        (
            "  trafficPolicy: {loadBalancer: {backendUtilization: {}, zoneAwareLbSetting: {enabled: true}}}",
            "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting",
            Severity.WARNING,
        ),
        (
            "  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}",
            "spec.trafficPolicy.loadBalancer.simple",
            Severity.WARNING,
        ),
        (
            "  trafficPolicy: {tls: {mode: SIMPLE, credentialName: web}}",
            "spec.trafficPolicy.tls.credentialName",
            Severity.INFO,
        ),
    ],
)
def test_what_has_no_effect(spec: str, path: str, severity: Severity) -> None:
    found = problems_of(world(service("web"), RULE + spec), "default")
    assert [(problem.path, problem.severity, problem.code) for problem in found] == [
        (path, severity, "WEFT0102")
    ]
    assert found[0].resource == "DestinationRule default/web"


@pytest.mark.parametrize(
    "policy",
    [
        "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 9s}}",
        "loadBalancer: {backendUtilization: {}, warmup: {duration: 9s}}",
        "loadBalancer: {simple: RANDOM, zoneAwareLbSetting: {}}",
        f"loadBalancer: {{{HASH}, zoneAwareLbSetting: {{enabled: false}}}}",
        "tls: {mode: SIMPLE, caCertificates: /ca.pem}",
    ],
)
def test_what_has_one(policy: str) -> None:
    assert problems_of(world(service("web"), f"{RULE}  trafficPolicy: {{{policy}}}"), "default") == ()


def test_a_credential_for_selected_workloads_is_heeded() -> None:
    rule = f"{RULE}  workloadSelector: {{matchLabels: {{app: a}}}}\n  trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: web}}}}"
    assert problems_of(world(service("web"), rule), "default") == ()


def test_what_is_dialled_itself_may_be_passed_through() -> None:
    rule = f"{RULE}  trafficPolicy: {{loadBalancer: {{simple: PASSTHROUGH}}}}"
    assert problems_of(world(service("web", clusterIP="None"), rule), "default") == ()
    assert problems_of(world(service("web", clusterIP="10.96.0.9"), rule), "default") == ()
