"""The same requests of the conformance suite, sent: through real gateways and sidecars to ``weft echo``."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import yaml

from tests.conformance.samples import MISSING, Sample, prepared, samples
from tests.envoy.mesh import run_compiled
from tests.support.certificates import TestAuthority
from tests.support.compiled import resources
from tests.support.dial import Connection
from tests.support.envoy import Envoy, wait_until
from tests.support.ports import free_port
from weft import ir
from weft.app.echo.answer import Asked, Echo, Reply
from weft.app.echo.server import Ports, serving, tls_context
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.parse import parse
from weft.names import ProxyName, service_host
from weft.yaml import load

Json = dict[str, Any]
SAMPLES = samples()
TESTS = {name: tuple(group) for name, group in groupby(SAMPLES, key=lambda sample: sample.test)}
_TLS = {443, 8443}
_MANY = 600
_LOG = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {accessLogFile: access.log, accessLogEncoding: JSON}
"""


@dataclass(slots=True, kw_only=True)
class _Backend(Echo):
    """``seen`` counts what came by path."""

    seen: Counter[str] = field(default_factory=Counter)

    def reply(self, asked: Asked) -> Reply:
        self.seen[urlsplit(asked.target).path] += 1
        return Echo.reply(self, asked)


@dataclass(frozen=True, slots=True)
class Site:
    """A test's manifests, with backends that run: every Deployment is one, at an address of its own."""

    world: World
    backends: Mapping[tuple[str, str], _Backend]
    authority: TestAuthority


@contextmanager
def _running(texts: tuple[str, ...]) -> Iterator[Site]:
    """The backends in a thread of their own, the world with them as workloads."""
    documents = [item for text in texts for item in yaml.safe_load_all(text) if item]
    services = [item for item in documents if item["kind"] == "Service"]
    base = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
    backends: dict[tuple[str, str], _Backend] = {}
    entries: list[str] = []
    wanted: list[tuple[_Backend, Ports]] = []
    for number, item in enumerate((item for item in documents if item["kind"] == "Deployment"), 1):
        meta, labels = item["metadata"], item["spec"]["template"]["metadata"]["labels"]
        numbers = {
            port.get("targetPort", port["port"])
            for service in services
            if service["metadata"]["namespace"] == meta["namespace"]
            and (selector := service["spec"].get("selector"))
            and selector.items() <= labels.items()
            for port in service["spec"]["ports"]
            if port.get("protocol", "TCP") == "TCP"
        }
        high = {port for port in numbers if port > 1023}
        who = _Backend(name=meta["name"], namespace=meta["namespace"], pod=f"{meta['name']}-0")
        ports = Ports(host=f"{base}.{number}", http=tuple(high - _TLS), tls=tuple(high & _TLS))
        backends[meta["namespace"], meta["name"]] = who
        wanted.append((who, ports))
        spec = {"address": ports.host, "labels": labels}
        entry = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "spec": spec}
        own = {"name": who.pod, "namespace": meta["namespace"]}
        entries.append(yaml.safe_dump({**entry, "metadata": own}))
    read = [resource for text in texts for resource in _resources(text)]
    world = World.build([*read, *resources(_LOG, *entries)])
    with _serving(wanted):
        yield Site(world, backends, TestAuthority())


@contextmanager
def _serving(wanted: list[tuple[_Backend, Ports]]) -> Iterator[None]:
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for who, ports in wanted:
                context = tls_context(None, None, None) if ports.tls else None
                await stack.enter_async_context(serving(who, ports, tls=context))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(30), "the backends do not listen"
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def _resources(text: str) -> Iterator[Any]:
    documents, _ = load(text, "manifests.yaml")
    for document in documents:
        resource, _ = parse(document)  # Deployments and their like are none of weft's
        if resource is not None:
            yield resource


