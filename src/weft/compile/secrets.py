"""Which Secrets a proxy is to be given, by the names that its configuration refers to.

A name is ``kubernetes-gateway://NS/NAME`` for a certificate and its key, with ``-cacert`` for authorities,
``configmap://NS/NAME-cacert`` for those in a ConfigMap, which are no secret. Several authorities are joined
by commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from weft import ir
from weft.compile.gatewayapi.certificates import bundle_of
from weft.compile.gatewayapi.facts import Facts
from weft.compile.gatewayapi.listener_set import attached_sets
from weft.compile.problems import NOT_FOUND
from weft.errors import Problem, Severity
from weft.model.core import ConfigMap, Secret
from weft.names import AUTHORITY_SUFFIX, CONFIG_MAP_SCHEME, GATEWAY_SECRET_SCHEME, ProxyName

REFUSED: Final = "WEFT0103"

# Keys of a Secret: those of kubernetes.io/tls, then Istio's generic ones (istio pilot/pkg/credentials).
_CHAIN: Final = ("tls.crt", "cert")
_KEY: Final = ("tls.key", "key")
_BUNDLE: Final = ("ca.crt", "cacert")
_REVOKED: Final = ("ca.crl", "crl")
_STAPLE: Final = ("tls.ocsp-staple",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate chain with its key, in PEM; ``staple`` is an OCSP response in DER."""

    chain: bytes
    key: bytes = field(repr=False)
    staple: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """Whom to trust, in PEM, and what they revoked."""

    bundle: bytes
    revoked: bytes = b""


Material = Certificate | Authorities
Holder = Secret | ConfigMap
Parts = tuple[tuple[str, Holder], ...]
"""What a name stands for: each of its parts with what holds it."""


def asked_for(listeners: tuple[ir.Listener, ...], clusters: tuple[ir.Cluster, ...]) -> tuple[str, ...]:
    """Names of the secrets that a proxy's listeners and clusters ask the control plane for."""
    references = (*_of_listeners(listeners), *_of_clusters(clusters))
    return tuple(dict.fromkeys(ref.name for ref in references if ref.source is ir.SecretFrom.ADS))


def _of_listeners(units: tuple[ir.Listener, ...]) -> Iterator[ir.SecretRef]:
    for listener in units:
        for chain in listener.chains:
            if chain.tls is not None:
                yield from chain.tls.certificates
                if chain.tls.trust is not None:
                    yield chain.tls.trust


def _of_clusters(units: tuple[ir.Cluster, ...]) -> Iterator[ir.SecretRef]:
    for cluster in units:
        if cluster.tls is not None:
            for ref in (cluster.tls.certificate, cluster.tls.trust):
                if ref is not None:
                    yield ref


def granted(
    wanted: tuple[str, ...], proxy: ProxyName, facts: Facts
) -> tuple[tuple[tuple[str, Parts], ...], tuple[Problem, ...]]:
    """Of the names ``wanted`` those that ``proxy`` may have, with what holds them; and why not the others.

    A gateway may use Secrets of its own namespace, those that a ReferenceGrant lets Gateways of its
    namespace use, and those that ListenerSets attached there name and may use. A sidecar may use those of
    its own namespace: what is ``wanted`` is what a DestinationRule there names that selects its workload, and
    who writes there chose so. Authorities are no secret: policies of other namespaces may name them.
    """
    found: list[tuple[str, Parts]] = []
    problems: list[Problem] = []
    for name in wanted:
        parts: list[tuple[str, Holder]] = []
        for part in name.split(","):
            held = _held(part, proxy, facts)
            if isinstance(held, Problem):
                problems.append(held)
            else:
                parts.append((part, held))
        if parts:
            found.append((name, tuple(parts)))
    return tuple(found), tuple(problems)


