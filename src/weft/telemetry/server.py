"""The port that proxies push OTLP to: gRPC, a workload's certificate required."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from weft.errors import WeftError
from weft.grpc_tls import Certificates, peer_serial, server_credentials, spiffe_id
from weft.spiffe import SpiffeId
from weft.telemetry.intake import Handle, Intake
from weft.telemetry.limits import Losses

_SERVICES: Final = "/opentelemetry.proto.collector"
TRACES: Final = f"{_SERVICES}.trace.v1.TraceService/Export"
LOGS: Final = f"{_SERVICES}.logs.v1.LogsService/Export"
METRICS: Final = f"{_SERVICES}.metrics.v1.MetricsService/Export"

_MAX_MESSAGE: Final = 4 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_metadata_size", 16 * 1024),
    # Who connects and says nothing is cut off, before the handshake and after it.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 120_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
# Every Export…Response without anything to say is the empty message.
_ACCEPTED: Final = b""


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(
        self,
        intake: Intake,
        losses: Losses,
        trust_domain: Callable[[], str],
        revoked: Callable[[], Collection[str]],
        handles: Mapping[str, Handle],
    ) -> None:
        self._intake = intake
        self._losses = losses
        self._trust_domain = trust_domain
        self._revoked = revoked
        self._methods = {
            name: grpc.unary_unary_rpc_method_handler(self._take(handle)) for name, handle in handles.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, or None for a method that is not served."""
        return self._methods.get(handler_call_details.method)

    def _is_revoked(self, context: Any) -> bool:
        revoked = self._revoked()
        # Nobody's certificate is read while none is revoked.
        return bool(revoked) and peer_serial(context) in revoked

    def _take(self, handle: Handle) -> Callable[[bytes, Any], Any]:
        async def take(message: bytes, context: Any) -> bytes:
            try:
                sender = SpiffeId.parse(spiffe_id(context) or "")
            except ValueError:
                sender = None
            if sender is None or sender.trust_domain != self._trust_domain() or self._is_revoked(context):
                self._losses.strangers += 1
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, "telemetry is taken from workloads of this mesh only"
                )
                raise AssertionError  # never: abort raises
            if not self._intake.offer(handle, message, sender):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much telemetry at once")
            return _ACCEPTED

        return take


@asynccontextmanager
async def serve(
    address: str,
    certificates: Callable[[], Certificates],
    trust_domain: Callable[[], str],
    intake: Intake,
    losses: Losses,
    handles: Mapping[str, Handle],
    *,
    revoked: Callable[[], Collection[str]] = frozenset,
) -> AsyncIterator[int]:
    """Serve ``handles`` (by full method name) on ``address`` (``host:port``, port 0 for any); gives the port.

    ``revoked``: serial numbers (hexadecimal) of certificates that are worth nothing any more.

    Raises:
        WeftError: when the address cannot be bound.
    """
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=1_024)
    server.add_generic_rpc_handlers((_Service(intake, losses, trust_domain, revoked, handles),))
    try:
        port = server.add_secure_port(address, server_credentials(certificates))
    except RuntimeError as error:
        raise WeftError(f"telemetry cannot listen on {address}", hint="choose another port") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(1.0)
