"""A message to a collector, by gRPC or by HTTP, over a bridge (OTLP's specification, 1.x)."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from weft.errors import WeftError
from weft.protos import otlp_metrics_service_v1
from weft.telemetry.push.plan import Collector

_EXPORT: Final = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_PROTOBUF: Final = "application/x-protobuf"
_ANSWER_MAX: Final = 64 * 1024
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    # We decide when to try again.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class PushError(WeftError):
    """A collector did not take a message. ``after_s``: it wants to be left alone for so long."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


Send = Callable[[bytes], Awaitable[tuple[int, str]]]
"""Hands a message over: how many of its points were refused, and why.

Raises:
    PushError: the collector did not take it.
"""


@asynccontextmanager
async def sending(collector: Collector, socket: Path) -> AsyncIterator[Send]:
    """The means to hand messages to a collector whose bridge is at ``socket``."""
    if collector.path is None:
        options = (*_OPTIONS, ("grpc.default_authority", collector.host))
        async with grpc.aio.insecure_channel(
            f"unix:{socket}", options=options, compression=grpc.Compression.Gzip
        ) as channel:
            yield _by_grpc(collector, channel)
    else:
        connector = aiohttp.UnixConnector(str(socket), limit=1)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield _by_http(collector, session)


def _by_grpc(collector: Collector, channel: Any) -> Send:
    method = channel.unary_unary(_EXPORT)
    metadata = tuple((key.lower(), value) for key, value in collector.headers)

    async def send(message: bytes) -> tuple[int, str]:
        try:
            answer = await method(message, timeout=collector.timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise PushError(f"{code}: {error.details() or 'no details'}"[:500]) from error
        except ValueError as error:  # metadata that gRPC does not take
            raise PushError(str(error)) from error
        return _refused(answer)

    return send


def _by_http(collector: Collector, session: aiohttp.ClientSession) -> Send:
    headers = {
        **dict(collector.headers), "content-type": _PROTOBUF, "content-encoding": "gzip", "accept": _PROTOBUF,
    }  # fmt: skip
    url = f"http://{collector.host}{collector.path}"
    timeout = aiohttp.ClientTimeout(total=collector.timeout_s)

    async def send(message: bytes) -> tuple[int, str]:
        try:
            async with session.post(
                url,
                data=gzip.compress(message, 3, mtime=0),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = await response.content.read(_ANSWER_MAX)
                if response.status // 100 != 2:
                    after = response.headers.get("retry-after", "")
                    raise PushError(
                        f"HTTP {response.status}: {response.reason or ''}"[:500],
                        float(after[:6]) if after.isascii() and after.isdecimal() else 0.0,
                    )
                return _refused(body) if response.content_type == _PROTOBUF else (0, "")
        except TimeoutError as error:
            raise PushError("it does not answer in time") from error
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise PushError(str(error)[:500] or type(error).__name__) from error
        except ValueError as error:  # headers that HTTP does not take
            raise PushError(str(error)[:500]) from error

    return send


def _refused(answer: bytes) -> tuple[int, str]:
    try:
        said = otlp_metrics_service_v1.ExportMetricsServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return 0, ""
    return max(0, said.rejected_data_points), said.error_message[:500]
