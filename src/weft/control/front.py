"""What the outside reaches of a control plane: nodes, operators, proxies' telemetry, scrapers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from weft.control.access import authenticator
from weft.control.api.app import create_app
from weft.control.api.subject import origin
from weft.control.authority import AuthorityRoutes
from weft.control.cells import cells
from weft.control.changes import Changes
from weft.control.configuration import Configuration
from weft.control.metric_push import MetricPushes, pages_of
from weft.control.metrics import Metrics
from weft.control.nodes import OPEN_PATHS, NodeService
from weft.control.nodesession import Addresses
from weft.control.options import ControlOptions, dialled, now, url_host
from weft.control.proxy_routes import ProxyRoutes
from weft.control.scraping import ScrapingRoutes
from weft.control.security import AUDIT_LOG, Security
from weft.control.series import Facts
from weft.control.start import proxy_start
from weft.control.tap import Tapping
from weft.control.telemetry import SOCKET as TELEMETRY_SOCKET
from weft.control.telemetry import TelemetryProcess
from weft.control.usage import UsageRoutes
from weft.control.users import UserRoutes
from weft.instance import Instance
from weft.runtime import Readiness
from weft.start import ProxyStart
from weft.telemetry.inquiry import ask


@dataclass(slots=True)
class Ports:
    """The ports that were taken, once they are; 0 before."""

    options: ControlOptions
    xds: int = 0
    api: int = 0
    monitoring: int = 0

    def host(self, connection: HTTPConnection) -> str:
        """What a node is to dial: what it was told, or the address that it dialled, as a URL has it."""
        if self.options.advertise:
            return url_host(self.options.advertise[0])
        server = connection.scope.get("server")
        if server and server[1] is not None and server[0] not in {"0.0.0.0", "::", ""}:
            return url_host(str(server[0]))
        return url_host(dialled(self.options.listen))


@dataclass(frozen=True, slots=True)
class Front:
    """``app`` answers at all doors; ``ports`` is filled in by whoever opens them."""

    app: ASGIApp
    ports: Ports
    readiness: Readiness
    telemetry: TelemetryProcess
    authority: AuthorityRoutes


def open_front(
    options: ControlOptions,
    security: Security,
    configuration: Configuration,
    metrics: Metrics,
    stop: asyncio.Event,
) -> Front:
    """Everything that answers, tied to what it tells of. ``stop`` ends what lasts, as watches."""
    trustee, audit, users = security.trustee, security.audit, security.users
    pipeline, status = configuration.pipeline, configuration.status
    ports, readiness = Ports(options), Readiness()
    telemetry_socket = options.runtime / TELEMETRY_SOCKET
    pushes = MetricPushes(
        lambda: pipeline.world,
        lambda: [one.peer.identity for one in configuration.proxies.connections()],
    )
    telemetry = TelemetryProcess(
        address=url_host(options.listen),
        port=options.telemetry_port,
        socket=telemetry_socket,
        database=options.state / "telemetry" / "telemetry.db",
        certificates=security.credentials.current,
        trust_domain=lambda: options.trust_domain,
        metrics=metrics,
        revoked=lambda: [one.serial for one in trustee.ledger.revoked()],
        plan=pushes.plan,
        pages=lambda: pages_of(metrics, nodes.pages()),
        room=options.telemetry_room,
    )

    def addresses(connection: HTTPConnection) -> Addresses:
        host = ports.host(connection)
        return Addresses(
            xds=f"{host}:{ports.xds}",
            api=f"https://{host}:{ports.api}",
            domain=pipeline.world.settings.domain,
            telemetry_port=telemetry.port,
        )

    def turned(connection: HTTPConnection, why: str) -> None:
        audit.refused(origin(connection), why)

    nodes = _nodes(security, configuration, addresses, turned)
    authority = AuthorityRoutes(
        trustee,
        security.issuer,
        nodes,
        configuration.registry.instances,
        configuration.store.private("authority-request"),
        audit.access,
    )
    authority.doubts.append(configuration.federation.doubts)
    trustee.members = authority.members
    trustee.told += [
        security.credentials.renew,
        nodes.announce_bundle,
        lambda: configuration.proxies.turn_out(trustee.ledger.is_revoked),
        lambda: pipeline.take_epoch(trustee.ledger.epoch),
    ]
    Facts(
        world=lambda: pipeline.world,
        authority=lambda: trustee.authority,
        now=now,
        nodes=nodes.connected,
        telemetry=lambda: telemetry.pid,
    ).register(metrics)
    proxies = ProxyRoutes(status, configuration.config, nodes.ask)
    scraping = ScrapingRoutes(
        security.issuer,
        users,
        configuration.objects.roles,
        nodes.doors,
        lambda connection: f"{ports.host(connection)}:{ports.monitoring}",
        trustee.revoked,
    )
    tapping = Tapping(
        configuration.proxies,
        nodes.hold_tap,
        lambda question, asked: ask(telemetry_socket, question, asked),
        configuration.selector,
        stop,
    )
    app = create_app(
        configuration.objects,
        authenticate=authenticator(
            lambda: options.trust_domain, users, revoked=trustee.revoked, turned=turned
        ),
        denied=audit.denied,
        seen=audit.seen,
        stop=stop,
        converged=proxies.converged,
        cells=cells(lambda: pipeline.world),
        routes=[
            *_readyz(readiness),
            *nodes.routes(),
            *proxies.routes(),
            *Changes(options.state / AUDIT_LOG).routes(),
            *telemetry.routes(),
            *tapping.routes(),
            *UsageRoutes(nodes.meters).routes(),
            *authority.routes(),
            *UserRoutes(users, lambda: trustee.authority, now, audit.access, addresses).routes(),
            *scraping.routes(),
        ],
        open_paths=OPEN_PATHS | {"/readyz"},
    )
    return Front(app=app, ports=ports, readiness=readiness, telemetry=telemetry, authority=authority)


def _nodes(
    security: Security,
    configuration: Configuration,
    addresses: Callable[[HTTPConnection], Addresses],
    turned: Callable[[HTTPConnection, str], None],
) -> NodeService:
    """The hosts that join, and what they are told of trust and of their proxies."""
    trustee, pipeline = security.trustee, configuration.pipeline

    async def start(instance: Instance) -> ProxyStart:
        return await proxy_start(configuration.store, pipeline.world.settings.root_namespace, instance)

    nodes = NodeService(
        security.issuer,
        configuration.registry,
        configuration.table,
        addresses,
        security.jwts,
        loaded=trustee.hear,
        start=start,
        recorded=security.audit.access,
        turned=turned,
    )
    nodes.sequence = lambda: trustee.state.sequence
    nodes.foreign_keys = lambda: configuration.federation.token_keys
    return nodes


def _readyz(readiness: Readiness) -> list[BaseRoute]:
    async def ready(_request: Request) -> Response:
        waiting = readiness.waiting_for
        return JSONResponse({"ready": not waiting, "waitingFor": list(waiting)}, 503 if waiting else 200)

    return [Route("/readyz", ready, methods=["GET"])]
