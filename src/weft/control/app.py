"""The control plane: store, authority, registry, pipeline, xDS and API, wired, started and drained.

Nothing here is on the request path. If any part fails, every part stops and the error is raised.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from weft.compile.world import World
from weft.control import sources
from weft.control.access import authenticator, monitoring_only
from weft.control.admission import examiner
from weft.control.api.app import create_app
from weft.control.api.kubeconfig import kubeconfig, write_kubeconfig
from weft.control.api.objects import Objects
from weft.control.api.serve import serve_api
from weft.control.api.subject import origin
from weft.control.audit import AuditLog
from weft.control.authority import AuthorityRoutes
from weft.control.cells import cells
from weft.control.chain import NAME
from weft.control.changes import Changes
from weft.control.credentials import ADMIN_LIFETIME, Credentials
from weft.control.entry import ENTRY_KIND, PROXY_ANNOTATION
from weft.control.federation import Federation
from weft.control.handover import Handover, OwnAuthority
from weft.control.key_server import KeyServer
from weft.control.keysets import KeyFetcher
from weft.control.metric_push import MetricPushes
from weft.control.metrics import Metrics
from weft.control.names import names
from weft.control.nametable import NameTable
from weft.control.nodes import OPEN_PATHS, NodeService
from weft.control.nodesession import Addresses
from weft.control.pipeline import Pipeline
from weft.control.proxies import Entry, Proxies, authorizer
from weft.control.proxy_routes import ProxyRoutes
from weft.control.registry import LEASE_S, Registry
from weft.control.rotation import Trustee
from weft.control.scraping import ScrapingRoutes
from weft.control.series import Facts
from weft.control.start import proxy_start
from weft.control.status import Status
from weft.control.statuses import Statuses
from weft.control.tap import Tapping
from weft.control.telemetry import SOCKET as TELEMETRY_SOCKET
from weft.control.telemetry import TelemetryProcess
from weft.control.usage import UsageRoutes
from weft.control.users import UserRoutes
from weft.errors import WeftError
from weft.identity.ca import WORKLOAD_LIFETIME
from weft.identity.custody import Custody
from weft.identity.jwt_issuer import JwtIssuer
from weft.identity.ledger import Issued, Ledger
from weft.identity.nodes import Nodes
from weft.identity.server import Issuer
from weft.identity.tokens import Tokens
from weft.identity.users import MASTERS, Users
from weft.instance import Instance
from weft.model.resource import Key
from weft.model.service import Service
from weft.model.workload_entry import WorkloadEntry
from weft.names import API_PORT, MONITORING_PORT, TELEMETRY_PORT, TRUST_DOMAIN, XDS_PORT
from weft.private import check_readable_by_owner_only, make_directory, secure
from weft.runtime import Readiness
from weft.start import ProxyStart
from weft.store.interface import Private
from weft.store.sqlite import SqliteStore
from weft.telemetry.inquiry import ask
from weft.xds.server import serve as serve_xds
from weft.xds.store import ConfigStore

_log = logging.getLogger(__name__)

API_SOCKET: Final = "api.sock"
AUDIT_LOG: Final = NAME
KUBECONFIG: Final = "kubeconfig"
_DRAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """``listen``: the address of the ports. ``advertise``: names and addresses that nodes dial, the first
    is what they are told; none means what they dialled. Port 0 takes a free one.
    """

    runtime: Path
    state: Path
    listen: str = "0.0.0.0"
    advertise: tuple[str, ...] = ()
    xds_port: int = XDS_PORT
    api_port: int = API_PORT
    monitoring_port: int = MONITORING_PORT
    telemetry_port: int = TELEMETRY_PORT
    trust_domain: str = TRUST_DOMAIN
    config: Path | None = None
    certificate_lifetime: timedelta = WORKLOAD_LIFETIME
    lease_s: float = LEASE_S
    own_authority: OwnAuthority | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the control plane is reached."""

    xds: str
    api: str
    monitoring: str
    socket: Path
    kubeconfig: Path


def _now() -> datetime:
    return datetime.now(UTC)


