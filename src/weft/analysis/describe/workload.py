"""A workload: who it is, which services it is behind, what holds for it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.analysis.describe.picture import ENTRY, SERVICE, Picture, Report, ref
from weft.analysis.describe.policies import mutual_tls, policies
from weft.analysis.describe.service import WORKLOAD, destination_rules, ports_of, selector_of
from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, selects
from weft.analysis.tree import pairs, rows, word
from weft.compile.service import Instance
from weft.names import NODE_LABEL, WORKLOAD_LABEL
from weft.spiffe import SpiffeId

_GATEWAY: Final = "networking.istio.io/Gateway"


def workload(picture: Picture, pod: Bearer) -> Report:
    """The description of a Pod, a Workload, a WorkloadEntry, or of a template of pods."""
    owner = pod.owner
    chosen = policies(picture.scene, pod.namespace, pod.labels)
    services = list(_services(picture, pod))
    gateways = [
        (item, ref(item))
        for item in picture.scene.of(_GATEWAY)
        if (selector := pairs(item.spec, "selector")) and selects(selector, pod.labels)
    ]
    account = _account(pod)
    about = [owner, *(item for item, _ in (*chosen, *services, *gateways))]
    return {
        "resource": ref(owner),
        "kind": "workload",
        "namespace": pod.namespace,
        "name": owner.name,
        "labels": dict(pod.labels),
        "serviceAccount": account,
        "identity": _identity(picture.world.settings.trust_domain, pod.namespace, account),
        "inMesh": picture.scene.in_mesh(pod),
        "node": pod.labels.get(NODE_LABEL, "") or word(pod.spec, "nodeName"),
        "address": word(owner.spec, "address") or word(owner.data, "status", "podIP"),
        "ports": [{"name": name, "number": port} for name, port in ports_of(pod)],
        "replicas": [
            {"name": name, "address": one.address, "health": one.health.value, "node": one.node}
            for name, one in sorted(_replicas(picture, pod).items())
        ],
        "services": [report for _, report in services],
        "gateways": [report for _, report in gateways],
        # A gateway's ports are its Gateways': no PeerAuthentication holds for them.
        "mutualTls": []
        if gateways
        else mutual_tls(picture, pod.namespace, pod.labels, [port for _, port in ports_of(pod)]),
        "policies": [report for _, report in chosen],
        "proxies": [row for row in picture.proxies if _runs(row, pod, picture)],
        "findings": picture.findings(dict.fromkeys(about)),
    }


def _account(pod: Bearer) -> str:
    """Who the workload is, in its namespace."""
    spec = pod.owner.spec
    said = (
        word(pod.spec, "serviceAccountName")
        or word(spec, "serviceAccount")
        or word(spec, "template", "serviceAccount")
    )
    return said or "default"


def _identity(trust_domain: str, namespace: str, account: str) -> str:
    try:
        return str(SpiffeId(trust_domain, namespace, account))
    except ValueError:
        return ""


def _services(picture: Picture, pod: Bearer) -> Iterator[tuple[Object, Report]]:
    """Services that a workload is behind, and its subsets there."""
    for kind in (SERVICE, ENTRY):
        for item in picture.scene.of(kind):
            selector = selector_of(item)
            if item.namespace != pod.namespace or not selector or not selects(selector, pod.labels):
                continue
            hosts = picture.hosts_of(item)
            rules = destination_rules(picture, item, hosts, (pod,))
            subsets = [
                {"name": subset["name"], "rule": {key: report[key] for key in ref(rule)}}
                for rule, report in rules
                for subset in report["subsets"]
                if subset["workloads"]
            ]
            ports = [word(row, "port") or word(row, "number") for _, row in rows(item.spec, "ports")]
            yield item, {**ref(item), "hosts": hosts, "ports": ports, "subsets": subsets}


def _replicas(picture: Picture, pod: Bearer) -> Mapping[str, Instance]:
    """What runs of a Workload."""
    if pod.owner.kind != WORKLOAD:
        return {}
    return picture.world.instances.by_label.get((pod.namespace, WORKLOAD_LABEL, pod.owner.name), {})


def _runs(row: object, pod: Bearer, picture: Picture) -> bool:
    """Whether a proxy is the workload's, or one of its replicas'."""
    name, namespace = word(row, "name"), word(row, "namespace")
    same = name == pod.owner.name or name in _replicas(picture, pod)
    return same and namespace == pod.namespace
