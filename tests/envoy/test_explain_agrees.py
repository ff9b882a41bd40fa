"""Explain says what Envoy does: generated route tables and requests, the same outcome from both.

The tables and the requests come from small pools of values, so that many nearly fit. Everything is made of
one seed: a difference can be met again. ``WEFT_SEED`` is another one.
"""

from __future__ import annotations

import http.client
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.envoy.mesh import run_proxy
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from weft import ir
from weft.analysis.explain.answer import Answer
from weft.analysis.explain.configuration import Configuration, Decoded
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.request import read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.emit.bundle import emit
from weft.names import ProxyName

SEED: Final = int(os.environ.get("WEFT_SEED", "20261121"))
HOSTS: Final = 14
ROUTES: Final = 7
REQUESTS: Final = 220

_DOMAINS: Final = (
    "shop.example.com", "Cart.Example.com", "*.example.com", "*.shop.example.com", "*example.com", "shop.*",
    "shop.example.*", "10.0.0.1", "[::1]", "shop.example.com:8080", "cart", "*-dev.example.com", "*.com",
)  # fmt: skip
_ASKED: Final = (
    "shop.example.com", "SHOP.example.com", "shop.example.com:8080", "cart.example.com", "a.shop.example.com",
    "b.a.shop.example.com", "example.com", "xexample.com", "shop.org", "shop.example.org", "10.0.0.1",
    "10.0.0.1:99", "[::1]", "[::1]:80", "cart", "cart:1", "x-dev.example.com", ".example.com", "other.net",
    "shop.example.com.",
)  # fmt: skip
_PATHS: Final = ("/", "/shop", "/shop/", "/shop/cart", "/Shop", "/a", "/a/b", "/a/b/c", "/s", "/shopping")
_REGEXES: Final = ("/shop.*", "/[a-z]+", "/a/(b|c)/?", "/shop/[^/]+", ".*cart", "/(?i:SHOP)", "/a/.+")
_TEXT_REGEXES: Final = ("one|two", "o.*", "[0-9]+", "(?i)ONE", ".*")
_TEMPLATES: Final = ("/shop/*", "/a/{one}/{two}", "/a/**", "/{any}", "/*/b")
_WALKED: Final = (
    *_PATHS, "/shop/cart/1", "/shop/../a/b", "/shop/./cart", "//shop", "/shop//cart", "/%73hop",
    "/shop%2Fcart", "/shop/cart?z=%20",
    "/a%2fb", "/a\\b", "/shop/%2e%2e/a", "/shop?x=1", "/shop?x=2&y=", "/a/b?x=1&x=2", "/?y",
    "/a/b/../../shop", "/..", "/a/..", "/a/b/.", "/shop;v=1", "/SHOP", "/a/b/", "/shop/a%20b", "/%41", "/a/c",
    "/shop/cart;x?y=1", "/?x=1", "/a?X=1",
)  # fmt: skip
_NAMES: Final = ("x-user", "x-team", "accept")
_VALUES: Final = ("one", "two", "One", "one,two", "", "10", "ones")
_METHODS: Final = ("GET", "POST", "PUT", "OPTIONS")
_TESTS: Final = (
    ir.TextTest.EXACT, ir.TextTest.PREFIX, ir.TextTest.SUFFIX, ir.TextTest.CONTAINS, ir.TextTest.REGEX,
    ir.TextTest.PRESENT,
)  # fmt: skip
# Made up by Envoy, or by the client that sends.
_UNKNOWABLE: Final = frozenset(
    {
        "x-forwarded-for",
        "x-request-id",
        "traceparent",
        "tracestate",
        "content-length",
        "host",
        "x-envoy-decorator-operation",
    }
)
_FAULT: Final = ir.Fault(abort_status=418, abort_fraction=1_000_000)
_BACKEND: Final = "outbound|80||echo.default.svc.cluster.local"


