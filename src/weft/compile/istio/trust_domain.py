"""Identities of AuthorizationPolicies in the trust domains that a mesh accepts.

While a mesh moves from one domain to another a policy means the workload in each of them; ``cluster.local``
always means the mesh's own (istio pilot/pkg/security/trustdomain).
"""

from __future__ import annotations

from typing import Final

_LOCAL: Final = "cluster.local"
_PARTS: Final = 5  # DOMAIN/ns/NAMESPACE/sa/ACCOUNT


def with_aliases(principals: tuple[str, ...], domains: tuple[str, ...]) -> tuple[str, ...]:
    """The principals, each of an accepted domain in all of them."""
    found: list[str] = []
    for principal in principals:
        domain, _, rest = principal.partition("/")
        whole = principal.count("/") == _PARTS - 1
        if whole and domain != "*" and (domain == _LOCAL or _among(domain, domains)):
            found += [principal if _ends(known, domain) else f"{known}/{rest}" for known in domains]
        else:
            found.append(principal)
    return tuple(dict.fromkeys(found))


def every_alias(values: tuple[str, ...], domains: tuple[str, ...]) -> tuple[str, ...]:
    """The trust domains; one that is accepted stands for all that are."""
    return tuple(
        dict.fromkeys(name for value in values for name in (domains if value in domains else (value,)))
    )


def _among(domain: str, domains: tuple[str, ...]) -> bool:
    """Either may be a pattern."""
    return any(
        domain == known
        or known == "*"
        or _begins(domain, known)
        or _begins(known, domain)
        or _ends(domain, known)
        or _ends(known, domain)
        for known in domains
    )


def _begins(text: str, pattern: str) -> bool:
    return pattern.endswith("*") and text.startswith(pattern[:-1])


def _ends(text: str, pattern: str) -> bool:
    return pattern.startswith("*") and text.endswith(pattern[1:])
