"""A service: its ports, who is behind it, what decides about requests to it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from weft.analysis.describe.picture import ENTRY, SERVICE, Picture, Report, ref
from weft.analysis.describe.policies import mutual_tls, policies, targeting
from weft.analysis.describe.routing import exposures, routes, virtual_services
from weft.analysis.hosts import overlap
from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, selects
from weft.analysis.tree import number, pairs, rows, table, word, words
from weft.compile.hosts import aliases
from weft.compile.protocol import Protocol, parse_protocol, protocol_of
from weft.compile.service import Instance, Service
from weft.names import WORKLOAD_LABEL, expand_host

WORKLOAD: Final = "weft.dev/Workload"
RULE: Final = "networking.istio.io/DestinationRule"
_POLICY: Final = (
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
)


def service(picture: Picture, item: Object) -> Report:
    """The description of a Service or of a ServiceEntry."""
    hosts = picture.hosts_of(item)
    compiled = picture.service_of(item)
    members = members_of(picture, item)
    rules = destination_rules(picture, item, hosts, members)
    virtual = virtual_services(picture, hosts)
    gateway_api = routes(picture, item)
    chosen = _policies(picture, item, members)
    about = [item, *(one for group in (rules, virtual, gateway_api, chosen) for one, _ in group)]
    return {
        "resource": ref(item),
        "kind": "service",
        "namespace": item.namespace,
        "name": item.name,
        "hosts": hosts,
        "aliases": _aliases(item, hosts, picture),
        "addresses": list(compiled.addresses) if compiled is not None else [],
        "external": compiled.external if compiled is not None else item.kind == ENTRY,
        "ports": list(_ports(item)),
        "endpoints": list(_endpoints(picture, item, compiled, members, rules)),
        "destinationRules": [report for _, report in rules],
        "virtualServices": [report for _, report in virtual],
        "routes": [report for _, report in gateway_api],
        "exposed": exposures(picture, virtual, gateway_api),
        "mutualTls": _mutual_tls(picture, item, compiled, members),
        "policies": [report for _, report in chosen],
        "findings": picture.findings(dict.fromkeys(about)),
    }


def _aliases(item: Object, hosts: Sequence[str], picture: Picture) -> list[str]:
    """Other names of a Service, from its own namespace."""
    return list(aliases(hosts[0], item.namespace, picture.domain)) if item.kind == SERVICE else []


def _ports(item: Object) -> Iterator[Report]:
    for index, row in rows(item.spec, "ports"):
        entry = item.kind == ENTRY
        port = number(row, "number" if entry else "port") or 0
        protocol, reason = _entry_protocol(row) if entry else _protocol(row, port)
        where = item.where(("spec", "ports", index))
        yield {
            "number": port,
            "name": word(row, "name"),
            "targetPort": word(row, "targetPort") or str(port),
            "protocol": protocol,
            "decidedBy": reason,
            "line": where.line if where else 0,
        }


def _entry_protocol(row: Mapping[str, Any]) -> tuple[str, str]:
    said = word(row, "protocol")
    found = parse_protocol(said)
    return (found.value, f"protocol: {said}") if found is not Protocol.AUTO else (found.value, _DETECTED)


_DETECTED: Final = "nothing says, so the first bytes of a connection do"


def _protocol(row: Mapping[str, Any], port: int) -> tuple[str, str]:
    """What a port of a Service speaks, and what says so (Istio: Protocol Selection)."""
    name, transport = word(row, "name"), word(row, "protocol") or "TCP"
    said = word(row, "appProtocol") if row.get("appProtocol") is not None else None
    found = protocol_of(port, name, transport, said)
    if transport == "UDP":
        return found.value, "protocol: UDP"
    if found is Protocol.AUTO:
        return found.value, _DETECTED
    if said is not None and protocol_of(0, "", transport, said) is found:
        return found.value, f"appProtocol: {said}"
    if protocol_of(0, name, transport, said) is found:
        return found.value, f"the name {name!r}"
    return found.value, f"port {port} is one where servers speak first"


def selector_of(item: Object) -> dict[str, str]:
    """Labels that a Service or a ServiceEntry selects workloads by; empty when it selects none."""
    field = ("selector",) if item.kind == SERVICE else ("workloadSelector", "labels")
    return pairs(item.spec, *field)


def members_of(picture: Picture, item: Object) -> list[Bearer]:
    """Workloads that a service selects. A Workload is named by its replicas, where they run."""
    selector = selector_of(item)
    if not selector:
        return []
    found = [
        pod
        for pod in picture.scene.pods
        if pod.namespace == item.namespace and selects(selector, pod.labels) and not pod.owner.assumed
    ]
    running = {pod.labels.get(WORKLOAD_LABEL) for pod in found}
    return [pod for pod in found if pod.owner.kind != WORKLOAD or pod.owner.name not in running]


Rules = Sequence[tuple[Object, Report]]


def destination_rules(
    picture: Picture, item: Object, hosts: Sequence[str], members: Sequence[Bearer]
) -> list[tuple[Object, Report]]:
    """Rules for a host. ``effective``: clients in the service's own namespace obey it."""
    world = picture.world
    obeyed = {
        (rule.metadata.namespace, rule.metadata.name)
        for host in hosts
        for rule in world.rule_index.find(host, item.namespace, item.namespace, frozenset(), world.settings)
    }
    found: list[tuple[Object, Report]] = []
    for rule in picture.scene.of(RULE):
        host = expand_host(word(rule.spec, "host"), rule.namespace, picture.domain)
        if not any(overlap(host, one) for one in hosts):
            continue
        policy = table(rule.spec, "trafficPolicy")
        report = {
            **ref(rule),
            "host": word(rule.spec, "host"),
            "effective": (rule.namespace, rule.name) in obeyed,
            "exportTo": words(rule.spec, "exportTo"),
            "tls": word(policy, "tls", "mode"),
            "policy": [name for name in _POLICY if name in policy],
            "ports": [
                {"number": number(row, "port", "number"), "tls": word(row, "tls", "mode"),
                 "policy": [name for name in _POLICY if name in row]}
                for _, row in rows(policy, "portLevelSettings")
            ],
            "subsets": list(_subsets(rule, members)),
        }  # fmt: skip
        found.append((rule, report))
    return found


