"""What the names of the mesh resolve to, read out of a world: virtual addresses, or endpoints if headless."""

from __future__ import annotations

from ipaddress import ip_address

from weft.compile.hosts import is_wildcard
from weft.compile.world import World


def names(world: World) -> dict[str, tuple[str, ...]]:
    """Fully qualified name -> IP addresses. Wildcards have none; a CIDR is no address that can be dialled."""
    table: dict[str, tuple[str, ...]] = {}
    for services in world.services.by_source.values():
        for service in services:
            if is_wildcard(service.host):
                continue
            if service.headless:
                found = {member.address for member in world.backends(service)}
            else:
                found = set(service.addresses)
            addresses = tuple(sorted(address for address in found if _is_address(address)))
            if addresses:
                table[service.host] = addresses
    return table


def _is_address(text: str) -> bool:
    try:
        return not ip_address(text).is_unspecified
    except ValueError:
        return False
