"""Authorizers, by gRPC and by HTTP, that decide as the request itself says and keep what they were shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc

from weft.protos import core_v3, external_auth_v3

_SERVICE = "envoy.service.auth.v3.Authorization"


def decision(path: str) -> str:
    """``/x?decide=deny`` -> ``deny``; everything else is allowed."""
    return parse_qs(urlsplit(path).query).get("decide", ["allow"])[0]


class GrpcAuthorizer:
    """Envoy's protocol: ``allow``, ``deny``, ``error``, and ``hold`` until ``gate`` is open.

    ``shown`` are the questions so far. ``closed``: connections are refused.
    """

    def __init__(self) -> None:
        self.shown: list[external_auth_v3.CheckRequest] = []
        self.gate = threading.Event()
        self.closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """For a gRPC server."""
        method = grpc.unary_unary_rpc_method_handler(self._check, external_auth_v3.CheckRequest.FromString)
        return grpc.method_handlers_generic_handler(_SERVICE, {"Check": method})

    def _check(self, question: external_auth_v3.CheckRequest, context: grpc.ServicerContext) -> bytes:
        self.shown.append(question)
        asked = question.attributes.request.http.path
        word = decision(asked) if asked else "deny" if self.closed else "allow"
        if word == "hold":
            self.gate.wait(20)
        if word == "error":
            context.abort(grpc.StatusCode.INTERNAL, "out of order")
        return self._answer(word).SerializeToString()

    def _answer(self, word: str) -> external_auth_v3.CheckResponse:
        made = external_auth_v3.CheckResponse()
        if word == "deny":
            made.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
            made.denied_response.status.code = 401  # type: ignore[assignment]
            made.denied_response.headers.append(_header("x-why", "not you"))
            made.denied_response.body = "no entry"
        else:
            made.ok_response.headers.append(_header("x-user", "ann"))
            made.ok_response.headers_to_remove.append("x-secret")
            made.ok_response.response_headers_to_add.append(_header("x-decided", "by grpc"))
        return made


def _header(name: str, value: str) -> core_v3.HeaderValueOption:
    return core_v3.HeaderValueOption(header=core_v3.HeaderValue(key=name, value=value))


@contextmanager
def serving_grpc(authorizer: GrpcAuthorizer) -> Iterator[int]:
    """Its port."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((authorizer.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        authorizer.gate.set()
        server.stop(0).wait()


class HttpAuthorizer(ThreadingHTTPServer):
    """Says 200, or 401, 302, 500 for ``deny``, ``login``, ``error``; ``hold`` waits until ``gate`` is open.

    ``shown`` are the questions so far: method, path, headers and body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.shown: list[tuple[str, str, dict[str, str], bytes]] = []
        self.gate = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: HttpAuthorizer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.shown.append((self.command, self.path, headers, body))
        word = decision(self.path)
        if word == "hold":
            self.server.gate.wait(20)
        text = b"please log in"
        self.send_response({"deny": 401, "login": 302, "error": 500}.get(word, 200))
        for name, value in (
            ("x-user", "ann"),
            ("x-auth-team", "blue"),
            ("x-internal", "for nobody"),
            ("set-cookie", "seen=1"),
            ("content-type", "text/x-verdict"),
            ("x-forwarded-host", "forged.example"),
            ("content-length", str(len(text))),
        ):
            self.send_header(name, value)
        if word == "login":
            self.send_header("location", "https://login.example/")
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
