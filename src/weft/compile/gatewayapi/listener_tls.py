"""The TLS that a listener ends: its certificates, whom it asks for one, and Istio's options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from weft import ir
from weft.compile.gatewayapi.certificates import (
    FRONTEND,
    RESOLVED,
    SERVER,
    authorities,
    key_pair,
)
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.compile.inbound import peer_tls
from weft.model.gateway import FrontendTLSValidation, Gateway, Listener
from weft.model.listener import SecretObjectReference
from weft.model.listener_set import ListenerSet
from weft.names import AUTHORITY_SUFFIX, GATEWAY_PORT_LABEL, NETWORK_LABEL

MODE_OPTION: Final = "gateway.istio.io/tls-terminate-mode"
CIPHERS_OPTION: Final = "gateway.istio.io/tls-cipher-suites"
PROTOCOL_OPTION: Final = "gateway.istio.io/listener-protocol"
AUTOMATIC: Final = "auto-passthrough"
OPTIONS: Final = frozenset({MODE_OPTION, CIPHERS_OPTION, PROTOCOL_OPTION})
MODES: Final = frozenset({"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_SIMPLE", "ISTIO_MUTUAL"})
"""What the mode option may say, with the meaning that the same words have in Istio's Gateway."""

_NETWORKS_MEET_AT: Final = "15443"
_RESOLVED: Final = Verdict(reason=RESOLVED)
_ACCEPTED: Final = Verdict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """``tls`` None: the listener can serve nobody. ``resolved`` and ``accepted`` are its conditions."""

    tls: ir.DownstreamTls | None
    resolved: Verdict = _RESOLVED
    accepted: Verdict = _ACCEPTED


def automatic(item: Listener, owner: Gateway | ListenerSet) -> bool:
    """Whether a listener that passes TLS through joins networks: it hands on to the service that SNI names.

    By its option, or by its port at what is labelled as the gateway of a network (istio, IsAutoPassthrough).
    """
    if item.tls is None:
        return False
    if (item.tls.options or {}).get(PROTOCOL_OPTION) == AUTOMATIC:
        return True
    labels = owner.metadata.labels or {}
    return NETWORK_LABEL in labels and str(item.port) == labels.get(GATEWAY_PORT_LABEL, _NETWORKS_MEET_AT)


def tls_of(item: Listener, owner: Gateway | ListenerSet, gateway: Gateway | None, facts: Facts) -> Ended:
    """What a listener of protocol HTTPS or TLS ends.

    References of the listener are those of its ``owner``; those of ``spec.tls`` are the Gateway's.
    """
    options = (item.tls.options if item.tls is not None else None) or {}
    mode = str(options.get(MODE_OPTION, ""))
    limits = facts.settings.enforced(
        ir.TlsLimits(minimum=ir.TlsVersion.V1_2, cipher_suites=_ciphers(options.get(CIPHERS_OPTION)))
    )
    http = str(item.protocol) == "HTTPS"
    alpn = ("h2", "http/1.1") if http else ()
    if mode in {"ISTIO_SIMPLE", "ISTIO_MUTUAL"}:
        own = peer_tls(facts.settings, http=True)
        made = ir.DownstreamTls(certificates=own.certificates, alpn=alpn, limits=limits)
        if mode == "ISTIO_SIMPLE":
            return Ended(tls=made)
        return Ended(
            tls=replace(
                made,
                trust=own.trust,
                require_client_certificate=True,
                peer_trust_domains=own.peer_trust_domains,
            )
        )
    refs = tuple(item.tls.certificate_refs or ()) if item.tls is not None else ()
    secrets, resolved = _certificates(refs, owner, facts)
    if not secrets:
        return Ended(tls=None, resolved=resolved)
    made = ir.DownstreamTls(certificates=secrets, alpn=alpn, limits=limits)
    validation = frontend(gateway, item.port) if http and gateway is not None else None
    if validation is not None and gateway is not None:
        return _validated(made, validation, mode, gateway, resolved, facts)
    if mode in {"MUTUAL", "OPTIONAL_MUTUAL"}:
        trust = replace(secrets[0], name=f"{secrets[0].name}{AUTHORITY_SUFFIX}")
        made = replace(made, trust=trust, require_client_certificate=mode == "MUTUAL")
    return Ended(tls=made, resolved=resolved)


def frontend(gateway: Gateway, port: int) -> FrontendTLSValidation | None:
    """How clients of a port are validated: as said for the port, else for the whole Gateway."""
    rule = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if rule is None:
        return None
    own = next((item.tls for item in rule.per_port or () if item.port == port), rule.default)
    return own.validation


def _certificates(
    refs: tuple[SecretObjectReference, ...], owner: Gateway | ListenerSet, facts: Facts
) -> tuple[tuple[ir.SecretRef, ...], Verdict]:
    """The valid certificates, and the first flaw."""
    if not refs:
        message = "a listener that ends TLS needs certificateRefs"
        return (), Verdict(holds=False, reason=SERVER.content, message=message)
    found: list[ir.SecretRef] = []
    verdict = _RESOLVED
    for ref in refs:
        secret, said = key_pair(ref, str(owner.kind), owner.metadata.namespace, SERVER, facts)
        if secret is not None:
            found.append(secret)
        elif verdict.holds:
            verdict = said
    return tuple(dict.fromkeys(found)), verdict


def _validated(
    made: ir.DownstreamTls,
    rule: FrontendTLSValidation,
    mode: str,
    gateway: Gateway,
    resolved: Verdict,
    facts: Facts,
) -> Ended:
    refs = rule.ca_certificate_refs
    trust, said = authorities(refs, "Gateway", gateway.metadata.namespace, FRONTEND, facts)
    verdict = resolved if not resolved.holds else said
    if trust is None:
        message = f"no caCertificateRef is valid: {said.message}"
        refused = Verdict(holds=False, reason="NoValidCACertificate", message=message)
        return Ended(tls=None, resolved=verdict, accepted=refused)
    insecure = str(rule.mode or "AllowValidOnly") == "AllowInsecureFallback"
    optional = insecure
    if mode in {"MUTUAL", "OPTIONAL_MUTUAL"}:  # said of the one listener, so it goes before
        insecure, optional = False, mode == "OPTIONAL_MUTUAL"
    return Ended(
        tls=replace(made, trust=trust, require_client_certificate=not optional, accept_untrusted=insecure),
        resolved=verdict,
    )


def _ciphers(text: str | None) -> tuple[str, ...]:
    return tuple(part for item in (text or "").split(",") if (part := item.strip()))
