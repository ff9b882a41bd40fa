"""One function for each thing that reads what a stranger sent. It returns, or it has found a defect."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from weft import ir
from weft.compile.problems import problems_of
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.control.api.app import create_app
from weft.control.api.objects import Objects
from weft.control.api.subject import Subject
from weft.control.key_server import FetchError, public_keys
from weft.emit.bundle import emit
from weft.errors import WeftError
from weft.identity.ca import Authority
from weft.identity.join import JoinToken
from weft.identity.jwt import SvidError, verify
from weft.identity.server import EnrollRequest, SignRequest, caller_of
from weft.instance import Instance
from weft.model.jwks import key_set, private_keys
from weft.model.parse import parse, unwrap
from weft.model.resource import Resource
from weft.names import ProxyName
from weft.node.resolve import Names, parse_question, refuse
from weft.node.workloadapi.messages import read_jwt_request, read_validate_request
from weft.protos import discovery_v3
from weft.spiffe import AdminId, NodeId, SpiffeId
from weft.store.sqlite import SqliteStore
from weft.telemetry.otlp import describe, reports, spans
from weft.xds.connection import StreamError, node, request
from weft.xds.connection import parse as parse_request
from weft.xds.messages import ProtocolError, Snapshot
from weft.xds.protocol import Stream
from weft.xds.shared import Shared
from weft.yaml import load

Target = Callable[[bytes], None]

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PROXIES: Final = (
    ir.ProxyIdentity(
        name=ProxyName("sidecar", "10.9.9.9", "client", "default"),
        labels=(("app", "web"),),
        attachment=ir.Attachment(capture=ir.Capture.REDIRECT),
    ),
    ir.ProxyIdentity(
        name=ProxyName("router", "10.9.9.8", "edge", "default"),
        labels=(("istio", "ingressgateway"), ("gateway.networking.k8s.io/gateway-name", "edge")),
        attachment=ir.Attachment(capture=ir.Capture.NONE),
    ),
)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _resources(data: bytes) -> Iterator[Resource]:
    documents, _ = load(data.decode(errors="replace"), "fuzz.yaml")
    for document in documents:
        parts, _ = unwrap(document)
        for part in parts:
            resource, problems = parse(part)
            for problem in problems:
                str(problem)
            if resource is not None:
                yield resource


def yaml(data: bytes) -> None:
    """A file of resources, read and checked."""
    for _ in _resources(data):
        pass


def configuration(data: bytes) -> None:
    """What passes the checks, compiled for a sidecar and a gateway."""
    world = World.build(_resources(data))
    for namespace in ("default", "istio-system"):
        problems_of(world, namespace)
    for identity in _PROXIES:
        proxy, _ = compile_proxy(world, identity)
        emit(proxy)


def xds(data: bytes) -> None:
    """The messages of one stream, each after its length in two bytes; the server answers between."""
    stream = Stream(Shared())
    world = World.build(())
    bundle = emit(compile_proxy(world, _PROXIES[0])[0])
    stream.update(Snapshot(1, bundle.resources))
    with suppress(StreamError, ProtocolError):
        while data:
            size = int.from_bytes(data[:2], "big")
            message = parse_request(data[2 : 2 + size])
            data = data[2 + size :]
            node(message)
            stream.receive(request(message))
            while (response := stream.send()) is not None:
                answer = discovery_v3.DeltaDiscoveryRequest(
                    type_url=response.type_url, response_nonce=response.nonce
                )
                stream.receive(request(answer))


@cache
def _authority() -> Authority:
    return Authority.create(_NOW)


def csr(data: bytes) -> None:
    """A certificate request, and what enrols a node or asks for a workload's certificate."""
    text = data.decode(errors="replace")
    with suppress(WeftError):
        _authority().sign(
            text, SpiffeId("cluster.local", "default", "web"), now=_NOW, lifetime=timedelta(hours=1)
        )
    for read in (EnrollRequest.parse, SignRequest.parse):
        with suppress(WeftError):
            read(_json(data))


def certificate(data: bytes) -> None:
    """A client's certificate: whose is it."""
    caller_of(data)


