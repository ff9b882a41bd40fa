"""Virtual addresses of services: stable, and the same wherever they are computed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Final

RANGE: Final = IPv4Network("240.240.0.0/16")
_USABLE: Final = RANGE.num_addresses - 2  # neither the first nor the last address


def virtual(address: str) -> bool:
    """Whether an address or a block is of those that are given out here: nothing listens there."""
    block = ip_network(address, strict=False)
    return isinstance(block, IPv4Network) and block.subnet_of(RANGE)


def allocate(host: str, taken: Container[str]) -> str:
    """An address of 240.240.0.0/16 for ``namespace/name`` that is not in ``taken``.

    The first choice is the name's hash; when it is taken, the next free one in a step that the
    name's hash gives as well, so that one collision does not lead to the next.

    Raises:
        ValueError: when the range is full.
    """
    digest = blake2b(host.encode(), digest_size=8).digest()
    start = int.from_bytes(digest[:4]) % _USABLE
    step = int.from_bytes(digest[4:]) % (_USABLE - 1) + 1
    first = int(RANGE.network_address) + 1
    for probe in range(_USABLE):
        address = str(IPv4Address(first + (start + probe * step) % _USABLE))
        if address not in taken:
            return address
    for offset in range(_USABLE):  # a step that divides the size misses some: look at each once
        address = str(IPv4Address(first + offset))
        if address not in taken:
            return address
    raise ValueError(f"no address of {RANGE} is left for {host}")


def assign(
    wanted: Iterable[tuple[str, str]], known: Mapping[tuple[str, str], str]
) -> Mapping[tuple[str, str], str]:
    """``known`` and an address for each (namespace, name) of ``wanted`` that has none yet."""
    missing = dict.fromkeys(host for host in wanted if host not in known)
    if not missing:
        return known
    result = dict(known)
    taken = set(known.values())
    for namespace, name in missing:
        address = allocate(f"{namespace}/{name}", taken)
        taken.add(address)
        result[namespace, name] = address
    return result
