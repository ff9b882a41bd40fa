"""Host names, labels and addresses as Istio takes them (``config/validation/agent``, ``config/labels``).

Each function gives a complaint, or the empty text when there is none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final

_LABEL: Final = r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?"
_IS_LABEL: Final = re.compile(_LABEL)
_IS_FIRST: Final = re.compile(rf"\*|(?:\*-?)?{_LABEL}")
_IS_NUMBER: Final = re.compile(r"[+-]?[0-9]+")
_QUALIFIED: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_IS_KEY: Final = re.compile(rf"(?:(?P<domain>{_LABEL}(?:\.{_LABEL})*)/)?(?P<name>{_QUALIFIED})")
_IS_VALUE: Final = re.compile(rf"(?:{_QUALIFIED})?")
_LONGEST: Final = 255
_LONGEST_LABEL: Final = 63


def is_label(text: str) -> bool:
    """Whether it can stand between two dots of a host name; Istio allows capitals."""
    return len(text) <= _LONGEST_LABEL and _IS_LABEL.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def fqdn(name: str) -> str:
    """A host name without wildcard; its last part is no number, and it may end with a dot."""
    return _length(name) or _labels(name, name)


def wildcard(name: str) -> str:
    """A host name whose first part may be ``*`` or begin with it."""
    if wrong := _length(name):
        return wrong
    first, dot, rest = name.partition(".")
    if len(first) > _LONGEST_LABEL or not _IS_FIRST.fullmatch(first):
        return f"{_short(name)} is not a host name: look at {_short(first)}"
    return _labels(rest, name) if dot else ""


def server_name(name: str) -> str:
    """As ``wildcard``, and the names that sidecars send: ``outbound_.80_._.reviews.default…``."""
    if _length(name) or not name.startswith("outbound_"):
        return wildcard(name)
    parts = name.split("_")
    shaped = len(parts) >= 4 and re.search("[0-9]", parts[1]) and re.search("[a-zA-Z]", parts[3])
    return "" if shaped else f"{_short(name)} is not of the form outbound_.PORT_.SUBSET_.HOST"


def namespaced(text: str, *, gateway: bool) -> Iterator[str]:
    """``namespace/host``, where the namespace may be ``*`` or ``.``; at gateways it may be left out."""
    namespace, slash, host = text.partition("/")
    if not slash:
        if not gateway:
            yield f"{_short(text)} is not of the form namespace/host"
            return
        yield from _served(text, gateway=True)
        return
    if not namespace or not host:
        yield "neither the namespace nor the host may be empty"
    bare = namespace if gateway else namespace.removeprefix("~")
    if bare not in {"*", "."} and not is_label(bare) and (gateway or bare):
        yield f"{_short(namespace)} is not a namespace"
    yield from _served(host, gateway=gateway)


def partial_wildcard(host: str) -> str:
    """A star that stands for less than whole parts of the name."""
    if "*" in host and len(host) != 1 and not host.startswith("*."):
        return f"in {_short(host)} '*' does not stand for whole parts of the name"
    return ""


def subnet(text: str) -> str:
    """An address, or a range of them as ``10.0.0.0/8``."""
    if text.count("/") != 1:
        return "" if is_address(text) else f"{_short(text)} is not an IP address"
    return "" if is_range(text) else f"{_short(text)} is not a range of addresses"


def is_range(text: str) -> bool:
    """Whether it is an address and the length of a prefix; host bits may be set."""
    address, slash, bits = text.partition("/")
    if not slash or not is_address(address) or "%" in address or not re.fullmatch("0|[1-9][0-9]{0,2}", bits):
        return False
    return int(bits) <= ipaddress.ip_address(address).max_prefixlen


def socket(address: str) -> str:
    """The path after ``unix://``: absolute, or a name that begins with ``@``."""
    if not address:
        return "the path of the socket is missing"
    if address.startswith("@"):
        return ""
    if not address.startswith("/") or address.endswith("/"):
        return f"{_short(address)} is not an absolute path to a socket"
    return ""


def labels(given: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    """Keys and complaints: what Kubernetes would not take as labels."""
    for key, value in (given or {}).items():
        found = _IS_KEY.fullmatch(key)
        if found is None or len(found["domain"] or "") > 253 or len(found["name"]) > _LONGEST_LABEL:
            yield key, f"{_short(key)} is not a label's key: write 'name' or 'domain/name'"
        if not _IS_VALUE.fullmatch(value):
            yield key, f"{_short(value)} is not a label's value: letters, digits, '-', '_' and '.'"


def host_and_port(text: str) -> str:
    """Where a server is reached: ``collector:9411``, ``10.0.0.1:80``, ``[::1]:80``."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or (":" in host and not bracketed):
        return f"{_short(text)} is not of the form host:port"
    if not re.fullmatch(r"\+?[0-9]{1,9}", port) or not 1 <= int(port) <= 65535:
        return f"{_short(port)} is not a port"
    return (
        "" if not fqdn(host) or is_address(host) else f"{_short(host)} is neither a host name nor an address"
    )


def trust_domain(text: str) -> str:
    """Labels with dots between them; a dot may end it."""
    if not text:
        return "a trust domain must not be empty"
    parts = text.split(".")
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    return "" if all(is_label(part) for part in parts) else f"{_short(text)} is not a trust domain"


def overlap(one: str, other: str) -> bool:
    """Whether some name is meant by both, where a star stands for any beginning."""
    if one.startswith("*") and other.startswith("*"):
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    return covers(one, other) or covers(other, one)


def shared(hosts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The positions of hosts that have names in common with one further to the front, and that one."""
    seen: set[str] = set()
    for number, host in enumerate(hosts):
        if host.startswith("*"):
            before = next((other for other in hosts[:number] if overlap(other, host)), None)
        else:
            meant = (host, *(f"*{host[start:]}" for start in range(len(host) + 1)))
            before = next((other for other in meant if other in seen), None)
        if before is not None:
            yield number, before
        seen.add(host)


def covers(wide: str, narrow: str) -> bool:
    """Whether ``wide`` means every name that ``narrow`` means."""
    if not wide.startswith("*"):
        return wide == narrow
    if narrow.startswith("*"):
        return len(narrow) >= len(wide) and narrow[1:].endswith(wide[1:])
    return narrow.endswith(wide[1:])


def _length(name: str) -> str:
    if not name:
        return "a host name must not be empty"
    return f"{_short(name)} is longer than {_LONGEST} characters" if len(name) > _LONGEST else ""


def _labels(text: str, whole: str) -> str:
    parts = text.split(".")
    if _IS_NUMBER.fullmatch(parts[-1]):
        return f"{_short(whole)} is not a host name: its last part is a number"
    if not parts[-1] and len(parts) > 1:
        parts.pop()
    elif not parts[-1]:
        return ""
    bad = next((part for part in parts if not is_label(part)), None)
    return "" if bad is None else f"{_short(whole)} is not a host name: look at {_short(bad)}"


def _served(host: str, *, gateway: bool) -> Iterator[str]:
    if host != "*" and "." not in host:
        yield f"{_short(host)} is a short name: write the whole name, as 'reviews.default.svc.cluster.local'"
    elif (wrong := wildcard(host)) and not (gateway and is_address(host)):
        yield wrong
    if wrong := partial_wildcard(host):
        yield wrong


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