def tokens(data: bytes) -> None:
    """Join tokens and identities."""
    text = data.decode(errors="replace")
    with suppress(WeftError):
        JoinToken.parse(text)
    for form in (AdminId, NodeId, SpiffeId):
        with suppress(ValueError):
            assert str(form.parse(text)) == text


def instance(data: bytes) -> None:
    """What a node says of a workload."""
    with suppress(WeftError):
        found = Instance.parse(_json(data))
        assert Instance.parse(found.to_dict()) == found


def dns(data: bytes) -> None:
    """A query of an application, and what a resolver answers to it."""
    names = Names(
        {"web.default.svc.cluster.local": ("240.240.0.1", "2001:2::1"), "far.test": ("elsewhere.test",)}
    )
    query, _, reply = data.partition(b"\xff\xff")
    parse_question(query)
    names.answer(query, "default")
    if len(query) >= 4:
        refuse(query)
    alias = names.alias(query, "default")
    if alias is not None and len(reply) >= 12:
        assert alias.query
        alias.answer(reply)


def jwks(data: bytes) -> None:
    """The keys of an issuer."""
    text = data.decode(errors="replace")
    if not key_set(text):
        list(private_keys(text))


def keys(data: bytes) -> None:
    """What an issuer's server answers, of which proxies get the public keys."""
    with suppress(FetchError):
        assert not key_set(public_keys(data))


def svid(data: bytes) -> None:
    """A JWT-SVID that an application was shown."""
    key = {"kid": "k", "kty": "EC", "crv": "P-256", "alg": "ES256", "x": "A" * 43, "y": "A" * 43}
    with suppress(SvidError):
        verify(data.decode(errors="replace"), "web", {"cluster.local": [key]}, now=_NOW)


def workload_api(data: bytes) -> None:
    """What an application asks of the Workload API."""
    for read in (read_jwt_request, read_validate_request):
        with suppress(ValueError):
            read(data)


def otlp(data: bytes) -> None:
    """Access logs and spans that a proxy reports."""
    reporter = SpiffeId("cluster.local", "default", "web")
    with suppress(DecodeError):
        for report in reports(data, reporter, 1_700_000_000_000):
            assert report.time_ms <= 1_700_000_000_000
    with suppress(DecodeError):
        for span in spans(data, reporter, lambda _: True):
            describe(span.body)


class _Api:
    """The control plane's API over a store of its own, called without a socket."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._stop.set()  # watches end at once
        self._directory = tempfile.TemporaryDirectory()
        self._app = self._loop.run_until_complete(self._start())

    async def _start(self) -> Any:
        self._open = SqliteStore.open(Path(self._directory.name))
        objects = Objects(await self._open.__aenter__())
        await objects.start()

        async def anybody(_connection: object) -> Subject:
            return Subject(name="fuzz", groups=("system:masters",))

        return create_app(objects, authenticate=anybody, stop=self._stop)

    def call(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https",
            "method": method, "path": path, "raw_path": path.encode(errors="replace"), "root_path": "",
            "query_string": query.encode(errors="replace"), "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "extensions": {},
        }  # fmt: skip
        answers: list[Any] = []
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            answers.append(message)

        self._loop.run_until_complete(asyncio.wait_for(self._app(scope, receive, send), 20))
        return int(answers[0]["status"])


@cache
def _api() -> _Api:
    return _Api()


def api(data: bytes) -> None:
    """A request: a line ``METHOD TARGET CONTENT-TYPE ACCEPT``, then the body."""
    head, _, body = data.partition(b"\n")
    words = head.decode("latin-1").split(" ")
    method, target, content, accept = (*words, *("GET", "/api", "", "")[len(words) :])[:4]
    if method not in {"GET", "POST", "PUT", "PATCH", "DELETE"} or not target.startswith("/"):
        return
    headers = [(b"content-type", content.encode("latin-1")), (b"accept", accept.encode("latin-1"))]
    status = _api().call(method, target, headers, body)
    assert status < 500, f"{method} {target}: {status}"


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        api, certificate, configuration, csr, dns, instance, jwks, keys, otlp, svid, tokens, workload_api,
        xds, yaml,
    )
}  # fmt: skip