class _Maker:
    """Route tables and requests out of one source of chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def some(self, share: float) -> bool:
        return self.chance.random() < share

    def text(self, values: tuple[str, ...]) -> ir.TextMatch:
        test = self.chance.choice(_TESTS)
        value = self.chance.choice(values)
        if test is ir.TextTest.PRESENT:
            return ir.TextMatch(test=test)
        if test is ir.TextTest.REGEX:
            return ir.TextMatch(test=test, value=self.chance.choice(_TEXT_REGEXES))
        if test is not ir.TextTest.EXACT and not value:
            value = "o"
        return ir.TextMatch(test=test, value=value, ignore_case=self.some(0.2))

    def path(self) -> ir.PathMatch:
        test = self.chance.choice(tuple(ir.PathTest))
        match test:
            case ir.PathTest.REGEX:
                return ir.PathMatch(test=test, value=self.chance.choice(_REGEXES))
            case ir.PathTest.TEMPLATE:
                return ir.PathMatch(test=test, value=self.chance.choice(_TEMPLATES))
        return ir.PathMatch(test=test, value=self.chance.choice(_PATHS), ignore_case=self.some(0.15))

    def match(self) -> ir.RequestMatch:
        headers = [
            ir.HeaderMatch(
                name=self.chance.choice(_NAMES),
                match=self.text(_VALUES),
                invert=self.some(0.3),
                missing_as_empty=self.some(0.3),
            )
            for _ in range(self.chance.choice((0, 0, 0, 1, 1, 2)))
        ]
        if self.some(0.2):
            exact = ir.TextMatch(test=ir.TextTest.EXACT, value=self.chance.choice(_METHODS))
            headers.append(ir.HeaderMatch(name=":method", match=exact))
        query = [
            ir.QueryMatch(name=self.chance.choice(("x", "y")), match=self.text(("1", "2", "")))
            for _ in range(self.chance.choice((0, 0, 0, 1)))
        ]
        return ir.RequestMatch(path=self.path(), headers=tuple(headers), query=tuple(query))

    def edits(self) -> ir.HeaderEdit:
        if self.some(0.5):
            return ir.NO_EDIT
        name = self.chance.choice(("x-one", "x-two", "x-user"))
        other = self.chance.choice(("x-one", "x-two", "x-team"))
        return ir.HeaderEdit(
            set=((name, self.chance.choice(("s1", "s2"))),) if self.some(0.6) else (),
            add=((other, self.chance.choice(("a1", "a2"))),) if self.some(0.6) else (),
            remove=(self.chance.choice(("x-user", "x-team", "accept")),) if self.some(0.4) else (),
        )

    def action(self, name: str, path: ir.PathMatch) -> ir.Forward | ir.Redirect | ir.Respond:
        kind = self.chance.random()
        if kind < 0.5:
            return ir.Respond(status=200, body=name.encode())
        pattern = self.chance.choice((("^/([a-z]+)/(.*)$", "/\\2/\\1"), ("/a", "/b"), ("[a-z]", "x")))
        new = self.chance.choice(("/", "/new", "/new/"))
        if kind < 0.7:
            how = self.chance.randrange(4)
            scheme = self.chance.choice((None, None, "https", "http"))
            return ir.Redirect(
                code=self.chance.choice((301, 302, 303, 307, 308)),
                scheme=scheme,
                host=self.chance.choice((None, "moved.example.com")),
                port=self.chance.choice((None, None, 8443)),
                path="/all/new" if how == 1 else None,
                prefix=new if how == 2 and path.test is not ir.PathTest.TEMPLATE else None,
                regex=pattern if how == 3 else None,
            )
        how = self.chance.randrange(4)
        rewrite = (
            None,
            ir.Rewrite(prefix=new),
            ir.Rewrite(full="/whole"),
            ir.Rewrite(regex=pattern),
        )[how if path.test is not ir.PathTest.TEMPLATE or how != 1 else 0]
        return ir.Forward(
            destinations=(
                ir.Destination(
                    cluster=_BACKEND if self.some(0.9) else "outbound|1||nowhere",
                    request_headers=self.edits(),
                    response_headers=self.edits(),
                    host_rewrite=self.chance.choice((None, None, "own.example.com")),
                ),
            ),
            timeout=self.chance.choice((timedelta(0), timedelta(seconds=9))),
            rewrite=rewrite,
            host_rewrite=self.chance.choice((None, "rewritten.example.com")),
            append_forwarded_host=self.some(0.5),
            websocket=self.some(0.8),
            missing_status=self.chance.choice((None, 404, 500)),
        )

    def cors(self) -> ir.Cors | None:
        if self.some(0.6):
            return None
        return ir.Cors(
            origins=tuple(
                ir.TextMatch(test=ir.TextTest.EXACT, value=value)
                for value in self.chance.sample(("https://a.org", "https://b.org", "*"), 1)
            ),
            methods=self.chance.choice(((), ("*",), ("GET", "PUT"))),
            headers=self.chance.choice(((), ("*",), ("x-a",))),
            expose=self.chance.choice(((), ("x-b",))),
            max_age=self.chance.choice((None, timedelta(seconds=5))),
            credentials=self.chance.choice((None, True, False)),
            forward_unmatched_preflights=self.chance.choice((None, True, False)),
        )

    def table(self, name: str) -> ir.RouteTable:
        chosen = self.chance.sample(_DOMAINS, HOSTS - 2)
        groups = [(domain,) for domain in chosen[:-2]] + [tuple(chosen[-2:])]
        if self.some(0.7):
            groups.append(("*",))
        hosts = []
        for number, domains in enumerate(groups):
            routes = []
            for index in range(ROUTES):
                match, label = self.match(), f"{name}/{number}/{index}"
                routes.append(
                    ir.Route(
                        name=label,
                        match=match,
                        action=self.action(label, match.path),
                        request_headers=self.edits(),
                        response_headers=self.edits(),
                        cors=self.cors(),
                        fault=ir.Fault(abort_status=418, abort_fraction=1_000_000)
                        if self.some(0.06)
                        else None,
                    )
                )
            hosts.append(
                ir.VirtualHost(
                    name=f"{name}/{number}",
                    domains=domains,
                    routes=tuple(routes),
                    request_headers=self.edits(),
                    response_headers=self.edits(),
                    require_tls=self.some(0.08),
                )
            )
        return ir.RouteTable(name=name, virtual_hosts=tuple(hosts), ignore_port_in_host=self.some(0.5))

    def request(self) -> dict[str, Any]:
        headers: dict[str, list[str]] = {}
        for name in _NAMES:
            if self.some(0.5):
                headers[name] = [self.chance.choice(_VALUES) for _ in range(self.chance.choice((1, 1, 2)))]
        if self.some(0.3):
            headers["origin"] = [self.chance.choice(("https://a.org", "https://c.org"))]
            if self.some(0.5):
                headers["access-control-request-method"] = ["PUT"]
        if self.some(0.1):
            headers["x-forwarded-proto"] = ["https"]
        if self.some(0.1):
            headers["x-forwarded-for"] = ["9.9.9.9, 8.8.8.8"]
        if self.some(0.05):
            headers["content-type"] = [self.chance.choice(("application/grpc", "application/grpc+json"))]
            if self.some(0.7):
                headers["grpc-timeout"] = [
                    self.chance.choice(("1M", "90S", "4000000u", "60000001u", "x", "0m"))
                ]
        if self.some(0.1):
            headers["x_mark"] = ["one"]
        if self.some(0.1):
            headers["x-forwarded-port"] = ["77"]
        if self.some(0.05):
            headers["upgrade"] = [self.chance.choice(("h2c", "other"))]
            headers["connection"] = [self.chance.choice(("Upgrade", "keep-alive"))]
        if self.some(0.1):
            headers["x-envoy-retry-on"] = ["5xx"]
            headers["x-envoy-decorator-operation"] = ["x"]
        return {
            "method": self.chance.choice(_METHODS),
            "host": self.chance.choice(_ASKED),
            "path": self.chance.choice(_WALKED),
            "headers": headers,
        }


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What can be seen of a request from outside."""

    status: int
    location: str | None = None
    route: str | None = None
    grpc: str | None = None
    path: str | None = None
    host: str | None = None
    request: tuple[tuple[str, str], ...] = ()
    response: tuple[tuple[str, str], ...] = ()


