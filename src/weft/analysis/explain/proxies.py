"""Which proxy a question means: found among the documents, or as the question itself describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft import ir
from weft.analysis.explain.request import Role, Sender
from weft.compile.gatewayapi.infrastructure import labels_of
from weft.compile.world import World
from weft.model.core import ConfigMap
from weft.model.gateway import Gateway
from weft.model.istio_gateway import Gateway as IstioGateway
from weft.model.parse import Part
from weft.model.resource import Key
from weft.model.workload_entry import WorkloadEntry
from weft.names import GATEWAY_NAME_LABEL, REPLICA, ROOT_NAMESPACE, ProxyName

Pairs = tuple[tuple[str, str], ...]

# An address that belongs to nobody (RFC 5737), where a proxy's own is not known.
NOWHERE: Final = "192.0.2.1"
_INJECT: Final = "sidecar.istio.io/inject"
_TEMPLATES: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})
_GATEWAYS: Final = {
    "istio-ingressgateway": "ingressgateway",
    "istio-egressgateway": "egressgateway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A workload that a document describes: what its proxy would say of itself.

    ``sidecar``: whether it gets one; a document can say that it does not.
    """

    kind: str
    namespace: str
    name: str
    labels: Pairs = ()
    address: str = ""
    account: str = ""
    ports: tuple[tuple[str, int], ...] = ()
    sidecar: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The proxy of a question. ``bearer`` is None when no document describes it; ``note`` says who it is."""

    identity: ir.ProxyIdentity
    bearer: Bearer | None
    note: str


def bearers(parts: Iterable[Part], namespace: str) -> dict[tuple[str, str], Bearer]:
    """Workloads, WorkloadEntries, Pods and pod templates among documents, by namespace and name.

    ``namespace`` is of documents without one. Of several with one name the first kind in this order counts.
    """
    found: dict[tuple[str, str], Bearer] = {}
    rank = {"Workload": 0, "WorkloadEntry": 1, "Pod": 2}
    for part in parts:
        made = _bearer(part.data, namespace)
        if made is None:
            continue
        key = made.namespace, made.name
        known = found.get(key)
        if known is None or rank.get(made.kind, 3) < rank.get(known.kind, 3):
            found[key] = made
    return found


def _bearer(data: Mapping[str, Any], namespace: str) -> Bearer | None:
    kind = data.get("kind")
    group = str(data.get("apiVersion", "")).rpartition("/")[0]
    metadata, spec = _map(data.get("metadata")), _map(data.get("spec"))
    name = metadata.get("name")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    space = str(metadata.get("namespace") or namespace)
    if kind == "Workload" and group == "weft.dev":
        return Bearer(
            kind=kind,
            namespace=space,
            name=name,
            labels=_pairs(metadata.get("labels")),
            account=_word(spec.get("serviceAccount")),
            ports=_ports(spec.get("ports"), "port"),
        )
    if kind == "WorkloadEntry" and group == "networking.istio.io":
        ports = tuple((key, number) for key, number in _map(spec.get("ports")).items() if _number(number))
        labels = {**_map(metadata.get("labels")), **_map(spec.get("labels"))}
        return Bearer(
            kind=kind,
            namespace=space,
            name=name,
            labels=_pairs(labels),
            address=_word(spec.get("address")),
            account=_word(spec.get("serviceAccount")),
            ports=ports,
        )
    if kind == "Pod" and not group:
        return _pod(kind, space, name, metadata, spec, _word(_map(data.get("status")).get("podIP")))
    if kind in _TEMPLATES:
        template = _map(spec.get("template"))
        return _pod(kind, space, name, _map(template.get("metadata")), _map(template.get("spec")), "")
    return None


def _pod(
    kind: str, namespace: str, name: str, metadata: Mapping[str, Any], spec: Mapping[str, Any], ip: str
) -> Bearer:
    containers = spec.get("containers")
    ports = [
        port
        for container in (containers if isinstance(containers, list) else ())
        for port in _ports(_map(container).get("ports"), "containerPort")
    ]
    return Bearer(
        kind=kind,
        namespace=namespace,
        name=name,
        labels=_pairs(metadata.get("labels")),
        address=ip,
        account=_word(spec.get("serviceAccountName")),
        ports=tuple(dict.fromkeys(ports)),
        sidecar=not any(
            _map(metadata.get(field)).get(_INJECT) in {"false", False} for field in ("labels", "annotations")
        ),
    )


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pairs(value: object) -> Pairs:
    return tuple(sorted((str(key), str(item)) for key, item in _map(value).items()))


def _ports(value: object, field: str) -> tuple[tuple[str, int], ...]:
    rows = value if isinstance(value, list) else []
    return tuple(
        (_word(row.get("name")) or str(row[field]), row[field])
        for row in map(_map, rows)
        if _number(row.get(field))
    )


def asked(sender: Sender, world: World, known: Mapping[tuple[str, str], Bearer]) -> Asked:
    """The proxy that a question means."""
    bearer = known.get((sender.namespace, sender.name)) or _of_replica(sender, known)
    if sender.role is Role.GATEWAY:
        return _gateway(sender, world, bearer, known)
    identity = _identity("sidecar", sender, bearer)
    if bearer is not None:
        note = f"the sidecar of {bearer.kind} {bearer.namespace}/{bearer.name}"
    elif sender.labels or sender.ip or sender.account:
        note = f"a sidecar in {sender.namespace}, as the question describes it"
    else:
        note = f"no document describes {sender.namespace}/{sender.name}: a sidecar without labels there"
    return Asked(identity=identity, bearer=bearer, note=note)


def sidecar_of(bearer: Bearer) -> Asked:
    """The sidecar of a workload."""
    sender = Sender(role=Role.INBOUND, namespace=bearer.namespace, name=bearer.name)
    where = f"{bearer.kind} {bearer.namespace}/{bearer.name}"
    selects = bearer.kind == "Service"
    note = f"the sidecar of a workload that {where} selects" if selects else f"the sidecar of {where}"
    return Asked(identity=_identity("sidecar", sender, bearer), bearer=bearer, note=note)


def _of_replica(sender: Sender, known: Mapping[tuple[str, str], Bearer]) -> Bearer | None:
    """The Workload ``web`` of a replica ``web-0``."""
    found = known.get((sender.namespace, REPLICA.sub("", sender.name)))
    return found if found is not None and found.kind == "Workload" else None


def _identity(
    kind: str,
    sender: Sender,
    bearer: Bearer | None,
    labels: Mapping[str, str] | None = None,
    namespace: str = "",
    name: str = "",
    account: str = "",
) -> ir.ProxyIdentity:
    borne = {**(labels or {}), **(dict(bearer.labels) if bearer else {}), **dict(sender.labels)}
    address = sender.ip or (bearer.address if bearer else "") or NOWHERE
    capture = ir.Capture.NONE if kind == "router" else ir.Capture.REDIRECT
    return ir.ProxyIdentity(
        name=ProxyName(kind, address, name or sender.name, namespace or sender.namespace),
        labels=tuple(sorted(borne.items())),
        service_account=sender.account or (bearer.account if bearer else "") or account or "default",
        attachment=ir.Attachment(capture=capture),
    )


def _gateway(
    sender: Sender, world: World, bearer: Bearer | None, known: Mapping[tuple[str, str], Bearer]
) -> Asked:
    """A Gateway API Gateway's own proxy; else a proxy of Istio Gateways, by name or by what they select."""
    where = f"{sender.namespace}/{sender.name}"
    gateway = world.all(Gateway).get(Key("gateway.networking.k8s.io/Gateway", sender.namespace, sender.name))
    if gateway is not None:
        own = labels_of(gateway, world.all(ConfigMap), world.settings.root_namespace)
        name = f"{sender.name}-{gateway.spec.gateway_class_name}"
        labels = {**own, GATEWAY_NAME_LABEL: sender.name}
        identity = _identity("router", sender, bearer, labels, name=name, account=name)
        return Asked(identity=identity, bearer=bearer, note=f"the proxy of Gateway {where}")
    if bearer is not None:
        identity = _identity("router", sender, bearer)
        return Asked(identity=identity, bearer=bearer, note=f"the gateway of {bearer.kind} {where}")
    rules = world.all(IstioGateway).get(Key("networking.istio.io/Gateway", sender.namespace, sender.name))
    if rules is not None:
        selector = dict(rules.spec.selector or {})
        for one in known.values():
            if selector.items() <= dict(one.labels).items():
                identity = _identity("router", sender, one, namespace=one.namespace, name=one.name)
                note = f"{one.kind} {one.namespace}/{one.name}, which Gateway {where} selects"
                return Asked(identity=identity, bearer=one, note=note)
        word = selector.get("istio", "")
        name = f"istio-{word}" if f"istio-{word}" in _GATEWAYS else sender.name
        identity = _identity(
            "router",
            sender,
            None,
            {**_usual(name), **selector},
            namespace=ROOT_NAMESPACE,
            name=name,
            account=f"{name}-service-account",
        )
        note = f"a proxy in {ROOT_NAMESPACE} with the labels that Gateway {where} selects"
        return Asked(identity=identity, bearer=None, note=note)
    identity = _identity(
        "router", sender, None, _usual(sender.name), account=f"{sender.name}-service-account"
    )
    described = sender.labels or sender.name in _GATEWAYS
    note = f"the gateway {where}" if described else f"nothing describes the gateway {where}"
    return Asked(identity=identity, bearer=None, note=note)


def _usual(name: str) -> dict[str, str]:
    """The labels of the gateways that Istio installs."""
    return {"istio": _GATEWAYS[name], "app": name} if name in _GATEWAYS else {}


def entry_of(bearer: Bearer, address: str) -> WorkloadEntry | None:
    """A described workload as it would be registered, so that its own ports are known; None when it is."""
    if bearer.kind == "WorkloadEntry":
        return None
    return WorkloadEntry.model_validate(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": bearer.name, "namespace": bearer.namespace},
            "spec": {
                "address": bearer.address or address,
                "labels": dict(bearer.labels),
                "serviceAccount": bearer.account,
                "ports": dict(bearer.ports),
            },
        }
    )
