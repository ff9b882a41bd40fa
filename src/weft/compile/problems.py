"""What of the rules that a proxy obeys cannot be honoured. Istio's codes where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.compile import mesh
from weft.compile.destinations import Targets
from weft.compile.gatewayapi import gateway_flaws
from weft.compile.gatewayapi.flaws import all_problems
from weft.compile.istio import (
    authorization_flaws,
    custom_policy,
    delegate,
    flaws,
    peer_authentication,
    rule_flaws,
    telemetry_flaws,
)
from weft.compile.istio.annotation_flaws import annotation_problems
from weft.compile.istio.request_authentication import key_problems
from weft.compile.istio.request_match import claim_path
from weft.compile.istio.virtual_service import MESH, bound_to
from weft.compile.memo import Memo
from weft.compile.mesh_routes import targets_of
from weft.compile.rate_limit import problems as limit_problems
from weft.compile.rules import Rules
from weft.compile.settings import Settings
from weft.compile.view import View, exported
from weft.compile.world import World
from weft.errors import Problem, Severity, did_you_mean
from weft.model.authorization_policy import AuthorizationPolicy
from weft.model.core import ConfigMap
from weft.model.destination_rule import DestinationRule
from weft.model.gateway import Gateway as ApiGateway
from weft.model.istio import Destination
from weft.model.istio_gateway import Gateway
from weft.model.mesh_config import MeshConfig
from weft.model.peer_authentication import PeerAuthentication
from weft.model.rate_limit import RateLimit
from weft.model.request_authentication import RequestAuthentication
from weft.model.resource import Key
from weft.model.sidecar import Sidecar
from weft.model.telemetry import Telemetry
from weft.model.virtual_service import VirtualService
from weft.model.workload import Workload
from weft.model.workload_entry import WorkloadEntry
from weft.model.workload_group import WorkloadGroup
from weft.names import ROOT_NAMESPACE, expand_host

NOT_FOUND: Final = "IST0101"
CLAIMS: Final = "WEFT0101"
UNHEEDED: Final = "WEFT0102"


def problems_of(world: World, namespace: str) -> tuple[Problem, ...]:
    """Problems of all that a namespace's proxies may obey, found once for each world."""
    found = world.problems.get(namespace)
    if found is None:
        found = world.problems[namespace] = _problems_of(world, namespace)
    return found


def _problems_of(world: World, namespace: str) -> tuple[Problem, ...]:
    memo, settings = world.memo, world.settings
    view = world.view(namespace)
    rules = world.rules(view, ())
    refused = memo(_foreign, world.all(MeshConfig), settings)
    refused += memo(_eclipsed, world.all(MeshConfig), world.all(ConfigMap))
    refused += memo(flaws.gateway_problems, world.all(Gateway), settings)
    refused += memo(flaws.sidecar_problems, world.all(Sidecar))
    refused += memo(flaws.service_problems, world.services)
    named = memo(flaws.named_entries, world.all(WorkloadEntry))
    refused += memo(flaws.entry_problems, named, world.services) if named else ()
    refused += memo(rule_flaws.rule_problems, world.all(DestinationRule), world.services, settings)
    refused += memo(limit_problems, world.all(RateLimit), world.services, settings.domain)
    refused += memo(peer_authentication.problems, world.all(PeerAuthentication), settings.root_namespace)
    policies = world.all(RequestAuthentication)
    refused += memo(key_problems, policies, world.key_sets) if policies else ()
    asking = world.all(AuthorizationPolicy)
    refused += memo(authorization_flaws.problems, asking, memo)
    refused += memo(custom_policy.problems, asking, settings, world.services, memo)
    told = world.all(Telemetry)
    given = (world.all(MeshConfig), world.all(ConfigMap))
    refused += memo(telemetry_flaws.problems, told, *given, settings, world.services)
    noted = (world.all(Workload), world.all(WorkloadGroup), world.all(ApiGateway))
    refused += memo(annotation_problems, *noted)
    facts = world.gateway_facts
    refused += memo(gateway_flaws.problems, facts)
    refused += memo(all_problems, facts.routes, facts) + memo(all_problems, facts.grpc_routes, facts)
    services, verified = world.all(VirtualService), bool(policies)
    return refused + memo(_all, services, view, rules, world.all(Gateway), verified, settings, memo)


def _all(
    resources: Mapping[Key, VirtualService],
    view: View,
    rules: Rules,
    known: Mapping[Key, Gateway],
    verified: bool,
    settings: Settings,
    memo: Memo,
) -> tuple[Problem, ...]:
    gateways = memo(_names, known)
    found: list[Problem] = []
    for _, resource in sorted(resources.items()):
        export = resource.spec.export_to or settings.export_virtual_services
        if exported(export, resource.metadata.namespace, view.namespace):
            targets = targets_of(resource, view, rules, settings, memo)
            found += memo(_problems, resource, targets, gateways, view, settings)
            found += memo(_claim_problems, resource, verified)
            found += flaws.virtual_service_problems(resource)
            if any(rule.delegate for rule in resource.spec.http or ()):
                found += delegate.problems(resource, resources, settings)
    return tuple(found)


