"""What of DestinationRules has no effect where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile.registry import Services
from weft.compile.service import Resolution
from weft.compile.settings import Settings
from weft.compile.vips import virtual
from weft.errors import Problem, Severity
from weft.model.destination_rule import DestinationRule, PortTrafficPolicy, TrafficPolicy
from weft.model.load_balancer import LoadBalancerSettings
from weft.model.resource import Key
from weft.names import expand_host

_UNHEEDED: Final = "WEFT0102"
_SLOW: Final = frozenset({None, "UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "ROUND_ROBIN"})

Flaw = tuple[str, str, str, Severity]
"""Path, message, hint and how bad it is."""


def rule_problems(
    rules: Mapping[Key, DestinationRule], services: Services, settings: Settings
) -> tuple[Problem, ...]:
    """Of all rules, in the order of their names."""
    return tuple(
        Problem(_UNHEEDED, message, None, hint, path, severity=severity, resource=str(key))
        for key, rule in sorted(rules.items())
        for path, message, hint, severity in (*_flaws(rule), *_dials(rule, services, settings))
    )


def _flaws(rule: DestinationRule) -> Iterator[Flaw]:
    for path, policy in _policies(rule):
        if policy.load_balancer is not None:
            yield from _balancer(f"{path}.loadBalancer", policy.load_balancer)
        tls = policy.tls
        if tls is not None and tls.credential_name and rule.spec.workload_selector is None:
            yield (
                f"{path}.tls.credentialName",
                "this is for gateways: sidecars send plain text, as with Istio",
                "for sidecars name files (caCertificates), or add workloadSelector",
                Severity.INFO,
            )


def _dials(rule: DestinationRule, services: Services, settings: Settings) -> Iterator[Flaw]:
    """PASSTHROUGH leads to where the client wanted to go: nowhere, if it dials a virtual address."""
    host = expand_host(rule.spec.host, rule.metadata.namespace, settings.domain).lower()
    found = [one for one in services.by_host.get(host, ()) if one.resolution is Resolution.ENDPOINTS]
    if not any(one.addresses and all(map(virtual, one.addresses)) for one in found):
        return
    for path, policy in _policies(rule):
        if policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH":
            message = f"the address of {host} is virtual: only clients that dial its endpoints get anywhere"
            hint = "make the Service headless (clusterIP: None), or balance in another way"
            yield f"{path}.loadBalancer.simple", message, hint, Severity.WARNING


def _policies(rule: DestinationRule) -> Iterator[tuple[str, TrafficPolicy | PortTrafficPolicy]]:
    """Every policy with its path."""
    own = [("spec.trafficPolicy", rule.spec.traffic_policy)]
    own += [
        (f"spec.subsets[{place}].trafficPolicy", subset.traffic_policy)
        for place, subset in enumerate(rule.spec.subsets or ())
    ]
    for path, policy in own:
        if policy is None:
            continue
        yield path, policy
        for place, part in enumerate(policy.port_level_settings or ()):
            yield f"{path}.portLevelSettings[{place}]", part


def _balancer(path: str, balancer: LoadBalancerSettings) -> Iterator[Flaw]:
    """What Envoy's balancers cannot do together."""
    for name, warm in (("warmup", balancer.warmup), ("warmupDurationSecs", balancer.warmup_duration_secs)):
        if warm is not None and (balancer.consistent_hash is not None or balancer.simple not in _SLOW):
            hint = "choose LEAST_REQUEST or ROUND_ROBIN, or remove it"
            yield f"{path}.{name}", "this way to balance spares no new endpoints", hint, Severity.WARNING
    zones = balancer.zone_aware_lb_setting
    if zones is not None and zones.enabled is not False:
        way = "backendUtilization" if balancer.backend_utilization is not None else ""
        if balancer.consistent_hash is not None:
            way = "consistentHash"
        if way:
            message = f"{way} keeps to the region only: zones are not looked at"
            hint = "write localityLbSetting: its zones are places to fall back to"
            yield f"{path}.zoneAwareLbSetting", message, hint, Severity.WARNING