def _subsets(rule: Object, members: Sequence[Bearer]) -> Iterator[Report]:
    for index, subset in rows(rule.spec, "subsets"):
        labels = pairs(subset, "labels")
        where = rule.where(("spec", "subsets", index))
        yield {
            "name": word(subset, "name"),
            "labels": labels,
            "workloads": [pod.owner.name for pod in members if selects(labels, pod.labels)],
            "line": where.line if where else 0,
        }


def _endpoints(
    picture: Picture, item: Object, compiled: Service | None, members: Sequence[Bearer], rules: Rules
) -> Iterator[Report]:
    """Who is behind a service: what runs, with addresses, then what would."""
    running = picture.world.backends(compiled) if compiled is not None else ()
    named = {(instance.namespace, instance.name) for instance in running}
    for instance in running:
        owner = picture.scene.find("networking.istio.io/WorkloadEntry", instance.namespace, instance.name)
        yield _running(instance, owner or item, dict(instance.labels), rules)
    for pod in members:
        if (pod.namespace, pod.owner.name) not in named:
            yield {
                "workload": ref(pod.owner),
                "address": word(pod.owner.data, "status", "podIP"),
                "health": "",
                "mesh": picture.scene.in_mesh(pod),
                "subsets": _subsets_of(pod.labels, rules),
            }


def _running(instance: Instance, owner: Object, labels: Mapping[str, str], rules: Rules) -> Report:
    return {
        "workload": {**ref(owner), "name": instance.name or owner.name},
        "address": instance.address,
        "health": instance.health.value,
        "mesh": instance.mesh,
        "subsets": _subsets_of(labels, rules),
    }


def _subsets_of(labels: Mapping[str, str], rules: Rules) -> list[str]:
    return [
        word(subset, "name")
        for rule, report in rules
        if report["effective"]
        for _, subset in rows(rule.spec, "subsets")
        if selects(pairs(subset, "labels"), labels)
    ]


def _mutual_tls(
    picture: Picture, item: Object, compiled: Service | None, members: Sequence[Bearer]
) -> list[Report]:
    """The mode of each port at each kind of workload behind a service; equal answers once."""
    found: list[Report] = []
    for pod in members:
        ports = [_target(row, pod) for _, row in rows(item.spec, "ports")]
        for report in mutual_tls(picture, pod.namespace, pod.labels, [port for port in ports if port]):
            known = next(
                (one for one in found if {**one, "workloads": []} == {**report, "workloads": []}), None
            )
            if known is None:
                found.append({**report, "workloads": [pod.owner.name]})
            elif pod.owner.name not in known["workloads"]:
                known["workloads"].append(pod.owner.name)
    return found


def _target(row: Mapping[str, Any], pod: Bearer) -> int | None:
    """The workload's port behind a port of a service."""
    ports = ports_of(pod)
    target = row.get("targetPort")
    if isinstance(target, str) and not target.isdigit():
        return next((port for name, port in ports if name == target), None)
    own = next((port for name, port in ports if name == word(row, "name")), None) if pod.ours else None
    said = int(target) if isinstance(target, int | str) and target else None
    return own or said or number(row, "port") or number(row, "number")


def ports_of(pod: Bearer) -> list[tuple[str, int]]:
    """(name, number) of the ports that a workload declares."""
    spec = pod.owner.spec
    if pod.owner.kind == "networking.istio.io/WorkloadEntry":
        return [(name, port) for name, port in table(spec, "ports").items() if isinstance(port, int)]
    if pod.owner.kind == "networking.istio.io/WorkloadGroup":
        ports = table(spec, "template", "ports")
        return [(name, port) for name, port in ports.items() if isinstance(port, int)]
    if pod.ours:
        return [(word(row, "name"), port) for _, row in rows(spec, "ports") if (port := number(row, "port"))]
    return [
        (word(row, "name"), port)
        for _, container in rows(pod.spec, "containers")
        for _, row in rows(container, "ports")
        if (port := number(row, "containerPort"))
    ]


def _policies(picture: Picture, item: Object, members: Sequence[Bearer]) -> list[tuple[Object, Report]]:
    """Policies on the workloads behind a service, and on the service itself."""
    found: dict[Object, Report] = dict(targeting(picture.scene, item))
    for pod in members:
        for policy, report in policies(picture.scene, pod.namespace, pod.labels):
            workloads = found.setdefault(policy, {**report, "workloads": []}).setdefault("workloads", [])
            if pod.owner.name not in workloads:
                workloads.append(pod.owner.name)
    return list(found.items())
