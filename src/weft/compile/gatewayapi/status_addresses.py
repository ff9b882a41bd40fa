"""``status.addresses`` of a Gateway, and whether it can be reached where it asks to be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from weft.compile.gatewayapi.conditions import Status
from weft.compile.gatewayapi.facts import Facts, Verdict
from weft.model.gateway import Gateway
from weft.names import expand_host

ADDRESS_TYPES: Final = frozenset({"IPAddress", "Hostname"})


@dataclass(frozen=True, slots=True)
class Places:
    """``found`` as they stand in the status; ``refusal``: what keeps an address from being used, if any."""

    found: tuple[Status, ...]
    refusal: Verdict | None = None


def places_of(
    gateway: Gateway, ports: Iterable[int], addresses: Iterable[str] | None, facts: Facts
) -> Places:
    """Where a Gateway is reached at these ports.

    ``addresses`` are those of its proxies; None without a running mesh: then it has the IP addresses that it
    asks for. A Hostname is, as in Istio, that of a service that leads to it.
    """
    own = None if addresses is None else tuple(addresses)
    asked = [
        (str(address.type or "IPAddress"), str(address.value))
        for address in gateway.spec.addresses or ()
        if address.value and str(address.type or "IPAddress") in ADDRESS_TYPES
    ]
    found: list[tuple[str, str]] = []
    flaws: list[str] = []
    for kind, value in asked:
        if kind == "Hostname":
            host = expand_host(value, gateway.metadata.namespace, facts.settings.domain).lower()
            flaw = _host_flaw(host, ports, facts)
            found += [] if flaw else [(kind, host)]
            flaws += [flaw] if flaw else []
        elif own is None or value in own:
            found.append((kind, value))
        else:
            flaws.append(f"no proxy of this Gateway has the address {value}")
    if own is not None and not any(kind == "IPAddress" for kind, _ in asked):
        found[:0] = (("IPAddress", address) for address in own)
    refusal = Verdict(holds=False, reason="AddressNotUsable", message="; ".join(flaws)) if flaws else None
    return Places(tuple({"type": kind, "value": value} for kind, value in found), refusal)


def _host_flaw(host: str, ports: Iterable[int], facts: Facts) -> str:
    services = facts.services.by_host.get(host, ())
    if not services:
        return f"there is no service {host} that could lead to this Gateway"
    missing = [port for port in ports if not any(service.port(port) for service in services)]
    return f"the service {host} has no port {', '.join(map(str, missing))}" if missing else ""