def _dialled(host: str) -> str:
    """An address that reaches a socket bound to ``host`` from this machine."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@asynccontextmanager
async def control_plane(options: ControlOptions, stop: asyncio.Event) -> AsyncIterator[Listening]:
    """Run inside the block; ready when it is entered, drained when it is left.

    Raises:
        WeftError: a port is taken, the state cannot be read.
    """
    _make_runtime(options.runtime)
    await asyncio.to_thread(_secure_state, options.state)
    if options.own_authority is not None:
        check_readable_by_owner_only(options.own_authority.key)
    # A thousand streams are more files than the usual 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(options.state / "control"))
        trustee = await _trustee(options, store)
        hosts = ("localhost", "127.0.0.1", "::1", socket.gethostname(), *options.advertise)
        if options.listen not in {"0.0.0.0", "::", ""}:
            hosts = (*hosts, options.listen)
        credentials = Credentials(lambda: trustee.authority, hosts)

        audit = AuditLog(options.state / AUDIT_LOG, key=await _kept_key(store.private("audit")))
        stack.callback(audit.close)
        users = Users(store.private("users"), _now)
        metrics = Metrics()

        def signed(issued: Issued) -> None:
            audit.write("certificate", asdict(issued))
            metrics.issued.add()

        issuer = Issuer(
            lambda: trustee.authority,
            Tokens(store.private("tokens"), _now),
            Nodes(store.private("nodes")),
            _now,
            audit=signed,
            record=trustee.ledger.add,
            trust=lambda: trustee.trust,
            lifetime=options.certificate_lifetime,
        )
        config, proxies = ConfigStore(), Proxies()
        status = Status(proxies, metrics)
        table = NameTable()
        statuses = Statuses(store, status)

        def heard(world: World, revision: int) -> None:
            table.set(names(world))
            statuses.heard(world, revision)
            keys.heard(world)
            federation.heard(world)

        pipeline = Pipeline(store, config, proxies, status, trust_domain=options.trust_domain, on_world=heard)

        keys = KeyFetcher(
            KeyServer(),
            store.private("key-sets"),
            pipeline.take_keys,
            counted=lambda well: (metrics.keys_fetched if well else metrics.keys_missed).add(),
        )
        pipeline.take_keys(await keys.load())
        pipeline.take_epoch(trustee.ledger.epoch)
        federation = Federation(KeyServer(), store.private("federation"), trustee.federate)

        async def drained(_key: Key, revision: int) -> None:
            await pipeline.endpoints_acknowledged(revision, _DRAIN_S)

        registry = Registry(store, issuer, drained, lease_s=options.lease_s)
        objects = Objects(
            store,
            admit=examiner(lambda: pipeline.world),
            committed=audit.changes,
            undone=audit.undone,
            judged=metrics.judged,
        )
        await objects.start()
        await registry.restore()

        readiness = Readiness()
        served: dict[str, int] = {}

        def addresses(connection: HTTPConnection) -> Addresses:
            host = options.advertise[0] if options.advertise else _asked(connection, options.listen)
            api = f"https://{_url_host(host)}:{served['api']}"
            domain = pipeline.world.settings.domain
            xds = f"{_url_host(host)}:{served['xds']}"
            return Addresses(xds=xds, api=api, domain=domain, telemetry_port=telemetry.port)

        async def start(instance: Instance) -> ProxyStart:
            return await proxy_start(store, pipeline.world.settings.root_namespace, instance)

        def turned(connection: HTTPConnection, why: str) -> None:
            audit.refused(origin(connection), why)

        jwts = JwtIssuer(
            issuer, store.private("jwt"), audit=lambda issued: audit.write("jwt", asdict(issued))
        )
        nodes = NodeService(
            issuer,
            registry,
            table,
            addresses,
            jwts,
            loaded=trustee.hear,
            start=start,
            recorded=audit.access,
            turned=turned,
        )
        authority_routes = AuthorityRoutes(
            trustee, issuer, nodes, registry.instances, store.private("authority-request"), audit.access
        )
        authority_routes.doubts.append(federation.doubts)
        trustee.members = authority_routes.members
        nodes.sequence = lambda: trustee.state.sequence
        nodes.foreign_keys = lambda: federation.token_keys
        trustee.told += [
            credentials.renew,
            nodes.announce_bundle,
            lambda: proxies.turn_out(trustee.ledger.is_revoked),
            lambda: pipeline.take_epoch(trustee.ledger.epoch),
        ]
        proxy_routes = ProxyRoutes(status, config, nodes.ask)
        scraping = ScrapingRoutes(
            issuer,
            users,
            objects.roles,
            nodes.doors,
            lambda connection: f"{addresses(connection).xds.rpartition(':')[0]}:{served['monitoring']}",
            trustee.revoked,
        )
        Facts(
            world=lambda: pipeline.world,
            authority=lambda: trustee.authority,
            now=_now,
            nodes=nodes.connected,
            telemetry=lambda: telemetry.pid,
        ).register(metrics)
        user_routes = UserRoutes(users, lambda: trustee.authority, _now, audit.access, addresses)
        pushes = MetricPushes(
            lambda: pipeline.world, lambda: [one.peer.identity for one in proxies.connections()]
        )
        telemetry = TelemetryProcess(
            address=_url_host(options.listen),
            port=options.telemetry_port,
            socket=options.runtime / TELEMETRY_SOCKET,
            database=options.state / "telemetry" / "telemetry.db",
            certificates=credentials.current,
            trust_domain=lambda: options.trust_domain,
            metrics=status.metrics,
            revoked=lambda: [one.serial for one in trustee.ledger.revoked()],
            plan=pushes.plan,
        )
        tapping = Tapping(
            proxies,
            nodes.hold_tap,
            lambda question, asked: ask(options.runtime / TELEMETRY_SOCKET, question, asked),
            _selector(pipeline),
            stop,
        )
        app = create_app(
            objects,
            authenticate=authenticator(
                lambda: options.trust_domain,
                users,
                revoked=trustee.revoked,
                turned=turned,
            ),
            denied=audit.denied,
            seen=audit.seen,
            stop=stop,
            converged=proxy_routes.converged,
            cells=cells(lambda: pipeline.world),
            routes=[
                *_readyz(readiness),
                *nodes.routes(),
                *proxy_routes.routes(),
                *Changes(options.state / AUDIT_LOG).routes(),
                *telemetry.routes(),
                *tapping.routes(),
                *UsageRoutes(nodes.meters).routes(),
                *authority_routes.routes(),
                *user_routes.routes(),
                *scraping.routes(),
            ],
            open_paths=OPEN_PATHS | {"/readyz"},
        )

        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [
            tasks.create_task(pipeline.run(readiness.guard("configuration")), name="pipeline"),
            tasks.create_task(statuses.run(), name="statuses"),
            tasks.create_task(keys.run(), name="keys of issuers"),
            tasks.create_task(registry.keep(), name="registry"),
            tasks.create_task(credentials.keep(), name="credentials"),
            tasks.create_task(trustee.run(), name="authority"),
            tasks.create_task(federation.run(), name="federation"),
            tasks.create_task(telemetry.run(), name="telemetry"),
        ]
        stack.callback(lambda: [task.cancel() for task in running])
        await readiness.wait()
        await telemetry.placed()

        xds_port = await stack.enter_async_context(
            serve_xds(
                f"{_url_host(options.listen)}:{options.xds_port}",
                credentials.current,
                config,
                status,
                authorizer(options.trust_domain, _registered(pipeline)),
                revoked=trustee.ledger.is_revoked,
            )
        )
        api = await stack.enter_async_context(
            serve_api(
                app,
                host=options.listen,
                port=options.api_port,
                ssl_context_factory=credentials.context,
                socket_path=options.runtime / API_SOCKET,
                stop=stop,
            )
        )
        served.update(xds=xds_port, api=api.port or 0)
        registry.opened()
        monitoring = await stack.enter_async_context(
            serve_api(
                monitoring_only(app),
                host=options.listen,
                port=options.monitoring_port,
                ssl_context_factory=credentials.context,
                stop=stop,
            )
        )
        served["monitoring"] = monitoring.port or 0
        if (own := options.own_authority) is not None:
            handover = Handover(trustee, own)
            authority_routes.doubts.append(handover.doubts)
            running.append(tasks.create_task(handover.run(), name="handover"))
        if options.config is not None:
            running.append(
                tasks.create_task(sources.follow(objects, options.config, stop=stop), name="directory")
            )
        host = _url_host(options.advertise[0] if options.advertise else _dialled(options.listen))
        listening = Listening(
            xds=f"{host}:{xds_port}",
            api=f"https://{host}:{api.port}",
            monitoring=f"https://{host}:{monitoring.port}",
            socket=options.runtime / API_SOCKET,
            kubeconfig=options.runtime / KUBECONFIG,
        )

        signer: x509.Certificate | None = None
        chain = key = ""

        async def tell_kubectl() -> None:
            """With the roots of now; with another certificate when somebody else signs now."""
            nonlocal signer, chain, key
            authority = trustee.authority
            if signer != authority.issuer:
                chain, key = credentials.admin("admin")
                serial = x509.load_pem_x509_certificate(chain.encode()).serial_number
                audit.write("certificate", {"identity": "admin", "serial": f"{serial:x}", "how": "itself"})
                # So that it can be revoked like everybody's.
                await users.certificate("admin", serial, groups=(MASTERS,), lifetime=ADMIN_LIFETIME)
                signer = authority.issuer
            config = kubeconfig(
                server=listening.api,
                ca=authority.bundle.encode(),
                certificate=chain.encode(),
                key=key.encode(),
            )
            write_kubeconfig(listening.kubeconfig, config)

        await tell_kubectl()
        trustee.told.append(tell_kubectl)
        stack.callback(listening.kubeconfig.unlink, missing_ok=True)
        yield listening


async def _kept_key(table: Private) -> bytes:
    """The key of the audit log's fingerprints: made once, so that equal values stay recognisable."""
    if (key := await table.get("key")) is None:
        key = os.urandom(32)
        if not await table.swap("key", None, key):
            key = await table.get("key") or key
    return key


