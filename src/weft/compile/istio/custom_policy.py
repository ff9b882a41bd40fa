"""AuthorizationPolicies of action CUSTOM: somebody else decides about what their rules fit.

Source: istio pilot/pkg/security/authz/builder/builder.go. All of a proxy's policies name the same provider:
where they do not, or where that cannot be asked, what their rules fit is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from weft import ir
from weft.compile.istio.authorization_policy import (
    Policies,
    Selected,
    is_tried_out,
    rules_of,
    targets_of,
    unguarded,
)
from weft.compile.istio.extension_provider import Found, Providers, authorizer_named
from weft.compile.memo import Memo
from weft.compile.protocol import Protocol
from weft.compile.registry import Services
from weft.compile.settings import Settings
from weft.errors import Problem, Severity
from weft.model.authorization_policy import AuthorizationPolicy
from weft.names import CONSULTATION_IN_VAIN, CONSULTATION_RULE

CUSTOM = "CUSTOM"
UNHEEDED = "WEFT0102"


@dataclass(frozen=True, slots=True)
class Consultations:
    """Who is asked about requests, and about connections of which a proxy sees no requests."""

    http: tuple[ir.Consultation, ...]
    tcp: tuple[ir.Consultation, ...]


def consultations_of(policies: Selected, settings: Settings, services: Services, memo: Memo) -> Consultations:
    """Who is asked for a proxy with these policies."""
    custom = memo(_custom, policies)
    if not custom:
        return _NOBODY
    return memo(_consultations, custom, settings.providers, settings.accepted_trust_domains, services, memo)


def consulted(
    listeners: tuple[ir.Listener, ...], consultations: Consultations, memo: Memo
) -> tuple[ir.Listener, ...]:
    """Listeners of which those on the way in ask."""
    if consultations == _NOBODY:
        return listeners
    return tuple(
        memo(_listener, listener, consultations)
        if listener.direction is not ir.Direction.OUTBOUND
        else listener
        for listener in listeners
    )


_NOBODY = Consultations((), ())


def unseen(
    policies: Selected, consultations: Consultations, proxy: ir.Proxy, memo: Memo
) -> tuple[Problem, ...]:
    """Authorizers that a proxy has no way to: hidden from it, or at a port that their service has not."""
    wanted = {one.authorizer.cluster for one in consultations.http if one.authorizer is not None}
    missing = wanted - memo(_names, proxy.clusters) if wanted else wanted
    return tuple(
        _problem(
            policy,
            f"{proxy.identity.name.name}.{proxy.identity.name.namespace} has no way to {cluster}: "
            "what the rules fit is refused",
            "spec.provider.name",
            "see that the service has the port, and that a Sidecar or exportTo does not hide it",
        )
        for cluster in sorted(missing)
        for policy in memo(_custom, policies)
    )


def _names(clusters: tuple[ir.Cluster, ...]) -> frozenset[str]:
    return frozenset(cluster.name for cluster in clusters)


def _custom(policies: Selected) -> Selected:
    """A dry run is none: nobody could tell the authorizer that it is one."""
    return tuple(policy for policy in policies if policy.spec.action == CUSTOM and not is_tried_out(policy))


def provider_of(policy: AuthorizationPolicy) -> str:
    """The name of the provider."""
    return (policy.spec.provider.name if policy.spec.provider else None) or ""


def _consultations(
    policies: Selected,
    providers: Providers,
    trust_domains: tuple[str, ...],
    services: Services,
    memo: Memo,
) -> Consultations:
    names = sorted({provider_of(policy) for policy in policies})
    http: list[ir.Consultation] = []
    tcp: list[ir.Consultation] = []
    for name in names:
        found = authorizer_named(name, providers, services).authorizer if len(names) == 1 else None
        ones = [policy for policy in policies if provider_of(policy) == name]
        for consultations, streams in ((http, False), (tcp, True)):
            if streams and found is not None and found.protocol is not ir.AuthorizerProtocol.GRPC:
                continue  # as in Istio: it can be asked about requests only
            prefix = f"{CONSULTATION_RULE}-{name}-" if name else f"{CONSULTATION_RULE}-"
            rules = rules_of(ones, ir.RuleAction.DENY, trust_domains, memo, tcp=streams, prefix=prefix)
            if found is None:
                vain = tuple(replace(rule, name=rule.name + CONSULTATION_IN_VAIN) for rule in rules.rules)
                rules = replace(rules, rules=vain)
            consultations.append(ir.Consultation(authorizer=found, rules=rules))
    return Consultations(tuple(http), tuple(tcp))


def _listener(listener: ir.Listener, consultations: Consultations) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, consultations))


def _chain(chain: ir.FilterChain, consultations: Consultations) -> ir.FilterChain:
    handler = chain.handler
    if isinstance(handler, ir.HttpHandler):
        return replace(chain, handler=replace(handler, consultations=consultations.http))
    if unguarded(chain):
        return chain
    return replace(chain, handler=replace(handler, consultations=consultations.tcp))


def problems(policies: Policies, settings: Settings, services: Services, memo: Memo) -> tuple[Problem, ...]:
    """Policies whose provider cannot be asked: what they are about is refused."""
    custom = tuple(
        policy
        for _, policy in sorted(policies.items())
        if policy.spec.action == CUSTOM and not is_tried_out(policy)
    )
    found: list[Problem] = []
    for policy in custom:
        known = memo(authorizer_named, provider_of(policy), settings.providers, services)
        found += _problems(policy, known, services)
        found += _rivals(policy, custom, settings.root_namespace)
    return tuple(found)


def _rivals(policy: AuthorizationPolicy, custom: Selected, root: str) -> Iterator[Problem]:
    """Others that hold for all the workloads of this one, and want somebody else to be asked."""
    own, home = _labels(policy), policy.metadata.namespace
    for other in custom:
        if provider_of(other) == provider_of(policy) or targets_of(other) != targets_of(policy):
            continue
        if other.metadata.namespace in {home, root} and _labels(other) <= own:
            message = (
                f"{other.metadata.namespace}/{other.metadata.name} names the provider {provider_of(other)!r} "
                "for the same workloads, which may have one only: what their rules fit is refused"
            )
            yield _problem(policy, message, "spec.provider.name", "name the same provider in both")


def _labels(policy: AuthorizationPolicy) -> frozenset[tuple[str, str]]:
    spec = policy.spec
    return frozenset(((spec.selector.match_labels if spec.selector else None) or {}).items())


def _problems(policy: AuthorizationPolicy, found: Found, services: Services) -> Iterator[Problem]:
    path = "spec.provider.name"
    if found.authorizer is None:
        message = f"{found.complaint}: what the rules fit is refused"
        yield _problem(policy, message, path, found.hint)
    elif found.authorizer.protocol is ir.AuthorizerProtocol.HTTP and (port := _stream(policy, services)):
        message = f"{port} takes connections without requests, of which an authorizer by HTTP is not asked"
        yield _problem(policy, message, path, "name one of kind envoyExtAuthzGrpc, or refuse them with DENY")


def _stream(policy: AuthorizationPolicy, services: Services) -> str:
    """A port of the workloads that a policy selects where its proxies see no requests."""
    namespace, wanted = policy.metadata.namespace, _labels(policy)
    for service in (one for group in services.by_host.values() for one in group):
        if (
            service.namespace != namespace
            or service.selector is None
            or not wanted <= frozenset(service.selector)
        ):
            continue
        for port in service.ports:
            if not port.protocol.may_be_http and port.protocol is not Protocol.UDP:
                return f"port {port.number} of {service.host}"
    return ""


def _problem(policy: AuthorizationPolicy, message: str, path: str, hint: str) -> Problem:
    return Problem(UNHEEDED, message, None, hint, path, severity=Severity.WARNING, resource=str(policy.key))
