"""Which Secrets a proxy is to be given, by the names that it asks for. Only gateways are given any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from weft import ir
from weft.compile.gatewayapi.facts import Facts
from weft.compile.problems import NOT_FOUND
from weft.errors import Problem, Severity
from weft.model.core import Secret
from weft.model.resource import Key
from weft.names import GATEWAY_SECRET_SCHEME, ProxyName

AUTHORITY_SUFFIX: Final = "-cacert"
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
) -> tuple[tuple[tuple[str, Secret], ...], tuple[Problem, ...]]:
    """Of the names ``wanted`` those that ``proxy`` may have, with their Secret; and why not the others.

    A gateway may use Secrets of its own namespace, and those that a ReferenceGrant lets Gateways of its
    namespace use. A sidecar may use none: its application could read them.
    """
    found: list[tuple[str, Secret]] = []
    problems: list[Problem] = []
    for name in wanted:
        owner, _, plain = name.removeprefix(GATEWAY_SECRET_SCHEME).partition("/")
        if proxy.kind != "router":
            problems.append(_refusal(name, f"{proxy.name}.{proxy.namespace} is no gateway"))
            continue
        held = _find(facts.secrets, owner, plain)
        if held is None:
            problems.append(
                Problem(
                    NOT_FOUND,
                    f"no Secret is named {owner}/{plain.removesuffix(AUTHORITY_SUFFIX)}",
                    hint="create it; connections that need it fail until then",
                    severity=Severity.WARNING,
                )
            )
        elif not facts.permits("Gateway", proxy.namespace, "", "Secret", owner, held.metadata.name):
            why = f"no ReferenceGrant in {owner} lets Gateways of {proxy.namespace} use it"
            problems.append(_refusal(name, why))
        else:
            found.append((name, held))
    return tuple(found), tuple(problems)


def _refusal(name: str, why: str) -> Problem:
    return Problem(
        REFUSED,
        f"{name} is not given away: {why}",
        hint="keep the Secret in the gateway's namespace, or grant it with a ReferenceGrant",
        severity=Severity.WARNING,
    )


def _find(secrets: Mapping[Key, Secret], namespace: str, name: str) -> Secret | None:
    """A Secret by its name over SDS: authorities may stand in one of that very name, or beside the key."""
    for candidate in dict.fromkeys((name, name.removesuffix(AUTHORITY_SUFFIX))):
        found = secrets.get(Key("/Secret", namespace, candidate))
        if found is not None:
            return found
    return None


def material(name: str, secret: Secret) -> Material | None:
    """What a Secret holds for ``name``; None when it lacks that."""
    if name.endswith(AUTHORITY_SUFFIX):
        bundle = _first(secret, _BUNDLE)
        return Authorities(bundle=bundle, revoked=_first(secret, _REVOKED)) if bundle else None
    chain, key = _first(secret, _CHAIN), _first(secret, _KEY)
    return Certificate(chain=chain, key=key, staple=_first(secret, _STAPLE)) if chain and key else None


def _first(secret: Secret, keys: tuple[str, ...]) -> bytes:
    return next((value for key in keys if (value := secret.value(key))), b"")
