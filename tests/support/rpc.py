"""A gRPC service that knows of no mesh, and a way to it for clients that know of no sidecar."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc

from tests.support.dial import dial

SERVICE = "shop.Chat"
_CHUNK = 65_536


def _unary(request: bytes, _: grpc.ServicerContext) -> bytes:
    return request


def _count(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(1 for _ in requests)


def _repeat(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def _twice(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request
        yield request


def _refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")
    raise AssertionError("it was aborted")


@contextmanager
def serving_rpc(address: str, port: int) -> Iterator[None]:
    """``Unary``, ``Count`` (client stream), ``Repeat`` (server stream), ``Twice`` (both), ``Refuse``."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Count": grpc.stream_unary_rpc_method_handler(_count),
        "Repeat": grpc.unary_stream_rpc_method_handler(_repeat),
        "Twice": grpc.stream_stream_rpc_method_handler(_twice),
        "Refuse": grpc.unary_unary_rpc_method_handler(_refuse),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    assert server.add_insecure_port(f"{address}:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@contextmanager
def steered(destination: tuple[str, int], through: tuple[str, int]) -> Iterator[str]:
    """Where to connect (``host:port``) instead of the destination: it is steered to a sidecar."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def carry(source: socket.socket, target: socket.socket) -> None:
        try:
            while body := source.recv(_CHUNK):
                target.sendall(body)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = dial(destination, through=through)
            far.settimeout(None)
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in ends:
            end.close()
