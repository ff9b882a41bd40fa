"""The control plane: store, authority, registry, pipeline, xDS and API, wired, started and drained.

Nothing here is on the request path. If any part fails, every part stops and the error is raised.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from weft.control import sources
from weft.control.access import monitoring_only
from weft.control.api.serve import serve_api
from weft.control.configuration import Configuration, open_configuration
from weft.control.directories import make_runtime, make_state
from weft.control.front import Front, open_front
from weft.control.handover import Handover
from weft.control.metrics import Metrics
from weft.control.options import ControlOptions, Listening, dialled, url_host
from weft.control.proxies import authorizer
from weft.control.security import AdminFile, Security, open_security
from weft.private import check_readable_by_owner_only
from weft.store.sqlite import SqliteStore
from weft.xds.server import serve as serve_xds

API_SOCKET: Final = "api.sock"
KUBECONFIG: Final = "kubeconfig"


@asynccontextmanager
async def control_plane(options: ControlOptions, stop: asyncio.Event) -> AsyncIterator[Listening]:
    """Run inside the block; ready when it is entered, drained when it is left.

    Raises:
        WeftError: a port is taken, the state cannot be read.
    """
    make_runtime(options.runtime)
    await asyncio.to_thread(make_state, options.state)
    if options.own_authority is not None:
        check_readable_by_owner_only(options.own_authority.key)
    # A thousand streams are more files than the usual 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(options.state / "control"))
        metrics = Metrics()
        security = await open_security(options, store, metrics, stack)
        configuration = await open_configuration(options, store, security, metrics)
        front = open_front(options, security, configuration, metrics, stop)

        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = _start(tasks, security, configuration, front)
        stack.callback(lambda: [task.cancel() for task in running])
        await front.readiness.wait()
        await front.telemetry.placed()

        listening = await _listen(options, security, configuration, front, stop, stack)
        if (own := options.own_authority) is not None:
            handover = Handover(security.trustee, own)
            front.authority.doubts.append(handover.doubts)
            running.append(tasks.create_task(handover.run(), name="handover"))
        if options.config is not None:
            following = sources.follow(configuration.objects, options.config, stop=stop)
            running.append(tasks.create_task(following, name="directory"))

        admin = AdminFile(security, listening)
        await admin.write()
        security.trustee.told.append(admin.write)
        stack.callback(admin.remove)
        yield listening


def _start(
    tasks: asyncio.TaskGroup, security: Security, configuration: Configuration, front: Front
) -> list[asyncio.Task[None]]:
    """What goes on by itself as long as the control plane runs."""
    work = {
        "pipeline": configuration.pipeline.run(front.readiness.guard("configuration")),
        "statuses": configuration.statuses.run(),
        "keys of issuers": configuration.keys.run(),
        "registry": configuration.registry.keep(),
        "credentials": security.credentials.keep(),
        "authority": security.trustee.run(),
        "federation": configuration.federation.run(),
        "telemetry": front.telemetry.run(),
    }
    return [tasks.create_task(one, name=name) for name, one in work.items()]


async def _listen(
    options: ControlOptions,
    security: Security,
    configuration: Configuration,
    front: Front,
    stop: asyncio.Event,
    stack: AsyncExitStack,
) -> Listening:
    """Open the ports: proxies, the API, and what is scraped.

    Raises:
        WeftError: a port is taken.
    """
    ports, credentials = front.ports, security.credentials
    ports.xds = await stack.enter_async_context(
        serve_xds(
            f"{url_host(options.listen)}:{options.xds_port}",
            credentials.current,
            configuration.config,
            configuration.status,
            authorizer(options.trust_domain, configuration.registered),
            revoked=security.trustee.ledger.is_revoked,
        )
    )
    api = await stack.enter_async_context(
        serve_api(
            front.app,
            host=options.listen,
            port=options.api_port,
            ssl_context_factory=credentials.context,
            socket_path=options.runtime / API_SOCKET,
            stop=stop,
        )
    )
    ports.api = api.port or 0
    configuration.registry.opened()
    monitoring = await stack.enter_async_context(
        serve_api(
            monitoring_only(front.app),
            host=options.listen,
            port=options.monitoring_port,
            ssl_context_factory=credentials.context,
            stop=stop,
        )
    )
    ports.monitoring = monitoring.port or 0
    host = url_host(options.advertise[0] if options.advertise else dialled(options.listen))
    return Listening(
        xds=f"{host}:{ports.xds}",
        api=f"https://{host}:{ports.api}",
        monitoring=f"https://{host}:{ports.monitoring}",
        socket=options.runtime / API_SOCKET,
        kubeconfig=options.runtime / KUBECONFIG,
    )
