"""PeerAuthentication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from weft.model.base import Flaw, Shape
from weft.model.istio import IstioResource, IstioStatus, LabelsSelector


class MutualTLS(Shape):
    """Mutual TLS on the way in."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] | None = None
    """STRICT refuses plain text, PERMISSIVE takes both."""


class PeerAuthenticationSpec(Shape):
    """Whether callers must prove who they are."""

    mtls: MutualTLS | None = None
    """What callers must do."""
    port_level_mtls: dict[str, MutualTLS] | None = None
    """Exceptions by the workload's port."""
    selector: LabelsSelector | None = None
    """Workloads that are meant; the whole namespace unless given."""

    def flaws(self) -> Iterator[Flaw]:
        """Ports belong to workloads that are selected."""
        if self.port_level_mtls is not None and not self.port_level_mtls:
            yield Flaw(("portLevelMtls",), "portLevelMtls is empty", "remove it")
        if self.port_level_mtls:
            if not (self.selector and self.selector.match_labels):
                yield Flaw(("portLevelMtls",), "portLevelMtls needs a selector", "add selector.matchLabels")
            for port in self.port_level_mtls:
                if not (port.isdecimal() and 0 < int(port) <= 65535):
                    yield Flaw(("portLevelMtls", port), f"{port!r} is not a port: write 1 to 65535")


class PeerAuthentication(IstioResource):
    """Whether callers must prove who they are by mutual TLS."""

    spec: PeerAuthenticationSpec = Field(default_factory=lambda: PeerAuthenticationSpec())
    status: IstioStatus | None = None