def _secure_state(path: Path) -> None:
    """The directory of what stays, with everything in it.

    Raises:
        WeftError: it, or something in it, belongs to another user, or cannot be made.
    """
    try:
        make_directory(path)
    except OSError as error:
        hint = "run as root, or choose another --state-dir"
        raise WeftError(f"cannot use {path}: {error.strerror}", hint=hint) from error
    secure(path)


def _make_runtime(path: Path) -> None:
    """The directory of the sockets. Whoever owns it, or the one above, could put others in their place.

    Raises:
        WeftError: it belongs to another user, or cannot be made.
    """
    hint = "remove it, set XDG_RUNTIME_DIR, or choose another --runtime-dir"
    try:
        make_directory(path)
        for directory in (path.parent, path):
            owner = directory.stat().st_uid if directory == path.parent else directory.lstat().st_uid
            if owner not in {0, os.geteuid()}:
                raise WeftError(f"{directory} belongs to uid {owner}", hint=hint)
        # The node of root lets other users walk through, to sockets that check who they are.
        if path.stat().st_mode & 0o022:
            path.chmod(0o700)
            _log.warning("others could write to %s: closed to them", path)
    except OSError as error:
        raise WeftError(f"cannot use {path}: {error.strerror}", hint=hint) from error


async def _trustee(options: ControlOptions, store: SqliteStore) -> Trustee:
    own, domain = options.own_authority, options.trust_domain
    ledger = await Ledger(store.private("issued"), store.private("revoked"), _now).open()
    custody = Custody(store.private("authority"), _now, trust_domain=domain)
    return await Trustee.open(custody, ledger, _now, own.read(_now(), domain) if own else None)


