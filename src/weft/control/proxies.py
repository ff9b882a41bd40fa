"""Which proxies are connected, and who they are: node id, metadata and certificate must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from weft.errors import WeftError
from weft.ir.endpoint import NOWHERE, Locality
from weft.ir.proxy import Attachment, Capture, ProxyIdentity
from weft.names import TRUST_DOMAIN, ProxyName
from weft.spiffe import SpiffeId
from weft.xds.connection import Connection, Node, Refusal

_CAPTURES: Final = {
    "REDIRECT": Capture.REDIRECT,
    "SECCOMP": Capture.SECCOMP,
    "PROXY_ENV": Capture.PROXY_ENV,
    "NONE": Capture.NONE,
}
_LOCALITY_LABEL: Final = "istio-locality"
_NETWORK_LABEL: Final = "topology.istio.io/network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the registry knows of a workload whose proxy connects. ``kind``: ``sidecar`` or ``router``."""

    service_account: str
    kind: str = "sidecar"
    labels: tuple[tuple[str, str], ...] = ()
    locality: Locality = NOWHERE
    network: str = ""


Registered = Callable[[str, str], Entry | None]
"""The registered workload of a namespace and name."""


class MetadataError(WeftError):
    """A proxy's metadata cannot be read."""


def authorizer(
    trust_domain: str = TRUST_DOMAIN, registered: Registered | None = None
) -> Callable[[Node, str | None], ProxyIdentity | Refusal]:
    """Lets a proxy in whose certificate is for the service account that its node id stands for.

    With ``registered`` the node id must name a workload that it knows, and what it knows wins over what
    the proxy says of itself.
    """

    def authorize(node: Node, spiffe: str | None) -> ProxyIdentity | Refusal:
        try:
            name = ProxyName.parse(node.id)
            identity = SpiffeId.parse(spiffe or "")
            claimed = identity_of(node, trust_domain)
        except (ValueError, MetadataError) as error:
            return Refusal(str(error))
        if identity.trust_domain != trust_domain:
            return Refusal(f"{identity} is of another trust domain than {trust_domain}")
        if identity.namespace != name.namespace:
            return Refusal(f"{node.id} is not in the namespace of its certificate, {identity}")
        entry = registered(name.namespace, name.name) if registered is not None else None
        if registered is not None and entry is None:
            return Refusal(f"no workload {name.namespace}/{name.name} is registered", transient=True)
        account = entry.service_account if entry is not None else claimed.service_account
        if identity.service_account != account:
            return Refusal(
                f"{name.namespace}/{name.name} runs as {account}, its certificate is for {identity}"
            )
        if entry is None:
            return claimed
        if entry.kind != name.kind:
            return Refusal(f"{name.namespace}/{name.name} is registered as {entry.kind}, not as {name.kind}")
        return ProxyIdentity(
            name=name,
            service_account=account,
            labels=entry.labels or claimed.labels,
            locality=entry.locality if entry.locality != NOWHERE else claimed.locality,
            network=entry.network or claimed.network,
            trust_domain=trust_domain,
            attachment=claimed.attachment,
            port_map=claimed.port_map,
        )

    return authorize


def identity_of(node: Node, trust_domain: str = TRUST_DOMAIN) -> ProxyIdentity:
    """What a proxy says of itself, with Istio's metadata names.

    Raises:
        ValueError: when the node id has another form.
        MetadataError: when the metadata has.
    """
    name = ProxyName.parse(node.id)
    metadata = node.metadata
    weft = metadata.get("WEFT", {})
    labels = _texts(metadata.get("LABELS", {}), "LABELS")
    if not isinstance(weft, Mapping):
        raise MetadataError("the metadata WEFT is no object")
    locality = node.locality
    if locality == NOWHERE and labels.get(_LOCALITY_LABEL):
        locality = Locality(**dict(zip(_PARTS, labels[_LOCALITY_LABEL].split(".", 2), strict=False)))
    return ProxyIdentity(
        name=name,
        service_account=str(metadata.get("SERVICE_ACCOUNT") or "default"),
        labels=tuple(sorted(labels.items())),
        locality=locality,
        network=str(metadata.get("NETWORK") or labels.get(_NETWORK_LABEL, "")),
        trust_domain=trust_domain,
        attachment=_attachment(weft, metadata.get("INTERCEPTION_MODE")),
        port_map=_ports(weft.get("portMap", {}), "portMap"),
        metadata=tuple(sorted((key, text) for key, text in metadata.items() if isinstance(text, str))),
    )


