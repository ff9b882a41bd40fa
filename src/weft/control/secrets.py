"""The Secrets that a connected proxy is given, as SDS resources."""

from __future__ import annotations

from collections.abc import Mapping

from weft.compile.secrets import Authorities, Certificate, Parts, granted, material
from weft.compile.world import World
from weft.emit.packed import Packed
from weft.emit.secrets import authorities, certificate
from weft.errors import Problem, Severity
from weft.names import ProxyName

BROKEN = "WEFT0104"


def secrets_for(
    world: World, proxy: ProxyName, wanted: tuple[str, ...]
) -> tuple[Mapping[str, Packed], tuple[Problem, ...]]:
    """Of the names that ``proxy`` asks for, those that it is entitled to; and why not the others."""
    if not wanted:
        return {}, ()
    found, problems = granted(wanted, proxy, world.gateway_facts)
    made: dict[str, Packed] = {}
    broken: list[Problem] = []
    for name, parts in found:
        packed = world.memo(_packed, name, parts)
        if packed is None:
            holders = ", ".join(str(holder.key) for _, holder in parts)
            broken.append(
                Problem(
                    BROKEN,
                    f"{holders} does not hold what {name} needs",
                    hint="give it tls.crt and tls.key, or ca.crt for authorities",
                    severity=Severity.WARNING,
                )
            )
        else:
            made[name] = packed
    return made, (*problems, *broken)


def _packed(name: str, parts: Parts) -> Packed | None:
    match material(parts):
        case Certificate() as found:
            return certificate(name, found.chain, found.key, found.staple)
        case Authorities() as found:
            return authorities(name, found.bundle, found.revoked)
        case None:
            return None