def _foreign(configs: Mapping[Key, MeshConfig], settings: Settings) -> tuple[Problem, ...]:
    """Trust domains that are named, and are not the one that identities are signed in; empty roots."""
    rootless = tuple(
        _unheeded(
            key,
            "neither certificates in PEM nor the URL of a SPIFFE bundle: nobody is trusted by this",
            f"spec.caCertificates[{number}]",
            "give pem, as -----BEGIN CERTIFICATE-----…, or spiffeBundleUrl, as https://HOST/PATH",
        )
        for key, config in sorted(configs.items())
        for number, data in enumerate(config.spec.ca_certificates or ())
        if "-----BEGIN CERTIFICATE-----" not in (data.pem or "")
        and not (data.spiffe_bundle_url or "").startswith(("https://", "http://"))
    )
    return rootless + tuple(
        _unheeded(
            key,
            f"identities are signed in the trust domain {settings.trust_domain}, whatever this says",
            "spec.trustDomain",
            "start the control plane with --trust-domain, or leave it out",
        )
        for key, config in sorted(configs.items())
        if config.spec.trust_domain not in {None, settings.trust_domain}
    )


def _eclipsed(configs: Mapping[Key, MeshConfig], maps: Mapping[Key, ConfigMap]) -> tuple[Problem, ...]:
    """Settings of the mesh beside those that count."""
    counts = mesh.oldest(configs)
    if counts is None:
        return ()
    others = {key for key in configs if key != counts.key}
    others |= {key for key in maps if (key.name, key.namespace) == (mesh.CONFIG_MAP, ROOT_NAMESPACE)}
    name = f"{counts.key.namespace}/{counts.key.name}"
    message = f"the mesh's settings are those of the oldest MeshConfig, {name}: these do not count"
    return tuple(
        _unheeded(key, message, "data.mesh" if key in maps else "spec", "write into that, or delete it")
        for key in sorted(others)
    )


def _unheeded(key: Key, message: str, path: str, hint: str) -> Problem:
    return Problem(UNHEEDED, message, None, hint, path, severity=Severity.WARNING, resource=str(key))


def _names(gateways: Mapping[Key, Gateway]) -> frozenset[str]:
    return frozenset(f"{key.namespace}/{key.name}" for key in gateways)


def _problems(
    resource: VirtualService, targets: Targets, gateways: frozenset[str], view: View, settings: Settings
) -> tuple[Problem, ...]:
    found = [
        _warning(
            resource,
            NOT_FOUND,
            f"no Gateway is named {name!r}",
            "spec.gateways",
            did_you_mean(name, gateways),
        )
        for name in bound_to(resource)
        if name != MESH and name not in gateways
    ]
    for path, destination in _destinations(resource):
        host = expand_host(destination.host, resource.metadata.namespace, settings.domain).lower()
        target = targets.get(host)
        service = target.service
        alias = service.alias_of if service is not None else ""
        if alias:
            service = view.by_host.get(alias)
        if service is None and alias:
            message = f"{host!r} is another name of {alias!r}, which the mesh does not know"
            found.append(_warning(resource, NOT_FOUND, message, f"{path}.host", "add a ServiceEntry for it"))
        elif service is None:
            hint = did_you_mean(host, view.by_host) or "add a Service or a ServiceEntry for it"
            found.append(_warning(resource, NOT_FOUND, f"no service is named {host!r}", f"{path}.host", hint))
        elif destination.subset and target.rule.subset(destination.subset) is None:
            known = [subset.name for subset in target.rule.subsets]
            hint = did_you_mean(destination.subset, known) or "add it to a DestinationRule of the host"
            message = f"no DestinationRule defines the subset {destination.subset!r} of {host!r}"
            found.append(_warning(resource, NOT_FOUND, message, f"{path}.subset", hint))
        elif destination.port and destination.port.number and not service.port(destination.port.number):
            message = f"{host!r} has no port {destination.port.number}"
            ports = ", ".join(str(port.number) for port in service.ports)
            found.append(_warning(resource, NOT_FOUND, message, f"{path}.port", f"it has {ports}"))
    return tuple(found)


def _claim_problems(resource: VirtualService, verified: bool) -> tuple[Problem, ...]:
    """Routes by claims where there are none: in sidecars, and where no policy says whose tokens are good."""
    found: list[Problem] = []
    for index, rule in enumerate(resource.spec.http or ()):
        for place, match in enumerate(rule.match or ()):
            names = {"headers": match.headers, "withoutHeaders": match.without_headers}
            field = next((field for field, said in names.items() if any(map(claim_path, said or ()))), "")
            if not field:
                continue
            path = f"spec.http[{index}].match[{place}].{field}"
            if not verified:
                message = "no token is verified, so that no request has claims"
                hint = "apply a RequestAuthentication for the gateway"
                found.append(_warning(resource, CLAIMS, message, path, hint))
            elif MESH in (match.gateways or bound_to(resource)):
                message = "claims are known to gateways only: sidecars verify no tokens of requests they send"
                found.append(_warning(resource, CLAIMS, message, path, "bind it to gateways, not to mesh"))
    return tuple(found)


def _warning(resource: VirtualService, code: str, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(resource.key))


def _destinations(resource: VirtualService) -> Iterator[tuple[str, Destination]]:
    """Every destination with its path."""
    for index, rule in enumerate(resource.spec.http or ()):
        for place, part in enumerate(rule.route or ()):
            yield f"spec.http[{index}].route[{place}].destination", part.destination
        if rule.mirror is not None:
            yield f"spec.http[{index}].mirror", rule.mirror
        for place, mirror in enumerate(rule.mirrors or ()):
            yield f"spec.http[{index}].mirrors[{place}].destination", mirror.destination
    for index, tls in enumerate(resource.spec.tls or ()):
        for place, to in enumerate(tls.route or ()):
            yield f"spec.tls[{index}].route[{place}].destination", to.destination
    for index, tcp in enumerate(resource.spec.tcp or ()):
        for place, to in enumerate(tcp.route or ()):
            yield f"spec.tcp[{index}].route[{place}].destination", to.destination
