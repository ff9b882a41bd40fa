"""BackendTLSPolicy: TLS from gateways, and as in Istio from sidecars, to what is no part of the mesh."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.gatewayapi.certificates import BACKEND, CLIENT, RESOLVED, authorities, key_pair
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.memo import Memo
from weft.compile.protocol import Protocol
from weft.compile.rules import Clusters, Rules
from weft.compile.service import Service
from weft.model.backend_tls_policy import BackendTLSPolicy, LocalPolicyTargetReferenceWithSectionName
from weft.model.gateway import Gateway
from weft.model.resource import Key
from weft.names import ClusterName

_SYSTEM: Final = "System"
_RESOLVED: Final = Verdict(reason=RESOLVED)
_KINDS: Final = {
    ("", "Service"): "/Service",
    ("networking.istio.io", "ServiceEntry"): "networking.istio.io/ServiceEntry",
}

Entry = tuple[str, int, bool, str, str, tuple[str, ...]]
"""Host, port, whether it speaks HTTP/2 by itself, SNI, name of the authorities, and accepted names.

Plain values, so that equal ones are found again. No authorities: connections must fail.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One targetRef: the services that it means (several hosts of a ServiceEntry), and whether it holds."""

    ref: LocalPolicyTargetReferenceWithSectionName
    services: tuple[Service, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """The conditions of a policy, the same for every Gateway that uses a target of it."""

    accepted: Verdict
    resolved: Verdict
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BackendTls:
    """What all policies ask for, by host and port; the same object while that is the same.

    ``limits``: what a handshake may use.
    """

    entries: tuple[Entry, ...]
    limits: ir.TlsLimits


def verdict_of(policy: BackendTLSPolicy, facts: Facts) -> PolicyVerdict:
    """Whether a policy is in force, and why not."""
    targets = tuple(_target(ref, policy, facts) for ref in policy.spec.target_refs)
    trust, resolved = _trust(policy, facts)
    accepted = next((item.verdict for item in targets if item.verdict.holds), None)
    accepted = accepted or (targets[0].verdict if targets else Verdict())
    if accepted.holds and not trust:
        reason = "NoValidCACertificate" if policy.spec.validation.ca_certificate_refs else "Invalid"
        accepted = Verdict(holds=False, reason=reason, message=resolved.message or _unknown(policy))
    return PolicyVerdict(accepted=accepted, resolved=resolved, targets=targets)


def _unknown(policy: BackendTLSPolicy) -> str:
    return f"{policy.spec.validation.well_known_ca_certificates} is not known: write {_SYSTEM}"


def _trust(policy: BackendTLSPolicy, facts: Facts) -> tuple[str, Verdict]:
    """The name of the authorities, empty when there are none, and the condition ResolvedRefs."""
    rule = policy.spec.validation
    if not rule.ca_certificate_refs:
        known = str(rule.well_known_ca_certificates) == _SYSTEM
        return (_SYSTEM if known else ""), _RESOLVED
    namespace = policy.metadata.namespace
    found, verdict = authorities(rule.ca_certificate_refs, "BackendTLSPolicy", namespace, BACKEND, facts)
    return (found.name if found is not None else ""), verdict


def _target(ref: LocalPolicyTargetReferenceWithSectionName, policy: BackendTLSPolicy, facts: Facts) -> Target:
    def refused(reason: str, message: str, services: tuple[Service, ...] = ()) -> Target:
        return Target(
            ref=ref, services=services, verdict=Verdict(holds=False, reason=reason, message=message)
        )

    kind = _KINDS.get((str(ref.group), str(ref.kind)))
    if kind is None:
        return refused(
            "Invalid", f"a {ref.kind} of group {str(ref.group)!r} cannot be a target, only a Service"
        )
    namespace, name = policy.metadata.namespace, str(ref.name)
    services = facts.services.by_source.get(Key(kind, namespace, name), ())
    if not services:
        return refused("TargetNotFound", f"there is no {ref.kind} {namespace}/{name}")
    section = str(ref.section_name or "")
    if section and not any(port.name == section for service in services for port in service.ports):
        return refused("TargetNotFound", f"{ref.kind} {namespace}/{name} has no port named {section}")
    first = facts.memo(_owners, facts).get((kind, namespace, name, section))
    if first is not None and first != policy.key:
        message = f"BackendTLSPolicy {first.namespace}/{first.name}, which goes before, has the same target"
        return refused("Conflicted", message, services)
    return Target(ref=ref, services=services, verdict=Verdict())


def _owners(facts: Facts) -> dict[tuple[str, str, str, str], Key]:
    """The policy that each target obeys: the oldest, then the first by name."""
    found: dict[tuple[str, str, str, str], Key] = {}
    for policy in sorted(facts.tls_policies.values(), key=lambda policy: age(policy.metadata)):
        for ref in policy.spec.target_refs:
            kind = _KINDS.get((str(ref.group), str(ref.kind)), "")
            place = (kind, policy.metadata.namespace, str(ref.name), str(ref.section_name or ""))
            found.setdefault(place, policy.key)
    return found


def backend_tls(facts: Facts) -> BackendTls:
    """What all policies ask for."""
    return facts.memo(_collected, facts)


def _collected(facts: Facts) -> BackendTls:
    found: dict[tuple[str, int], tuple[bool, Entry]] = {}
    for policy in facts.tls_policies.values():
        verdict = facts.memo(verdict_of, policy, facts)
        trust, _ = _trust(policy, facts)
        rule = policy.spec.validation
        sni = str(rule.hostname)
        names = tuple(
            str(name.hostname if name.type == "Hostname" else name.uri)
            for name in rule.subject_alt_names or ()
        )
        for target in verdict.targets:
            if not target.verdict.holds:
                continue
            section = str(target.ref.section_name or "")
            for service in target.services:
                for port in service.ports:
                    place = (service.host, port.number)
                    known = found.get(place)
                    if section not in {"", port.name} or port.protocol is Protocol.UDP:
                        continue
                    if known is None or (section and not known[0]):  # what names the port goes before
                        entry = (*place, port.protocol.is_http2, sni, trust, names or (sni,))
                        found[place] = bool(section), entry
    limits = facts.settings.enforced(ir.TlsLimits(minimum=ir.TlsVersion.V1_2))
    return facts.memo(BackendTls, tuple(found[place][1] for place in sorted(found)), limits)


def client_certificate(gateway: Gateway, facts: Facts) -> tuple[ir.SecretRef | None, Verdict]:
    """What a Gateway shows to its backends, and its condition ResolvedRefs."""
    backend = gateway.spec.tls.backend if gateway.spec.tls is not None else None
    ref = backend.client_certificate_ref if backend is not None else None
    if ref is None:
        return None, _RESOLVED
    return key_pair(ref, "Gateway", gateway.metadata.namespace, CLIENT, facts)


def secured(clusters: Clusters, rules: Rules, wanted: BackendTls, certificate: str, memo: Memo) -> Clusters:
    """The clusters with TLS where policies ask for it; a DestinationRule that says ``tls`` goes before.

    ``certificate``: the name over SDS of the one to show, or empty.
    """
    by_place = {entry[:2]: entry for entry in wanted.entries}
    if not by_place:
        return clusters
    return memo(Clusters, tuple(_all(clusters.all, rules, by_place, wanted.limits, certificate, memo)))


def _all(
    clusters: Iterable[ir.Cluster],
    rules: Rules,
    by_place: dict[tuple[str, int], Entry],
    limits: ir.TlsLimits,
    certificate: str,
    memo: Memo,
) -> Iterable[ir.Cluster]:
    hosts = {host for host, _ in by_place}
    for cluster in clusters:
        name = ClusterName.parse(cluster.name) if cluster.service and cluster.service.host in hosts else None
        entry = by_place.get((name.host, name.port)) if name is not None else None
        if name is None or entry is None:
            yield cluster
            continue
        subset = rules.of(name.host).subset(name.subset)
        if subset is not None and subset.policy(name.port).tls is not None:
            yield cluster
        elif entry[4]:
            yield memo(_secure, cluster, entry, limits, certificate)
        # Else nobody could be believed. Without the cluster connections fail, and HTTP answers 5xx.


def _secure(cluster: ir.Cluster, entry: Entry, limits: ir.TlsLimits, certificate: str) -> ir.Cluster:
    _, _, http2, sni, trust, names = entry
    ads = ir.SecretFrom.ADS
    system = ir.SecretRef(source=ir.SecretFrom.SYSTEM, name="")
    return replace(
        cluster,
        protocol=ir.UpstreamProtocol.HTTP2 if http2 else ir.UpstreamProtocol.NEGOTIATED,
        mutual=ir.MutualTls.ALWAYS,
        tls=ir.UpstreamTls(
            sni=sni,
            certificate=ir.SecretRef(source=ads, name=certificate) if certificate else None,
            trust=system if trust == _SYSTEM else ir.SecretRef(source=ads, name=trust),
            peer_names=tuple(_name(name) for name in names),
            limits=limits,
        ),
    )


def _name(name: str) -> ir.TextMatch:
    if name.startswith("*."):
        return ir.TextMatch(test=ir.TextTest.SUFFIX, value=name[1:])
    return ir.TextMatch(test=ir.TextTest.EXACT, value=name)