class Senders:
    """Proxies by who sends, started when they are first asked for."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self._site, self._stack = site, stack
        self._gateways: dict[str, tuple[Envoy, dict[int, int]]] = {}
        self._clients: dict[str, tuple[Envoy, int]] = {}
        self._calls = 0

    def gateway(self, name: str) -> tuple[Envoy, dict[int, int]]:
        """A gateway's proxy, and where its ports are."""
        if name not in self._gateways:
            namespace, _, own = name.partition("/")
            ports = {port: free_port() for port in (80, 443, 8080, 8090, 8443)}
            identity = ir.ProxyIdentity(
                name=ProxyName("router", "127.0.0.1", own, namespace),
                labels=(("gateway.networking.k8s.io/gateway-name", own),),
                attachment=ir.Attachment(capture=ir.Capture.NONE),
                port_map=tuple(ports.items()),
            )
            self._gateways[name] = self._start(identity), ports
        return self._gateways[name]

    def client(self, namespace: str) -> tuple[Envoy, int]:
        """A sidecar, and the port where it takes its application's connections."""
        if namespace not in self._clients:
            outbound = free_port()
            identity = ir.ProxyIdentity(
                name=ProxyName("sidecar", "127.0.0.1", "client", namespace),
                attachment=ir.Attachment(
                    capture=ir.Capture.SECCOMP, outbound_address="127.0.0.1", outbound_port=outbound
                ),
            )
            self._clients[namespace] = self._start(identity), outbound
        return self._clients[namespace]

    def _start(self, identity: ir.ProxyIdentity) -> Envoy:
        site = self._site
        faulty = bool(compile_proxy(site.world, identity)[1])
        return self._stack.enter_context(run_compiled(site.world, identity, site.authority, faulty=faulty))

    def answer(self, sample: Sample) -> Json:
        """What became of a request, in the words of ``weft explain``."""
        case = sample.case
        if case["kind"] == "grpc":
            return self._call(sample)
        if case["kind"] == "tcp":
            return self._connect(sample)
        asked = case["request"]
        path = asked["path"].replace("{uuid}", uuid.uuid4().hex) or "/"
        connection = self._open(case)
        headers = {**(asked["headers"] or {}), **({"host": asked["host"]} if asked["host"] else {})}
        before = {key: backend.seen[urlsplit(path).path] for key, backend in self._site.backends.items()}
        connection.request(asked["method"], path, headers=headers)
        answer = connection.getresponse()
        found = _found(answer.status, answer.getheaders(), answer.read())
        connection.close()
        if case["expect"].get("mirroredTo"):
            found["mirrors"] = self._copies(urlsplit(path).path, before, found)
        return found

    def shares(self, sample: Sample) -> dict[str, float]:
        """Who answers many requests like this one, by service, in parts of the whole."""
        asked, connection = sample.case["request"], self._open(sample.case)
        found: Counter[str] = Counter()
        for _ in range(_MANY):
            connection.request(asked["method"], asked["path"], headers={"host": asked["host"] or "localhost"})
            found[yaml.safe_load(connection.getresponse().read())["service"]] += 1
        connection.close()
        return {name: number / _MANY for name, number in found.items()}

    def _open(self, case: Json) -> Connection:
        if "client" in case:
            return self._dial(case["client"]["namespace"], case["request"]["host"])
        _, ports = self.gateway(case["gateway"]["gateway"])
        return Connection(("127.0.0.1", ports[case["port"]]))

    def _connect(self, sample: Sample) -> Json:
        """A connection inside TLS, on which the backend is asked who it is."""
        asked = sample.request
        _, ports = self.gateway(asked["from"]["gateway"])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the backend made its own
        connection = Connection(("127.0.0.1", ports[asked["port"]]), tls=context, sni=asked["sni"])
        said = connection.ask().body
        connection.close()
        assert ("tls" in said) is bool(sample.case["expected"].get("BackendIsTLS"))
        assert said["tls"]["serverName"] == asked["sni"]
        return {"upstream": {"destinations": [said]}}

    def _copies(self, path: str, before: Mapping[tuple[str, str], int], found: Json) -> list[Json]:
        """Whoever got the request, too."""
        (target,) = found["upstream"]["destinations"]
        main = (target["namespace"], target["service"])

        def others() -> list[tuple[str, str]]:
            return [
                key
                for key, backend in self._site.backends.items()
                if key != main and backend.seen[path] > before[key]
            ]

        wait_until(lambda: bool(others()))
        return [{"service": name, "namespace": space, "percent": 100} for space, name in others()]

    def _dial(self, namespace: str, host: str) -> Connection:
        name, _, port = host.partition(":")
        own, _, space = name.partition(".")
        found = self._site.world.services.by_host[service_host(own, space or namespace)]
        _, outbound = self.client(namespace)
        return Connection((found[0].addresses[0], int(port or 80)), through=("127.0.0.1", outbound))

    def _call(self, sample: Sample) -> Json:
        http = sample.request["http"]
        envoy, ports = self.gateway(sample.case["gateway"]["gateway"])
        metadata = [(name.lower(), value) for name, values in http["headers"].items() for value in values]
        options = (("grpc.default_authority", http["host"]),) if http["host"] else ()
        code = grpc.StatusCode.OK
        with grpc.insecure_channel(f"127.0.0.1:{ports[sample.case['port']]}", options=options) as channel:
            call = channel.unary_unary(http["path"])
            try:
                call(b"", metadata=metadata, timeout=30)
            except grpc.RpcError as error:
                code = error.code()
        self._calls += 1
        targets = []
        if code is grpc.StatusCode.OK:  # an echo does not say whose it is: the access log does
            cluster = envoy.requests(self._calls, method="POST")[-1]["upstream_cluster"]
            name, namespace, *_ = cluster.rpartition("|")[2].split(".")
            targets = [{"service": name, "namespace": namespace}]
        upstream = {"destinations": targets}
        return {"grpcStatus": code.value[0], "action": "forward", "error": None, "upstream": upstream}


