"""Outbound route tables: one a port, with every name by which a service may be called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.hosts import aliases, with_port
from weft.compile.policy import Policy
from weft.compile.service import Port, Resolution, Service
from weft.compile.settings import Settings
from weft.names import ALLOW_ANY, ALLOW_ANY_LOOKUP, BLOCK_ALL, LOOKUP_CLUSTER, outbound_cluster

NO_TIMEOUT: Final = timedelta(0)


def default_route(service: Service, port: Port, policy: Policy, settings: Settings) -> ir.Route:
    """Everything to the service itself, with the mesh's retries."""
    return ir.Route(
        name="default",
        match=ir.RequestMatch(),
        action=ir.Forward(
            destinations=(ir.Destination(cluster=outbound_cluster(service.host, port.number)),),
            timeout=NO_TIMEOUT,
            retry=retry_for(settings.retry, policy),
            hash_on=(policy.hash_on,) if policy.hash_on else (),
        ),
        session=service.session,
        operation=f"{service.host}:{port.number}/*",
    )


def retry_for(retry: ir.Retry | None, policy: Policy) -> ir.Retry | None:
    """The mesh's retries; with a consistent hash the same host is tried again."""
    if retry is None or policy.hash_on is None:
        return retry
    return replace(retry, avoid_previous_hosts=False)


def service_host(
    service: Service,
    port: int,
    routes: tuple[ir.Route, ...],
    namespace: str,
    domain: str,
    others: tuple[str, ...],
) -> ir.VirtualHost:
    """The virtual host of a service as seen from a namespace. ``others``: ExternalNames for it."""
    domains: list[str] = []
    for host in (service.host, *others):
        domains += (host, *aliases(host, namespace, domain))
    if service.kubernetes and service.resolution is Resolution.PASSTHROUGH:
        domains += [f"*.{name}" for name in domains]
    dialled = (*service.addresses, *service.external_addresses)
    domains += [_plain(address) for address in dialled if "/" not in address]
    return ir.VirtualHost(
        name=with_port(service.host, port), domains=tuple(dict.fromkeys(domains)), routes=routes
    )


def _plain(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def foreign_host(host: str, port: int, routes: tuple[ir.Route, ...]) -> ir.VirtualHost:
    """The virtual host of a VirtualService's host that no service has."""
    return ir.VirtualHost(name=with_port(host, port), domains=(host,), routes=routes)


def catch_all(settings: Settings) -> ir.VirtualHost:
    """What becomes of hosts that nobody declared."""
    if settings.outbound_any:
        action: ir.Forward | ir.Respond = ir.Forward(
            destinations=(ir.Destination(cluster=LOOKUP_CLUSTER if settings.lookup else settings.elsewhere),),
            timeout=NO_TIMEOUT,
        )
        name = ALLOW_ANY_LOOKUP if settings.lookup else ALLOW_ANY
    else:
        action, name = ir.Respond(status=502), BLOCK_ALL
    return ir.VirtualHost(
        name=name, domains=("*",), routes=(ir.Route(name=name, match=ir.RequestMatch(), action=action),)
    )


def table(
    name: str, hosts: tuple[ir.VirtualHost, ...], settings: Settings, last: tuple[ir.VirtualHost, ...] = ()
) -> ir.RouteTable:
    """The table of a port. No domain stands twice: a service's own name goes before another's alias.

    ``last`` get the names that nobody else has.
    """
    kept = unique(hosts)
    if last:
        names = {host.name for host in kept}
        taken = {domain.lower() for host in kept for domain in host.domains}
        left = (
            replace(host, domains=tuple(domain for domain in host.domains if domain.lower() not in taken))
            for host in last
            if host.name not in names
        )
        kept += unique(host for host in left if host.domains)
    return ir.RouteTable(name=name, virtual_hosts=(*kept, catch_all(settings)))


def single(name: str, host: ir.VirtualHost) -> ir.RouteTable:
    """The table of one service whose protocol is looked at: its address already says who is meant."""
    return ir.RouteTable(name=name, virtual_hosts=(replace(host, domains=("*",)),))


def unique(hosts: Iterable[ir.VirtualHost]) -> tuple[ir.VirtualHost, ...]:
    """Virtual hosts by name, each domain once: a service's own name goes before another's alias."""
    hosts = sorted(hosts, key=lambda host: host.name)
    owners = {host.domains[0].lower() for host in hosts}
    seen: set[str] = {"*"}
    names: set[str] = set()
    kept: list[ir.VirtualHost] = []
    for host in hosts:
        if host.name in names:
            continue
        domains: list[str] = []
        for place, domain in enumerate(host.domains):
            key = domain.lower()
            if key in seen or (place and key in owners):
                continue
            seen.add(key)
            domains.append(domain)
        if domains:
            names.add(host.name)
            kept.append(host if len(domains) == len(host.domains) else replace(host, domains=tuple(domains)))
    return tuple(kept)
