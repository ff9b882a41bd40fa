"""Who is told of metrics, for the telemetry process: with the keys and authorities that it takes.

Certificates are read where the collector's rule says: files of this host, Secrets that a gateway of the root
namespace might use, or the mesh's own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from weft import __version__, ir
from weft.compile.metric_push import Choice, Reached, metric_push
from weft.compile.secrets import Authorities, Certificate, granted, material
from weft.compile.world import World
from weft.control.metrics import Metrics
from weft.names import ALPN_MESH_H2, ALPN_MESH_HTTP1, ROOT_NAMESPACE, ProxyName
from weft.telemetry.push import plan

_NAME: Final = "telemetry"
_FILES_S: Final = 60.0
_PAGE_BYTES: Final = 8 * 1024 * 1024
_MESH_ALPN: Final = frozenset({ALPN_MESH_H2, ALPN_MESH_HTTP1})


class _UnusableError(Exception):
    """Why a collector's TLS cannot be spoken."""


class MetricPushes:
    """``interval_s``: from one push to the next."""

    def __init__(
        self,
        world: Callable[[], World],
        proxies: Callable[[], Iterable[ir.ProxyIdentity]],
        interval_s: float = plan.INTERVAL_S,
    ) -> None:
        self._world = world
        self._proxies = proxies
        self._interval_s = interval_s
        self._seen: tuple[World, tuple[ir.ProxyIdentity, ...]] | None = None
        self._made = 0.0
        self._plan = plan.NOTHING

    def plan(self) -> plan.Plan:
        """What holds now: made anew with another world, other proxies, and every minute, for files change."""
        world, proxies, now = self._world(), tuple(self._proxies()), time.monotonic()
        stale = now - self._made >= _FILES_S
        if stale or self._seen is None or world is not self._seen[0] or proxies != self._seen[1]:
            self._seen, self._made = (world, proxies), now
            self._plan = plan_of(world, proxies, self._interval_s)
        return self._plan


async def pages_of(metrics: Metrics, nodes: Iterable[tuple[str, Awaitable[bytes]]]) -> dict[str, plan.Page]:
    """What the control plane and each of the nodes show now; a node that does not answer shows nothing."""
    asked = list(nodes)
    host = socket.gethostname()
    pages = {"": _page("weft-control-plane", f"istiod-{host}", host, metrics.text().decode())}
    answers = await asyncio.gather(*(asking for _, asking in asked), return_exceptions=True)
    for (name, _), text in zip(asked, answers, strict=True):
        if isinstance(text, bytes) and len(text) <= _PAGE_BYTES:
            pages[name] = _page("weft-node", name, name, text.decode(errors="replace"))
    return pages


def _page(service: str, instance: str, host: str, text: str) -> plan.Page:
    resource = (
        ("service.name", service), ("service.namespace", ROOT_NAMESPACE), ("service.version", __version__),
        ("service.instance.id", instance), ("host.name", host),
    )  # fmt: skip
    return plan.Page(resource, text)


def plan_of(world: World, proxies: Iterable[ir.ProxyIdentity], interval_s: float) -> plan.Plan:
    """As the telemetry process is told."""
    made = metric_push(world, proxies)
    return plan.Plan(
        collectors=tuple(_collector(world, one) for one in made.collectors),
        choices=_choices(made.choices),
        others={name: _choices(said) for name, said in made.others.items()},
        interval_s=interval_s,
    )


def _choices(said: Iterable[Choice]) -> tuple[plan.Choice, ...]:
    return tuple(
        plan.Choice(collector=one.told.provider, sides=dict(one.told.sides), service=one.service)
        for one in said
    )


def _collector(world: World, reached: Reached) -> plan.Collector:
    provider, cluster = reached.provider, reached.cluster
    if provider is None or cluster is None or reached.problem:
        return plan.Collector(name=reached.name, problem=reached.problem)
    tls, problem = None, ""
    try:
        tls = _tls(world, cluster, provider.host, grpc=provider.path is None)
    except _UnusableError as error:
        problem = str(error)
    auto = cluster.mutual is ir.MutualTls.AUTO
    return plan.Collector(
        name=reached.name,
        host=provider.host,
        path=provider.path,
        headers=provider.headers,
        timeout_s=provider.timeout.total_seconds(),
        connect_s=cluster.connections.connect_timeout.total_seconds(),
        endpoints=tuple(
            plan.Endpoint(one.address, one.port, one.mesh_tls or not auto) for one in reached.endpoints
        ),
        tls=tls,
        problem=problem,
    )


def _tls(world: World, cluster: ir.Cluster, host: str, *, grpc: bool) -> plan.Tls | None:
    said = cluster.tls
    if said is None:
        return None
    own = "h2" if grpc else "http/1.1"
    ours = (ALPN_MESH_H2 if grpc else ALPN_MESH_HTTP1,) if _MESH_ALPN & {*said.alpn} else ()
    chain, key = _shown(world, said.certificate)
    limits = said.limits
    return plan.Tls(
        sni=said.sni or host,
        names=tuple((_test(name), name.value) for name in said.peer_names),
        alpn=(*ours, own),
        roots=_trusted(world, said.trust) if said.trust is not None else "",
        certificate=chain,
        key=key,
        minimum=limits.minimum.value if limits.minimum is not None else "1.2",
        maximum=limits.maximum.value if limits.maximum is not None else "",
    )


def _test(name: ir.TextMatch) -> str:
    if name.test not in {ir.TextTest.EXACT, ir.TextTest.PREFIX}:
        raise _UnusableError(f"a name that is tested by {name.test.value} cannot be looked at here")
    return name.test.value


def _shown(world: World, ref: ir.SecretRef | None) -> tuple[str, str]:
    """A certificate with its key; both empty without one."""
    match ref:
        case None:
            return "", ""
        case ir.SecretRef(source=ir.SecretFrom.FILE):
            return plan.MESH, ""
        case ir.SecretRef(source=ir.SecretFrom.PATHS):
            return _read(ref.certificate_path), _read(ref.key_path)
    held = _held(world, ref.name)
    if not isinstance(held, Certificate):
        raise _UnusableError(f"{ref.name} holds no tls.crt with a tls.key")
    return held.chain.decode(), held.key.decode()


def _trusted(world: World, ref: ir.SecretRef) -> str:
    if ref.revoked_path:
        raise _UnusableError("lists of revoked certificates (caCrl) are not looked at here")
    match ref.source:
        case ir.SecretFrom.FILE:
            return plan.MESH
        case ir.SecretFrom.SYSTEM:
            return plan.SYSTEM
        case ir.SecretFrom.PATHS:
            return _read(ref.bundle_path)
    held = _held(world, ref.name)
    if not isinstance(held, Authorities):
        raise _UnusableError(f"{ref.name} holds no ca.crt")
    return held.bundle.decode()


def _held(world: World, name: str) -> Certificate | Authorities | None:
    root = world.settings.root_namespace
    found, problems = granted((name,), ProxyName("router", "", _NAME, root), world.gateway_facts)
    if problems:
        raise _UnusableError(problems[0].message)
    return material(found[0][1]) if found else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        raise _UnusableError(f"{path} cannot be read: {error}") from error
