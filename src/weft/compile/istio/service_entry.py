"""ServiceEntry: hosts beside those of Kubernetes Services; WorkloadEntry: one workload."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from weft.compile.hosts import is_wildcard
from weft.compile.nearness import distribution
from weft.compile.protocol import parse_protocol
from weft.compile.service import Instance, Labels, Port, Resolution, Service, session_of
from weft.compile.settings import Settings
from weft.ir import Health, Locality
from weft.model.service_entry import ServiceEntry
from weft.model.workload_entry import WorkloadEntry, WorkloadEntrySpec
from weft.names import HOSTNAME_LABEL, LOCALITY_LABEL, NETWORK_LABEL, NODE_LABEL

TLS_MODE_LABEL: Final = "security.istio.io/tlsMode"
DRAINING_LABEL: Final = "istio.io/draining"
CONNECT_STRATEGY: Final = "istio.io/connect-strategy"
_RESOLUTIONS: Final = {
    "STATIC": Resolution.ENDPOINTS,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.NAMED,
    "NONE": Resolution.PASSTHROUGH,
}


def labels_of(labels: object) -> Labels:
    """Labels as sorted pairs."""
    return tuple(sorted(labels.items())) if isinstance(labels, dict) else ()


def wants_vip(entry: ServiceEntry) -> bool:
    """Whether its hosts need addresses: it has none, and does not pass connections through."""
    return not entry.spec.addresses and _resolution(entry) not in {Resolution.PASSTHROUGH, Resolution.NAMED}


def _resolution(entry: ServiceEntry) -> Resolution:
    return _RESOLUTIONS.get(str(entry.spec.resolution or "NONE"), Resolution.PASSTHROUGH)


def services(
    entry: ServiceEntry, vips: tuple[tuple[str, str], ...], settings: Settings, space: str = ""
) -> tuple[Service, ...]:
    """One service a host. ``vips``: (host, address) where the entry has no address of its own.

    ``space``: the traffic distribution that its namespace asks for.
    """
    spec = entry.spec
    own = dict(vips)
    resolution = _resolution(entry)
    named = resolution is Resolution.NAMED
    selector = spec.workload_selector.labels if spec.workload_selector else None
    endpoints = tuple(
        instance(f"{entry.metadata.name}-{place}", entry.metadata.namespace, endpoint)
        for place, endpoint in enumerate(spec.endpoints or ())
    )
    ports = tuple(
        Port(
            number=port.number,
            name=port.name or "",
            protocol=parse_protocol(port.protocol or ""),
            target=port.target_port or None,
        )
        for port in spec.ports or ()
    )
    return tuple(
        Service(
            host=host.lower(),
            name=host.lower(),
            namespace=entry.metadata.namespace,
            ports=ports,
            # Only a wildcard has names to look up; another name is looked up as such.
            resolution=resolution if is_wildcard(host) or not named else Resolution.DNS,
            addresses=_addresses(spec.addresses or ()) or ((own[host],) if host in own else ()),
            external=str(spec.location or "MESH_EXTERNAL") == "MESH_EXTERNAL",
            selector=labels_of(selector) if selector else None,
            endpoints=endpoints,
            accounts=tuple(spec.subject_alt_names or ()),
            nearness=distribution(None, entry.metadata.annotations, space),
            session=session_of(entry.metadata.labels),
            races=_races(entry),
            export_to=tuple(spec.export_to or settings.export_services),
            created=str(entry.metadata.creation_timestamp or ""),
            source=entry.key,
        )
        for host in dict.fromkeys(spec.hosts or ())
    )


def _races(entry: ServiceEntry) -> bool:
    """Istio's annotation. Envoy races for one name only."""
    wanted = (entry.metadata.annotations or {}).get(CONNECT_STRATEGY, "")
    single = len(entry.spec.endpoints or ()) < 2 and entry.spec.workload_selector is None
    return single and wanted.upper() == "RACE_FIRST_TCP_CONNECT"


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Addresses and blocks of them; what is neither does not count, a block of one is an address (Istio)."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            block = ip_network(text, strict=False)
        except ValueError:
            continue
        found[str(block.network_address) if block.num_addresses == 1 else text] = None
    return tuple(found)


def instance(name: str, namespace: str, spec: WorkloadEntrySpec) -> Instance:
    """A workload as its entry tells it. A service account means that it has a sidecar (Istio's rule)."""
    labels = labels_of(dict(spec.labels or {}))
    mode = dict(labels).get(TLS_MODE_LABEL)
    return Instance(
        name=name,
        namespace=namespace,
        address=spec.address or "",
        ports=tuple(sorted((spec.ports or {}).items())),
        labels=labels,
        account=spec.service_account or "",
        weight=spec.weight or 1,
        locality=locality(dict(labels).get(LOCALITY_LABEL, "").replace(".", "/") or spec.locality or ""),
        network=spec.network or dict(labels).get(NETWORK_LABEL, ""),
        mesh=mode == "istio" if mode is not None else bool(spec.service_account),
        health=Health.DRAINING if dict(labels).get(DRAINING_LABEL) else Health.HEALTHY,
        node=dict(labels).get(NODE_LABEL) or dict(labels).get(HOSTNAME_LABEL, ""),
    )


def workload(entry: WorkloadEntry) -> Instance:
    """A registered workload with its health; labels of the metadata count too, and win (Istio)."""
    from_spec = instance(entry.metadata.name, entry.metadata.namespace, entry.spec)
    labels = {**dict(from_spec.labels), **(entry.metadata.labels or {})}
    return Instance(
        name=from_spec.name,
        namespace=from_spec.namespace,
        address=from_spec.address,
        ports=from_spec.ports,
        labels=labels_of(labels),
        account=from_spec.account,
        weight=from_spec.weight,
        locality=from_spec.locality,
        network=from_spec.network,
        mesh=from_spec.mesh,
        health=from_spec.health if from_spec.health is Health.DRAINING else _health(entry),
        node=from_spec.node or labels.get(NODE_LABEL, ""),
    )


def locality(text: str) -> Locality:
    """``region/zone/subzone``."""
    region, _, rest = text.partition("/")
    zone, _, subzone = rest.partition("/")
    return Locality(region=region, zone=zone, subzone=subzone)


def _health(entry: WorkloadEntry) -> Health:
    """Istio's ``Healthy`` condition; ``Draining`` is ours. Without either it is healthy."""
    conditions = {c.type: c.status for c in (entry.status.conditions or ())} if entry.status else {}
    if conditions.get("Draining") == "True":
        return Health.DRAINING
    return Health.UNHEALTHY if conditions.get("Healthy") == "False" else Health.HEALTHY
