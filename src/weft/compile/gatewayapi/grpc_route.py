"""GRPCRoute: its rules and matches."""

from __future__ import annotations

from collections.abc import Iterator

from weft.compile.gatewayapi.forward import Limits, Rule
from weft.compile.gatewayapi.match import complaints, grpc_match, grpc_order
from weft.compile.routes import NO_TIMEOUT
from weft.compile.settings import Settings
from weft.model.grpc_route import GRPCRoute


def grpc_rules(route: GRPCRoute, port: int, tls: bool, settings: Settings) -> Iterator[Rule]:
    """The rules of a route at a port. A call that leads nowhere is UNAVAILABLE, which gRPC reads from 503."""
    namespace = route.metadata.namespace
    limits = Limits(timeout=NO_TIMEOUT, retry=settings.retry)
    for index, rule in enumerate(route.spec.rules or ()):
        yield Rule(
            index=index,
            name=rule.name or f"{namespace}.{route.metadata.name}.{index}",
            rule=rule,
            owner=namespace,
            matches=tuple(
                (place, grpc_order(match), grpc_match(match))
                for place, match in enumerate(rule.matches or (None,))
                if not any(complaints(match))
            ),
            port=port,
            tls=tls,
            limits=limits,
            refusal=503,
        )