def _found(status: int, headers: list[tuple[str, str]], body: bytes) -> Json:
    said = yaml.safe_load(body) if body.startswith(b"{") else {}
    answered: dict[str, list[str]] = {}
    for name, value in headers:
        answered.setdefault(name.lower(), []).append(value)
    location = urlsplit(answered.get("location", [""])[0])
    return {
        "status": status,
        "error": None,
        "action": "forward" if "pod" in said else "direct",
        "redirect": {
            "scheme": location.scheme,
            "host": location.hostname,
            "port": location.port or "",
            "path": location.path,
        },
        "upstream": {
            "destinations": [{"service": said.get("service"), "namespace": said.get("namespace")}],
            "request": {
                "path": said.get("path"),
                "host": said.get("host"),
                "method": said.get("method"),
                "headers": {name.lower(): value for name, value in (said.get("headers") or {}).items()},
            },
        },
        "response": {"headers": answered},
        "mirrors": [],
        "timeout": None,
        "retries": None,
    }


@pytest.mark.skipif(not SAMPLES, reason=MISSING)
@pytest.mark.parametrize("name", TESTS)
def test_samples(name: str) -> None:
    group = TESTS[name]
    texts = tuple(prepared(file.read_text()) for file in group[0].manifests)
    wrong: list[str] = []
    with _running(texts) as site, ExitStack() as stack:
        senders = Senders(site, stack)
        for sample in group:
            got = senders.answer(sample)
            # What the backend did with the query is in the answer already.
            plain = {**sample.case, "request": {**sample.case.get("request", {}), "path": "/"}}
            wrong += (f"{sample.id}: {text}" for text in replace(sample, case=plain).differences(got))
        assert wrong == []
        if weights := group[0].weights:
            shares = senders.shares(group[0])
            # Five sigma of the most uneven count: wide enough to be never wrong, and 0.7 is not 0.5.
            assert shares == pytest.approx({name: share for name, share in weights.items() if share}, abs=0.1)
