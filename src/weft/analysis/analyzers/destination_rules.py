"""Whom DestinationRules are for, and whom they trust (IST0128, IST0129, IST0173, IST0174)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.analysis.hosts import Target
from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, Found, Scene, meant, selects, shown
from weft.analysis.tree import pairs, rows, table, word, words

RULE: Final = "networking.istio.io/DestinationRule"
_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"
_SUBZONE: Final = "topology.istio.io/subzone"


def authorities(scene: Scene) -> Iterator[Found]:
    """TLS without anybody to trust: any server's certificate would do."""
    for rule in scene.of(RULE):
        host, policy = word(rule.spec, "host"), table(rule.spec, "trafficPolicy")
        if mode := _unverified(rule, policy):
            message = f"TLS to {host} is {mode} without caCertificates: {_accepted(policy)}"
            yield Found(rule, "IST0128", message, ("spec", "trafficPolicy", "tls"))
        for index, level in rows(policy, "portLevelSettings"):
            if mode := _unverified(rule, level):
                port = word(level, "port", "number")
                message = f"TLS to port {port} of {host} is {mode} without caCertificates: {_accepted(level)}"
                yield Found(
                    rule, "IST0129", message, ("spec", "trafficPolicy", "portLevelSettings", index, "tls")
                )


def _accepted(policy: Mapping[str, Any]) -> str:
    if table(policy, "tls").get("insecureSkipVerify") is True:
        return "anybody is accepted"
    return "whoever an authority of this system vouches for is accepted"


def _unverified(rule: Object, policy: Mapping[str, Any]) -> str:
    tls = table(policy, "tls")
    mode = word(tls, "mode")
    if mode not in {"SIMPLE", "MUTUAL"} or word(tls, "caCertificates"):
        return ""
    # A secret brings its own authorities, where proxies are told of it: with a workloadSelector only.
    secret = word(tls, "credentialName") and isinstance(rule.spec.get("workloadSelector"), dict)
    return "" if secret else mode


def subsets(scene: Scene) -> Iterator[Found]:
    """Rules for hosts that do not exist, and subsets that nobody belongs to."""
    nodes = {node.name: node.labels for node in scene.of("/Node")}
    homes: dict[str, list[Mapping[str, str]]] = {}
    for pod in scene.pods:
        homes.setdefault(pod.namespace, []).append(_placed(pod, nodes))
    for rule in scene.of(RULE):
        host = word(rule.spec, "host")
        target = scene.hosts.find(host, rule.namespace, words(rule.spec, "exportTo"))
        if target is None:
            hint = meant(host, scene.hosts.known(rule.namespace))
            message = f"no service is named {host!r}{hint}: the rule has no effect"
            yield Found(rule, "IST0174", message, ("spec", "host"))
            continue
        members = _members(target, homes)
        for index, subset in rows(rule.spec, "subsets"):
            labels = pairs(subset, "labels")
            if not any(selects(labels, member) for member in members):
                name = word(subset, "name")
                message = f"no workload of {host} belongs to the subset {name!r}: none has {shown(labels)}"
                yield Found(rule, "IST0173", message, ("spec", "subsets", index))


def _members(target: Target, homes: Mapping[str, list[Mapping[str, str]]]) -> list[Mapping[str, str]]:
    """Labels of the workloads behind a host; of those that it lists itself, too."""
    listed: list[Mapping[str, str]] = [
        pairs(endpoint, "labels") for _, endpoint in rows(target.owner.spec, "endpoints")
    ]
    if target.selector is None and not listed:
        # A Service without a selector has its endpoints from elsewhere: they may be anybody.
        return [labels for group in homes.values() for labels in group]
    chosen = homes.get(target.owner.namespace, []) if target.selector is not None else []
    return [*listed, *(labels for labels in chosen if selects(target.selector or {}, labels))]


def _placed(pod: Bearer, nodes: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """A workload's labels, with those that its node and locality give it."""
    name = word(pod.spec, "nodeName")
    node = nodes.get(name, {})
    found = {"kubernetes.io/hostname": name} if name else {}
    region, zone, subzone = (node.get(key, "") for key in (_REGION, _ZONE, _SUBZONE))
    if locality := word(pod.owner.spec, "locality"):
        region, zone, subzone = (*locality.split("/"), "", "")[:3]
    parts = ((_REGION, region), (_ZONE, zone), (_SUBZONE, subzone if zone else ""))
    return {**pod.labels, **found, **{key: value for key, value in parts if value}}