def _held(name: str, proxy: ProxyName, facts: Facts) -> Holder | Problem:
    if name.startswith(CONFIG_MAP_SCHEME):
        owner, _, plain = name.removeprefix(CONFIG_MAP_SCHEME).partition("/")
        plain = plain.removesuffix(AUTHORITY_SUFFIX)
        return facts.config_map(owner, plain) or _missing(f"ConfigMap is named {owner}/{plain}")
    owner, _, plain = name.removeprefix(GATEWAY_SECRET_SCHEME).partition("/")
    held = _find(facts, owner, plain)
    if held is None:
        return _missing(f"Secret is named {owner}/{plain.removesuffix(AUTHORITY_SUFFIX)}")
    own = held.metadata.name
    if plain.endswith(AUTHORITY_SUFFIX) and _by_policy(owner, own, facts):
        return held
    if proxy.kind != "router":
        return held if owner == proxy.namespace else _refusal(name, "a sidecar gets those of its namespace")
    if facts.permits("Gateway", proxy.namespace, "", "Secret", owner, own) or _by_listener_set(
        owner, own, proxy.namespace, facts
    ):
        return held
    return _refusal(name, f"no ReferenceGrant in {owner} lets Gateways of {proxy.namespace} use it")


def _by_listener_set(owner: str, name: str, namespace: str, facts: Facts) -> bool:
    """Whether a ListenerSet at a Gateway of a namespace names a Secret, and may."""
    return any(
        (str(ref.namespace or space), str(ref.name)) == (owner, name)
        and facts.permits("ListenerSet", space, "", "Secret", owner, name)
        for gateway in facts.gateways.values()
        if gateway.metadata.namespace == namespace and facts.ours(gateway)
        for listeners in attached_sets(gateway, facts)
        for space in (listeners.metadata.namespace,)
        for listener in listeners.spec.listeners
        for ref in (listener.tls.certificate_refs if listener.tls is not None else None) or ()
    )


def _by_policy(owner: str, name: str, facts: Facts) -> bool:
    """Whether a BackendTLSPolicy tells clients to trust the authorities of a Secret beside it."""
    return any(
        (str(ref.kind), str(ref.name)) == ("Secret", name)
        for policy in facts.tls_policies.values()
        if policy.metadata.namespace == owner
        for ref in policy.spec.validation.ca_certificate_refs or ()
    )


def _missing(what: str) -> Problem:
    return Problem(
        NOT_FOUND,
        f"no {what}",
        hint="create it; connections that need it fail until then",
        severity=Severity.WARNING,
    )


def _refusal(name: str, why: str) -> Problem:
    return Problem(
        REFUSED,
        f"{name} is not given away: {why}",
        hint="keep the Secret in the gateway's namespace, or grant it with a ReferenceGrant",
        severity=Severity.WARNING,
    )


def _find(facts: Facts, namespace: str, name: str) -> Secret | None:
    """A Secret by its name over SDS: authorities may stand in one of that very name, or beside the key."""
    for candidate in dict.fromkeys((name, name.removesuffix(AUTHORITY_SUFFIX))):
        found = facts.secret(namespace, candidate)
        if found is not None:
            return found
    return None


def material(parts: Parts) -> Material | None:
    """What a name stands for; None when something of it is lacking."""
    found = [_material(name, holder) for name, holder in parts]
    bundles = [part for part in found if isinstance(part, Authorities)]
    if len(found) == 1 or len(bundles) < len(found):
        return found[0] if len(found) == 1 else None
    return Authorities(
        bundle=b"\n".join(part.bundle for part in bundles),
        revoked=b"\n".join(part.revoked for part in bundles if part.revoked),
    )


def _material(name: str, holder: Holder) -> Material | None:
    if isinstance(holder, ConfigMap):
        bundle = bundle_of(holder)
        return Authorities(bundle=bundle) if bundle else None
    if name.endswith(AUTHORITY_SUFFIX):
        bundle = _first(holder, _BUNDLE)
        return Authorities(bundle=bundle, revoked=_first(holder, _REVOKED)) if bundle else None
    chain, key = _first(holder, _CHAIN), _first(holder, _KEY)
    return Certificate(chain=chain, key=key, staple=_first(holder, _STAPLE)) if chain and key else None


def _first(secret: Secret, keys: tuple[str, ...]) -> bytes:
    return next((value for key in keys if (value := secret.value(key))), b"")