def _asked(connection: HTTPConnection, listen: str) -> str:
    """The address that a node dialled: it reaches the other ports there as well."""
    server = connection.scope.get("server")
    if server and server[1] is not None and server[0] not in {"0.0.0.0", "::", ""}:
        return str(server[0])
    return _dialled(listen)


def _registered(pipeline: Pipeline) -> Callable[[str, str], Entry | None]:
    """What the store knows of a workload whose proxy connects."""

    def find(namespace: str, name: str) -> Entry | None:
        entry = pipeline.world.held(WorkloadEntry).get(Key(ENTRY_KIND, namespace, name))
        if entry is None:
            return None
        labels = {**(entry.metadata.labels or {}), **(entry.spec.labels or {})}
        return Entry(
            service_account=entry.spec.service_account or "default",
            kind=(entry.metadata.annotations or {}).get(PROXY_ANNOTATION, "sidecar"),
            labels=tuple(sorted(labels.items())),
            network=entry.spec.network or "",
        )

    return find


def _selector(pipeline: Pipeline) -> Callable[[str, str], dict[str, str] | None]:
    """The labels that a Service chooses its workloads by."""

    def find(namespace: str, name: str) -> dict[str, str] | None:
        service = pipeline.world.held(Service).get(Key("/Service", namespace, name))
        return dict(service.spec.selector or {}) if service is not None else None

    return find


def _readyz(readiness: Readiness) -> list[BaseRoute]:
    async def ready(_request: Request) -> Response:
        waiting = readiness.waiting_for
        return JSONResponse({"ready": not waiting, "waitingFor": list(waiting)}, 503 if waiting else 200)

    return [Route("/readyz", ready, methods=["GET"])]
