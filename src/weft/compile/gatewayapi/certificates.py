"""References to certificates and to authorities: what they lead to over SDS, or why to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from weft import ir
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.model.core import ConfigMap, Secret
from weft.model.gateway import ObjectReference
from weft.model.listener import SecretObjectReference
from weft.model.route import LocalObjectReference
from weft.names import AUTHORITY_SUFFIX, CONFIG_MAP_SCHEME, GATEWAY_SECRET_SCHEME

RESOLVED: Final = "ResolvedRefs"
NOT_PERMITTED: Final = "RefNotPermitted"

_RESOLVED: Final = Verdict(reason=RESOLVED)
AUTHORITIES: Final = "ca.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The specification's reasons, which differ from place to place, for a wrong kind and a wrong object."""

    kind: str
    content: str


SERVER: Final = Words(kind="InvalidCertificateRef", content="InvalidCertificateRef")
CLIENT: Final = Words(kind="InvalidClientCertificateRef", content="InvalidClientCertificateRef")
FRONTEND: Final = Words(kind="InvalidCACertificateKind", content="InvalidCACertificateRef")
BACKEND: Final = Words(kind="InvalidKind", content="InvalidCACertificateRef")


def key_pair(
    ref: SecretObjectReference, holder: str, owner: str, words: Words, facts: Facts
) -> tuple[ir.SecretRef | None, Verdict]:
    """The certificate that a ``holder`` (kind of the referring object) in namespace ``owner`` names."""
    name, namespace = str(ref.name), str(ref.namespace or owner)
    if str(ref.group or "") or str(ref.kind or "Secret") != "Secret":
        what = f"{ref.group}/{ref.kind}" if ref.group else str(ref.kind)
        return None, _refused(words.kind, f"a certificate must be a Secret, not a {what}")
    # Before it is looked up: who may not use an object is not told whether there is one.
    if not facts.permits(holder, owner, "", "Secret", namespace, name):
        return None, _not_permitted(holder, owner, "Secret", namespace, name)
    secret = facts.secret(namespace, name)
    if secret is None:
        return None, _refused(words.content, f"there is no Secret {namespace}/{name}")
    flaw = facts.memo(_pair_flaw, secret)
    if flaw:
        return None, _refused(words.content, f"Secret {namespace}/{name} {flaw}")
    return _over_ads(f"{GATEWAY_SECRET_SCHEME}{namespace}/{name}"), _RESOLVED


def authorities(
    refs: Iterable[ObjectReference | LocalObjectReference],
    holder: str,
    owner: str,
    words: Words,
    facts: Facts,
) -> tuple[ir.SecretRef | None, Verdict]:
    """Whom to trust: all valid references together, None without any; the verdict is the first flaw."""
    names: list[str] = []
    verdict = _RESOLVED
    for ref in refs:
        name, found = _authority(ref, holder, owner, words, facts)
        if name:
            names.append(name)
        elif verdict.holds:
            verdict = found
    return (_over_ads(",".join(names)) if names else None), verdict


def _authority(
    ref: ObjectReference | LocalObjectReference, holder: str, owner: str, words: Words, facts: Facts
) -> tuple[str, Verdict]:
    kind, name = str(ref.kind), str(ref.name)
    namespace = str((ref.namespace if isinstance(ref, ObjectReference) else None) or owner)
    if str(ref.group) or kind not in {"ConfigMap", "Secret"}:
        what = f"{ref.group}/{kind}" if ref.group else kind
        return "", _refused(words.kind, f"authorities are in a ConfigMap or a Secret, not in a {what}")
    if not facts.permits(holder, owner, "", kind, namespace, name):
        return "", _not_permitted(holder, owner, kind, namespace, name)
    found: ConfigMap | Secret | None
    found = facts.config_map(namespace, name) if kind == "ConfigMap" else facts.secret(namespace, name)
    if found is None:
        return "", _refused(words.content, f"there is no {kind} {namespace}/{name}")
    flaw = facts.memo(_bundle_flaw, found)
    if flaw:
        return "", _refused(words.content, f"{kind} {namespace}/{name} {flaw}")
    scheme = CONFIG_MAP_SCHEME if kind == "ConfigMap" else GATEWAY_SECRET_SCHEME
    return f"{scheme}{namespace}/{name}{AUTHORITY_SUFFIX}", _RESOLVED


def bundle_of(holder: ConfigMap | Secret) -> bytes | None:
    """The authorities in PEM that an object holds under ``ca.crt``; None when there are none."""
    if isinstance(holder, Secret):
        return holder.value(AUTHORITIES)
    text = (holder.data or {}).get(AUTHORITIES)
    return None if text is None else text.encode()


def _bundle_flaw(holder: ConfigMap | Secret) -> str:
    from cryptography.x509 import load_pem_x509_certificates

    body = bundle_of(holder)
    if body is None:
        return f"has no {AUTHORITIES}"
    try:
        load_pem_x509_certificates(body)
    except ValueError:
        return f"holds no certificates in PEM under {AUTHORITIES}"
    return ""


def _pair_flaw(secret: Secret) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    chain, key = secret.value("tls.crt"), secret.value("tls.key")
    if chain is None or key is None:
        return "has no tls.crt and tls.key"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        leaf = load_pem_x509_certificates(chain)[0].public_key().public_bytes(*form)
        own = load_pem_private_key(key, None).public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "holds no certificate and key in PEM"
    return "" if leaf == own else "holds a key that is not that of its certificate"


def _over_ads(name: str) -> ir.SecretRef:
    return ir.SecretRef(source=ir.SecretFrom.ADS, name=name)


def _refused(reason: str, message: str) -> Verdict:
    return Verdict(holds=False, reason=reason, message=message)


def _not_permitted(holder: str, owner: str, kind: str, namespace: str, name: str) -> Verdict:
    message = f"no ReferenceGrant in {namespace} lets a {holder} of {owner} use {kind} {namespace}/{name}"
    return _refused(NOT_PERMITTED, message)
