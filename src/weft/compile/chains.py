"""Filter chains that may stand in one listener: Envoy refuses two that match the same connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_network
from itertools import product
from typing import Final

from weft import ir

_ALL: Final = frozenset({"0.0.0.0/0", "::/0"})


def apart(chains: Iterable[ir.FilterChain]) -> tuple[ir.FilterChain, ...]:
    """Chains without what an earlier one takes already, each under a name of its own.

    Names and addresses that are taken are left out of a match; a chain that keeps none is left out whole.
    """
    taken: set[tuple[object, ...]] = set()
    names: set[str] = set()
    kept: list[ir.FilterChain] = []
    for chain in chains:
        once = _once(chain.match)
        match = _left(once, taken) if once is not None else None
        if match is None:
            continue
        taken.update(_points(match))
        name = chain.name
        while name in names:
            name += "'"
        names.add(name)
        kept.append(
            chain if match == chain.match and name == chain.name else replace(chain, match=match, name=name)
        )
    return tuple(kept)


def _once(match: ir.ChainMatch) -> ir.ChainMatch | None:
    """The match with each value named once; None when it asks for addresses and names none that are.

    To ask for all addresses is to ask for none: of a chain that does the one and a chain that does the other
    Envoy looks at either, whichever comes first in a table of its own.
    """
    addresses, sources = _blocks(match.addresses), _blocks(match.source_addresses)
    if (match.addresses and not addresses) or (match.source_addresses and not sources):
        return None
    return replace(
        match,
        addresses=() if _ALL.intersection(addresses) else addresses,
        source_addresses=() if _ALL.intersection(sources) else sources,
        server_names=tuple(dict.fromkeys(match.server_names)),
        application_protocols=tuple(dict.fromkeys(match.application_protocols)),
    )


def _blocks(texts: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for text in texts:
        if is_block(text):
            found.setdefault(_block(text), text)
    return tuple(_ALL.intersection(found)) or tuple(found.values())


def _left(match: ir.ChainMatch, taken: set[tuple[object, ...]]) -> ir.ChainMatch | None:
    """What of a match nobody has taken yet; None when that is nothing."""
    if taken.isdisjoint(_points(match)):
        return match
    for only in (_named, _addressed, _speaking):
        values, having = only(match)
        free = tuple(value for value in values if taken.isdisjoint(_points(having((value,)))))
        if free:
            return having(free)
    return None


Part = tuple[tuple[str, ...], Callable[[tuple[str, ...]], ir.ChainMatch]]
"""The values of one of a match's tests, and the match with others in their place."""


def _named(match: ir.ChainMatch) -> Part:
    return match.server_names, lambda values: replace(match, server_names=values)


def _addressed(match: ir.ChainMatch) -> Part:
    return match.addresses, lambda values: replace(match, addresses=values)


def _speaking(match: ir.ChainMatch) -> Part:
    return match.application_protocols, lambda values: replace(match, application_protocols=values)


def _points(match: ir.ChainMatch) -> Iterable[tuple[object, ...]]:
    """The single matches that Envoy makes of one."""
    return product(
        (match.port,),
        [_block(address) for address in match.addresses] or ("",),
        match.server_names or ("",),
        (match.transport,),
        match.application_protocols or ("",),
        [_block(address) for address in match.source_addresses] or ("",),
    )


def _block(text: str) -> str:
    """``10.1.2.3/8`` and ``10.0.0.0/8`` are the same addresses."""
    return str(ip_network(text, strict=False))


def is_block(text: str) -> bool:
    """Whether it is an address, or a block of them: Envoy reads nothing else."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    address, _, bits = text.partition("/")
    return "%" not in address and (bits.isdigit() or not bits)