_PARTS: Final = ("region", "zone", "subzone")


def _attachment(weft: Mapping[str, Any], mode: object) -> Attachment:
    """The fields of ``ir.Attachment`` in camelCase; what is not said keeps its default."""
    values: dict[str, Any] = {}
    for field in fields(Attachment):
        name = field.name
        head, *tail = name.split("_")
        said = weft.get(head + "".join(part.capitalize() for part in tail))
        if said is None:
            continue
        if name == "capture":
            continue
        if name == "inbound_ports":
            values[name] = _ports(said, "inboundPorts")
        elif name == "shared_ports":
            values[name] = said is True
        elif name.endswith("_port"):
            values[name] = _number(said, name)
        else:
            values[name] = str(said)
    if mode is not None:
        if not isinstance(mode, str) or mode not in _CAPTURES:
            raise MetadataError(f"INTERCEPTION_MODE {mode!r} is none of {', '.join(_CAPTURES)}")
        values["capture"] = _CAPTURES[mode]
    return Attachment(**values)


def _number(value: object, name: str) -> int:
    """Numbers arrive as floats: google.protobuf.Struct has no others."""
    try:
        number = int(value)  # type: ignore[call-overload]
        if number != float(value) or not 0 <= number <= 65_535:  # type: ignore[arg-type]
            raise ValueError
    except (TypeError, ValueError):
        raise MetadataError(f"{value!r} in the metadata's {name} is no port") from None
    return int(number)


def _ports(value: object, name: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, Mapping):
        raise MetadataError(f"the metadata's {name} is no object")
    return tuple(sorted((_number(key, name), _number(port, name)) for key, port in value.items()))


def _texts(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise MetadataError(f"the metadata {name} is no object")
    return {str(key): str(text) for key, text in value.items()}


class Proxies:
    """The connected streams. A proxy that comes back before its old stream is noticed dead has two."""

    def __init__(self) -> None:
        self._streams: dict[str, list[Connection]] = {}
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call ``changed`` with the id of each proxy that connects, or whose last stream ends."""
        self._listeners.append(changed)

    def add(self, connection: Connection) -> None:
        """A stream began."""
        self._streams.setdefault(connection.proxy, []).append(connection)
        self._changed(connection.proxy)

    def remove(self, connection: Connection) -> None:
        """A stream ended."""
        left = [known for known in self._streams.get(connection.proxy, ()) if known is not connection]
        if left:
            self._streams[connection.proxy] = left
        elif self._streams.pop(connection.proxy, None) is not None:
            self._changed(connection.proxy)

    def _changed(self, proxy: str) -> None:
        for listener in self._listeners:
            listener(proxy)

    def get(self, proxy: str) -> Connection | None:
        """The newest stream of a proxy."""
        known = self._streams.get(proxy)
        return known[-1] if known else None

    def find(self, name: str) -> tuple[Connection, ...]:
        """Proxies that a person means by ``name``: a node id, ``name.namespace`` or ``namespace/name``."""
        exact = self.get(name)
        if exact is not None:
            return (exact,)
        namespace, slash, rest = name.partition("/")
        wanted = f"{rest}.{namespace}" if slash else name
        return tuple(
            stream
            for stream in self.connections()
            if wanted in {f"{stream.peer.identity.name.name}.{stream.peer.identity.name.namespace}",
                          stream.peer.identity.name.name}
        )  # fmt: skip

    def connections(self) -> Iterable[Connection]:
        """The newest stream of every proxy, in the order of their ids."""
        return [self._streams[proxy][-1] for proxy in sorted(self._streams)]

    def streams(self) -> tuple[Connection, ...]:
        """Every stream."""
        return tuple(stream for known in self._streams.values() for stream in known)

    def turn_out(self, revoked: Callable[[str], bool]) -> None:
        """End the streams whose certificates (by serial number) are worth nothing any more."""
        for stream in self.streams():
            if revoked(stream.peer.serial):
                stream.end("denied", "the certificate of this proxy was revoked")

    def __contains__(self, proxy: object) -> bool:
        return proxy in self._streams

    def __len__(self) -> int:
        return len(self._streams)
