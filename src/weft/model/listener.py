"""Shapes that Gateway and ListenerSet have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from weft.model.base import Flaw, Shape, twice
from weft.model.resource import LabelSelector
from weft.model.scalars import DnsLabel, GroupName, KindName, ObjectName, Text


class RouteGroupKind(Shape):
    """A kind of routes."""

    group: GroupName | None = None
    kind: KindName


class RouteNamespaces(Shape):
    """Namespaces whose routes may attach."""

    from_: Literal["All", "Selector", "Same"] | None = Field(default=None, alias="from")
    selector: LabelSelector | None = None


class AllowedRoutes(Shape):
    """Routes that may attach."""

    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] | None = None
    namespaces: RouteNamespaces | None = None


class SecretObjectReference(Shape):
    """A Secret; one of another namespace needs a ReferenceGrant."""

    group: GroupName | None = None
    kind: KindName | None = None
    name: ObjectName
    namespace: DnsLabel | None = None


class ListenerTLSConfig(Shape):
    """The listener's TLS."""

    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] | None = None
    """Secrets with certificates."""
    mode: Literal["Terminate", "Passthrough"] | None = None
    """Terminate ends TLS here, Passthrough hands it on."""
    options: (
        Annotated[dict[str, Annotated[Text, Field(min_length=0, max_length=4096)]], Field(max_length=16)]
        | None
    ) = None

    def flaws(self) -> Iterator[Flaw]:
        """TLS that ends here needs a certificate."""
        if self.mode != "Passthrough" and not (self.certificate_refs or self.options):
            yield Flaw(("certificateRefs",), "TLS ends here, but with which certificate?", "name a Secret")


class _Listener(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def hostname(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def tls(self) -> ListenerTLSConfig | None: ...


def distinct(listeners: Sequence[_Listener]) -> Iterator[Flaw]:
    """Listeners differ in name, and in port, protocol and host; TLS and host fit the protocol."""
    for number in twice(item.name for item in listeners):
        yield Flaw(("listeners", number, "name"), f"the name {listeners[number].name!r} is there twice")
    for number in twice((item.port, item.protocol, item.hostname) for item in listeners):
        message = "another listener has the same port, protocol and hostname"
        yield Flaw(("listeners", number), message, "give each a hostname of its own")
    for number, item in enumerate(listeners):
        if item.protocol in {"HTTP", "TCP", "UDP"} and item.tls is not None:
            yield Flaw(
                ("listeners", number, "tls"), f"protocol {item.protocol} has no TLS", "write HTTPS or TLS"
            )
        if item.protocol in {"TCP", "UDP"} and item.hostname:
            yield Flaw(
                ("listeners", number, "hostname"), f"protocol {item.protocol} has no host names", "remove it"
            )
        if item.protocol == "HTTPS" and item.tls is not None and item.tls.mode == "Passthrough":
            yield Flaw(("listeners", number, "tls", "mode"), "HTTPS is ended here", "write 'protocol: TLS'")
        if item.protocol == "TLS" and item.tls is None:
            hint = "write Terminate or Passthrough"
            yield Flaw(("listeners", number, "tls"), "protocol TLS needs tls.mode", hint)