_SHOWN: Final = ("x-one", "x-two", "x-user", "x-team", "accept")


def _response(pairs: Iterator[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((name, value) for name, value in pairs if name in _SHOWN or name.startswith("access-control"))
    )


def _single_slash(path: str) -> str:
    """Python's HTTP server takes several slashes at the beginning for one."""
    return "/" + path.lstrip("/")


def _joined(pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Several lines of a header mean the same as one with commas."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return ((name, ",".join(values)) for name, values in found.items())


def _explained(running: Configuration, port: int, request: dict[str, Any]) -> _Outcome:
    answer = Answer()
    question = read_request(
        {"from": {"gateway": "default/edge"}, "port": port, "source": {"ip": "127.0.0.1"}, "http": request}
    )
    dialled = Dialled(addresses=("127.0.0.1",), port=port, source_ip="127.0.0.1")
    upstreams = Upstreams(running, lambda host: False, lambda cluster: False)
    walk(question, dialled, upstreams, Origins(), answer)
    assert answer.status is not None, answer
    sent = answer.request if answer.targets else None
    if sent is not None and answer.action == "direct":
        sent = None
    headers = (
        (name, ",".join(values))
        for name, values in (sent["headers"] if sent else {}).items()
        if name not in _UNKNOWABLE
    )
    preflight = any(step.detail.startswith("a preflight is answered") for step in answer.steps)
    # The body has the route's name, but for gRPC, which has no bodies of Envoy's own.
    shown = answer.status == 200 and answer.grpc_status is None and not preflight
    return _Outcome(
        status=answer.status,
        location=answer.redirect["location"] if answer.redirect else None,
        route=answer.route_name if answer.action == "direct" and shown else None,
        grpc=None if sent or answer.grpc_status is None else str(answer.grpc_status),
        path=_single_slash(sent["path"]) if sent else None,
        host=sent["host"] if sent else None,
        request=tuple(sorted(headers)),
        response=_response((name, ",".join(values)) for name, values in answer.response_headers.items()),
    )


def _asked(connection: http.client.HTTPConnection, request: dict[str, Any]) -> _Outcome:
    connection.putrequest(request["method"], request["path"], skip_host=True, skip_accept_encoding=True)
    connection.putheader("host", request["host"])
    for name, values in request["headers"].items():
        for value in values:
            connection.putheader(name, value)
    connection.putheader("content-length", "0")
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read().decode()
    pairs = [(name.lower(), value) for name, value in reply.getheaders()]
    seen: dict[str, Any] | None = None
    if body.startswith('{"name"'):
        seen = json.loads(body)
    sent = (pair for pair in _joined(seen["fields"] if seen else ()) if pair[0] not in _UNKNOWABLE)
    return _Outcome(
        status=reply.status,
        location=dict(pairs).get("location"),
        route=body if seen is None and reply.status == 200 and body else None,
        grpc=dict(pairs).get("grpc-status"),
        path=_single_slash(seen["path"]) if seen else None,
        host=dict(seen["fields"]).get("host") if seen else None,
        request=tuple(sorted(sent)),
        response=_response(_joined(pairs)),
    )


@dataclass(frozen=True, slots=True)
class _Edge:
    envoy: Envoy
    running: Configuration
    ports: tuple[int, ...]


@pytest.fixture(scope="module")
def edge(authority: TestAuthority) -> Iterator[_Edge]:
    """One Envoy with a listener for each way of treating paths."""
    maker = _Maker(SEED)
    with ExitStack() as stack:
        backend = HttpBackend("127.0.0.1", free_port(), "echo")
        stack.enter_context(serving(backend))
        cluster = ir.Cluster(
            name=_BACKEND,
            discovery=ir.Discovery.STATIC,
            protocol=ir.UpstreamProtocol.HTTP1,
            endpoints=(ir.Endpoint(address="127.0.0.1", port=backend.server_address[1]),),
        )
        listeners = tuple(_listener(maker, number, how) for number, how in enumerate(ir.PathNormalization))
        identity = ir.ProxyIdentity(name=ProxyName("router", "127.0.0.1", "edge", "default"))
        proxy = ir.Proxy(identity=identity, listeners=listeners, routes=(), clusters=(cluster,))
        running = Configuration.of_bundle(emit(proxy), lambda name: None, Decoded())
        envoy = stack.enter_context(run_proxy("edge", listeners, (), (cluster,), authority=authority))
        yield _Edge(envoy, running, tuple(listener.port for listener in listeners))


def _listener(maker: _Maker, number: int, how: ir.PathNormalization) -> ir.Listener:
    handler = ir.HttpHandler(
        stat_prefix=f"edge{number}",
        routes=maker.table(f"t{number}"),
        edge=number % 2 == 0,
        path_normalization=how,
        headers=ir.OwnHeaders(debug=number % 3 != 1, forwarded_port=number % 3 == 2),
        limits=ir.HttpLimits(underscores=list(ir.Underscores)[number % 3]),
    )
    chain = ir.FilterChain(name=f"chain{number}", match=ir.ChainMatch(), handler=handler)
    return ir.Listener(
        name=f"listener{number}",
        direction=ir.Direction.GATEWAY,
        address="127.0.0.1",
        port=free_port(),
        receive=ir.Receive.BOUND,
        chains=(chain,),
    )


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


def test_explain_says_what_envoy_does(edge: _Edge) -> None:
    maker = _Maker(SEED + 1)
    differences = []
    for port in edge.ports:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(REQUESTS):
            request = maker.request()
            said, done = _explained(edge.running, port, request), _asked(connection, request)
            if said != done:
                differences.append(f"{port} {request}\n  explain: {said}\n  envoy:   {done}")
        connection.close()
    assert not differences, f"{len(differences)} differ, as\n" + "\n".join(differences[:5])


def test_what_an_envoy_says_that_it_runs_explains_the_same(edge: _Edge) -> None:
    maker = _Maker(SEED + 2)
    dump = json.loads(edge.envoy.admin("/config_dump?include_eds"))
    running = Configuration.of_dump(dump, Decoded())
    for port in edge.ports:
        for _ in range(40):
            request = maker.request()
            assert _explained(running, port, request) == _explained(edge.running, port, request)
