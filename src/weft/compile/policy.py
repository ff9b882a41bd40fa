"""What holds for connections to one destination: a DestinationRule's trafficPolicy, merged and resolved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from weft import ir
from weft.compile.nearness import Nearness


class ClientTlsMode(StrEnum):
    """DestinationRule ``tls.mode``."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How a client talks TLS. ``skip_verify`` accepts any certificate.

    ``credential`` names a Secret of the client's own namespace; ``selected``: the rule names the workloads
    that obey it, so that sidecars may be meant by it as well.
    """

    mode: ClientTlsMode
    sni: str = ""
    names: tuple[str, ...] = ()
    credential: str = ""
    selected: bool = False
    certificate_path: str = ""
    key_path: str = ""
    bundle_path: str = ""
    revoked_path: str = ""
    skip_verify: bool = False


_BALANCING = ir.LoadBalancing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``upgrade``: speak HTTP/2 to an ``http`` port (True), never (False), or as the mesh sees fit.

    ``passthrough``: connect to where the client wanted to go. ``client_protocol``: keep the client's
    HTTP version. ``nearness`` None: the service or the mesh decides. ``source`` is the rule's resource.
    """

    balancing: ir.LoadBalancing = _BALANCING
    hash_on: ir.HashOn | None = None
    nearness: Nearness | None = None
    connections: ir.Connections | None = None
    outlier: ir.OutlierDetection | None = None
    tls: ClientTls | None = None
    proxy_header: ir.ProxyHeader | None = None
    upgrade: bool | None = None
    client_protocol: bool = False
    passthrough: bool = False
    source: ir.Source | None = None


NO_POLICY = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What holds for a TCP connection as a whole, whichever endpoint gets it."""

    idle_timeout: timedelta | None = None
    max_duration: timedelta | None = None
    hash_source_ip: bool = False
    tunnel: ir.Tunnel | None = None


NO_STREAM = Stream()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """A named part of a service: the workloads with these labels, under a policy of their own.

    ``contested``: another rule gives the same name to other workloads.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    policies: tuple[tuple[int, Policy], ...] = ()
    default: Policy = NO_POLICY
    stream: Stream = NO_STREAM
    contested: bool = False

    def policy(self, port: int) -> Policy:
        """What holds for a port of the service."""
        return next((policy for number, policy in self.policies if number == port), self.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the DestinationRules that a client sees say of one host; equal inputs give the same object."""

    default: Subset
    subsets: tuple[Subset, ...] = ()

    def subset(self, name: str) -> Subset | None:
        """The subset of that name; the whole service for the empty name."""
        if not name:
            return self.default
        return next((subset for subset in self.subsets if subset.name == name), None)


NO_RULE = Rule(default=Subset(name="", labels=()))
