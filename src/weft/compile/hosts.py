"""Host names with wildcards, and the ways in which people write the name of a service."""

from __future__ import annotations

from functools import lru_cache

from weft.model.scalars import is_ip


def is_wildcard(host: str) -> bool:
    """``*`` or ``*.example.com``."""
    return host.startswith("*")


@lru_cache(maxsize=1 << 16)
def is_named(address: str) -> bool:
    """Whether an endpoint's address is a host's name: no IP, no path of a socket, not left out."""
    return bool(address) and not address.startswith("unix:") and not is_ip(address)


def covers(pattern: str, host: str) -> bool:
    """Whether every name that ``host`` stands for is one that ``pattern`` stands for."""
    if pattern == host or pattern == "*":
        return True
    if not pattern.startswith("*"):
        return False
    suffix = pattern[1:]
    return host.removeprefix("*").endswith(suffix) and len(host.removeprefix("*")) >= len(suffix)


def overlaps(one: str, other: str) -> bool:
    """Whether some name is meant by both."""
    return covers(one, other) or covers(other, one)


def narrower(one: str, other: str) -> str | None:
    """What is meant by both: the more specific one, or None when nothing is."""
    if covers(other, one):
        return one
    return other if covers(one, other) else None


def specificity(host: str) -> tuple[int, int, str]:
    """Sort key: exact names first, then the longer wildcard (Istio's order of hosts)."""
    return (1 if is_wildcard(host) else 0, -len(host), host)


def with_port(host: str, port: int) -> str:
    """``host:port``; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=65_536)
def aliases(host: str, client_namespace: str, domain: str) -> tuple[str, ...]:
    """Other names of a service of the mesh, seen from a namespace, in Istio's order.

    ``reviews.default.svc.cluster.local`` is ``reviews`` (same namespace), ``reviews.default`` and
    ``reviews.default.svc``; with a trailing dot the name is absolute. Hosts outside of the cluster's
    domain have the absolute form only. Headless members (``a.reviews.default.svc…``) have no short form.
    """
    absolute = (f"{host}.",) if not _is_address(host) and not is_wildcard(host) else ()
    suffix = f".svc.{domain}"
    if not host.endswith(suffix):
        return absolute
    short = host.removesuffix(suffix)
    name, dot, namespace = short.partition(".")
    if not dot or not namespace:
        return absolute
    tail = (f"{short}.svc", short)
    return (*absolute, name, *tail) if namespace == client_namespace else (*absolute, *tail)


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
