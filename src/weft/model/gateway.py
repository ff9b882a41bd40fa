"""Gateway of gateway.networking.k8s.io."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.hosts import is_address
from weft.model.listener import (
    AllowedRoutes,
    ListenerTLSConfig,
    RouteGroupKind,
    SecretObjectReference,
    distinct,
)
from weft.model.resource import LabelSelector, Resource, StatusCondition, conditions_differ
from weft.model.scalars import (
    SUBDOMAIN,
    AddressType,
    DnsLabel,
    GroupName,
    Hostname,
    Int,
    KindName,
    LabelValue,
    ListenerProtocol,
    ObjectName,
    Port,
    SectionName,
    Text,
)

_HOSTNAME: Final = re.compile(rf"(?:\*\.)?{SUBDOMAIN}")
_KEY: Final = re.compile(rf"(?:{SUBDOMAIN}/)?(?:[A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]")
_LONGEST_DOMAIN: Final = 253


class GatewaySpecAddress(Shape):
    """An address that is asked for."""

    type: AddressType | None = None
    value: Annotated[Text, Field(max_length=253)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """The value is what the type says."""
        if self.value is not None and self.type in {None, "IPAddress"} and not is_address(self.value):
            yield Flaw(("value",), f"{self.value!r} is not an IP address", "or write 'type: Hostname'")
        yield from _hostname(self.type, self.value)


def _hostname(kind: str | None, value: str | None) -> Iterator[Flaw]:
    if kind == "Hostname" and value is not None and not _HOSTNAME.fullmatch(value):
        yield Flaw(("value",), f"{value!r} is not a host name", "lower-case, as 'shop.example.com'")


class ListenerNamespaces(Shape):
    """Namespaces whose ListenerSets may add listeners."""

    from_: Literal["All", "Selector", "Same", "None"] | None = Field(default=None, alias="from")
    selector: LabelSelector | None = None


class AllowedListeners(Shape):
    """Which ListenerSets may add listeners."""

    namespaces: ListenerNamespaces | None = None


class LocalParametersReference(Shape):
    """An object of the same namespace that configures the gateway."""

    group: GroupName
    kind: KindName
    name: ObjectName


class GatewayInfrastructure(Shape):
    """What the gateway's own objects shall bear."""

    annotations: (
        Annotated[dict[str, Annotated[Text, Field(min_length=0, max_length=4096)]], Field(max_length=16)]
        | None
    ) = None
    labels: Annotated[dict[str, LabelValue], Field(max_length=8)] | None = None
    parameters_ref: LocalParametersReference | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Keys as Kubernetes takes them."""
        for field, values in (("labels", self.labels), ("annotations", self.annotations)):
            for key in values or {}:
                if not _KEY.fullmatch(key) or len(key.split("/")[0]) >= _LONGEST_DOMAIN:
                    yield Flaw((field, key), f"{key!r} is not a key", "write 'name' or 'domain/name'")


class Listener(Shape):
    """A port, its protocol, and the routes that may attach."""

    allowed_routes: AllowedRoutes | None = None
    """Routes that may attach; those of the gateway's namespace unless given."""
    hostname: Hostname | None = None
    """Hosts that are served; all unless given."""
    name: SectionName
    """What routes call it by sectionName."""
    port: Port
    """The port that is opened."""
    protocol: ListenerProtocol
    """HTTP, HTTPS, TLS, TCP or UDP."""
    tls: ListenerTLSConfig | None = None


class GatewayBackendTLS(Shape):
    """How the gateway proves itself to services."""

    client_certificate_ref: SecretObjectReference | None = None


class ObjectReference(Shape):
    """An object; one of another namespace needs a ReferenceGrant."""

    group: GroupName
    kind: KindName
    name: ObjectName
    namespace: DnsLabel | None = None


class FrontendTLSValidation(Shape):
    """How client certificates are checked."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=16)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] | None = None


class FrontendTLS(Shape):
    """What clients of a port must prove."""

    validation: FrontendTLSValidation | None = None


class TLSPortConfig(Shape):
    """What clients of one port must prove."""

    port: Port
    tls: FrontendTLS


class FrontendTLSConfig(Shape):
    """What clients must prove."""

    default: FrontendTLS
    per_port: Annotated[tuple[TLSPortConfig, ...], Field(max_length=64)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Ports differ."""
        ports = self.per_port or ()
        for number in twice(item.port for item in ports):
            yield Flaw(("perPort", number, "port"), f"port {ports[number].port} is there twice")


class GatewayTLSConfig(Shape):
    """TLS of the whole gateway."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(Shape):
    """A gateway: its listeners, and who may use them."""

    addresses: Annotated[tuple[GatewaySpecAddress, ...], Field(max_length=16)] | None = None
    allowed_listeners: AllowedListeners | None = None
    default_scope: Literal["All", "None"] | None = None
    gateway_class_name: ObjectName
    """Who serves it: 'weft', 'istio', or a class of yours."""
    infrastructure: GatewayInfrastructure | None = None
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    """Ports that are opened."""
    tls: GatewayTLSConfig | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Listeners and addresses differ, and protocols fit (the rules of the CRD)."""
        yield from distinct(self.listeners or ())
        addresses = self.addresses or ()
        for number in twice(
            (item.type or "IPAddress", item.value or number) for number, item in enumerate(addresses)
        ):
            yield Flaw(
                ("addresses", number, "value"), f"the address {addresses[number].value!r} is there twice"
            )


class GatewayStatusAddress(Shape):
    """An address that the gateway has."""

    type: AddressType | None = None
    value: ObjectName

    def flaws(self) -> Iterator[Flaw]:
        """The value is what the type says."""
        if self.type in {None, "IPAddress"} and not is_address(self.value):
            yield Flaw(("value",), f"{self.value!r} is not an IP address")
        yield from _hostname(self.type, self.value)


class ListenerStatus(Shape):
    """What became of a listener."""

    attached_routes: Annotated[Int, Field(ge=-(2**31), le=2**31 - 1)]
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=8)]
    name: SectionName
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ."""
        yield from conditions_differ(self.conditions)


class GatewayStatus(Shape):
    """What became of the gateway."""

    addresses: Annotated[tuple[GatewayStatusAddress, ...], Field(max_length=16)] | None = None
    attached_listener_sets: Int | None = None
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=8)] | None = None
    listeners: Annotated[tuple[ListenerStatus, ...], Field(max_length=64)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Conditions differ, and so do listeners."""
        yield from conditions_differ(self.conditions)
        for number in twice(item.name for item in self.listeners or ()):
            yield Flaw(("listeners", number, "name"), "the listener is there twice", "keep one of them")


class Gateway(Resource):
    """A gateway and its listeners."""

    spec: GatewaySpec
    status: GatewayStatus | None = None
