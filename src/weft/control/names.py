"""What the names of the mesh resolve to, read out of a world: virtual addresses, or endpoints if headless."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from weft.compile.hosts import is_wildcard
from weft.compile.service import Instance, Resolution, Service
from weft.compile.world import World
from weft.ir import Health

_CHAIN = 16


def names(world: World) -> dict[str, tuple[str, ...]]:
    """Fully qualified name -> IP addresses, or the one other name that it stands for outside the mesh.

    Wildcards have no addresses; a CIDR is no address that can be dialled. A headless service has those of
    its workloads, which have names of their own below it, as the pods of a StatefulSet.
    """
    table: dict[str, tuple[str, ...]] = {}
    aliases: dict[str, str] = {}
    for services in world.services.by_source.values():
        for service in services:
            if service.resolution is Resolution.ALIAS:
                aliases[service.host] = service.alias_of
            elif service.headless:
                members = tuple(_members(world, service))
                table |= {f"{name}.{service.host}": (address,) for name, address in members if name}
                _put(table, service.host, {address for _, address in members})
            elif not is_wildcard(service.host):
                _put(table, service.host, set(service.addresses))
    for name in aliases:
        target = _end(name, aliases)
        if target in table:
            table.setdefault(name, table[target])
        elif target and not target.endswith(f".svc.{world.settings.domain}"):
            table.setdefault(name, (target,))
    return table


def _put(table: dict[str, tuple[str, ...]], name: str, found: set[str]) -> None:
    addresses = tuple(sorted(address for address in found if _is_address(address)))
    if addresses:
        table[name] = addresses


def _members(world: World, service: Service) -> Iterator[tuple[str, str]]:
    """Names and addresses of those that may be called: the ready ones, unless the Service wants all."""
    for member in world.backends(service):
        if (service.unready_too or member.health is Health.HEALTHY) and _is_address(member.address):
            yield _label(member), member.address


def _label(member: Instance) -> str:
    """A workload's name where it can be a part of a host name; an address that is listed has none."""
    name = (member.hostname or member.name).lower()
    return "" if _is_address(name) or "." in name else name


def _end(name: str, aliases: dict[str, str]) -> str:
    """Where a chain of ExternalNames leads; nowhere when it goes round in a circle."""
    for _ in range(_CHAIN):
        if name not in aliases:
            return name
        name = aliases[name]
    return ""


def _is_address(text: str) -> bool:
    try:
        return not ip_address(text).is_unspecified
    except ValueError:
        return False
