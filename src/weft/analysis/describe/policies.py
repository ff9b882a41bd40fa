"""Policies that hold for a workload: the mode of its ports, and everything that selects it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from weft.analysis.describe.picture import Picture, Report, age, ref
from weft.analysis.objects import Object
from weft.analysis.scene import Scene, selects
from weft.analysis.tree import pairs, rows, table, word
from weft.model.istio import DRY_RUN, TRUE
from weft.names import GATEWAY_NAME_LABEL
from weft.yaml import Path

PEER: Final = "security.istio.io/PeerAuthentication"
DEFAULT_MODE: Final = "PERMISSIVE"
_MODE: Final[Path] = ("spec", "mtls", "mode")
_MODES: Final = frozenset({"DISABLE", "PERMISSIVE", "STRICT"})

_SIDECAR: Final = "networking.istio.io/Sidecar"
_SELECTORS: Final = {
    "security.istio.io/AuthorizationPolicy": ("selector", "matchLabels"),
    "security.istio.io/RequestAuthentication": ("selector", "matchLabels"),
    "telemetry.istio.io/Telemetry": ("selector", "matchLabels"),
    "extensions.istio.io/WasmPlugin": ("selector", "matchLabels"),
    "networking.istio.io/EnvoyFilter": ("workloadSelector", "labels"),
    "networking.istio.io/ProxyConfig": ("selector", "matchLabels"),
}
"""Kinds that select workloads, and where their selector stands."""

WORKLOAD: Final = "workload"
NAMESPACE: Final = "namespace"
MESH: Final = "mesh"
TARGET: Final = "target"


def mode_of(scene: Scene, namespace: str, labels: Mapping[str, str], port: int | None) -> Report:
    """Which connections a workload's port takes: ``{"mode", "decidedBy"}``; null where the default holds.

    The rule for the workload, else its namespace's, else the mesh's, the oldest of each that says something
    (``weft.compile.istio.peer_authentication``).
    """
    ordered = sorted(scene.of(PEER), key=age)
    for rule in ordered:
        selector = pairs(rule.spec, "selector", "matchLabels")
        if rule.namespace != namespace or not selector or not selects(selector, labels):
            continue
        own: Path = ("spec", "portLevelMtls", str(port), "mode")
        for path in (own, _MODE):
            if (mode := word(rule.data, *path)) in _MODES:
                return {"mode": mode, "decidedBy": ref(rule, path)}
        break
    for space in dict.fromkeys((namespace, scene.root)):
        for rule in ordered:
            mode = word(rule.data, *_MODE)
            whole = not pairs(rule.spec, "selector", "matchLabels")
            if rule.namespace == space and whole and mode in _MODES:
                return {"mode": mode, "decidedBy": ref(rule, _MODE)}
    return {"mode": DEFAULT_MODE, "decidedBy": None}


def policies(scene: Scene, namespace: str, labels: Mapping[str, str]) -> list[tuple[Object, Report]]:
    """Everything that holds for a workload, with its scope and what it says in short."""
    found: list[tuple[Object, Report]] = []
    for kind, place in _SELECTORS.items():
        for item in scene.of(kind):
            scope = _scope(item, place, scene, namespace, labels)
            if scope:
                found.append((item, {**ref(item), "scope": scope, **_short(item)}))
    if (sidecar := sidecar_of(scene, namespace, labels)) is not None:
        found.append(sidecar)
    return found


def _scope(
    item: Object, place: Sequence[str], scene: Scene, namespace: str, labels: Mapping[str, str]
) -> str:
    """Why a policy holds for a workload; empty when it does not."""
    targets = [table(item.spec, "targetRef"), *(row for _, row in rows(item.spec, "targetRefs"))]
    if any(targets):
        gateway = labels.get(GATEWAY_NAME_LABEL)
        meant = any((word(one, "kind"), word(one, "name")) == ("Gateway", gateway) for one in targets)
        return TARGET if gateway and meant and item.namespace == namespace else ""
    selector = pairs(item.spec, *place)
    if item.namespace not in {namespace, scene.root} or not selects(selector, labels):
        return ""
    if selector:
        return WORKLOAD
    return MESH if item.namespace == scene.root else NAMESPACE


def sidecar_of(scene: Scene, namespace: str, labels: Mapping[str, str]) -> tuple[Object, Report] | None:
    """The Sidecar that counts: the workload's, else its namespace's, else the mesh's; the oldest of each."""
    ordered = sorted(scene.of(_SIDECAR), key=age)
    for scope, space in ((WORKLOAD, namespace), (NAMESPACE, namespace), (MESH, scene.root)):
        for item in ordered:
            selector = pairs(item.spec, "workloadSelector", "labels")
            chosen = bool(selector) and selects(selector, labels)
            if item.namespace == space and (chosen if scope == WORKLOAD else not selector):
                return item, {**ref(item), "scope": scope, **_short(item)}
    return None


def targeting(scene: Scene, item: Object) -> Iterator[tuple[Object, Report]]:
    """Policies that name a service as their target."""
    kinds = (*_SELECTORS, "gateway.networking.k8s.io/BackendTLSPolicy")
    kind = item.kind.rpartition("/")[2]
    for policy in (policy for one in kinds for policy in scene.of(one)):
        targets = [("targetRefs", index, row) for index, row in rows(policy.spec, "targetRefs")]
        if single := table(policy.spec, "targetRef"):
            targets.append(("targetRef", 0, single))
        for field, index, target in targets:
            meant = (word(target, "kind"), word(target, "name")) == (kind, item.name)
            if meant and policy.namespace == item.namespace:
                path: Path = ("spec", field, index) if field == "targetRefs" else ("spec", field)
                yield policy, {**ref(policy, path), "scope": "target", **_short(policy)}


def _short(item: Object) -> Report:
    """What a policy does, in a few words."""
    spec = item.spec
    match item.kind.rpartition("/")[2]:
        case "AuthorizationPolicy":
            count = sum(1 for _ in rows(spec, "rules"))
            action = word(spec, "action") or "ALLOW"
            said = f"{action}, {_count(count, 'rule')}" if count else f"{action} nothing"
            if action == "CUSTOM":
                said += f", {word(spec, 'provider', 'name') or 'nobody'} decides"
            if item.annotations.get(DRY_RUN) in TRUE:
                said += ", dry run"
            return {"action": action, "summary": said}
        case "RequestAuthentication":
            issuers = [_issuer(rule) for _, rule in rows(spec, "jwtRules")]
            return {"summary": f"tokens of {', '.join(issuers)}" if issuers else "no rules"}
        case "Telemetry":
            return {"summary": "; ".join(_told(spec)) or "nothing"}
        case "EnvoyFilter":
            return {"summary": _count(sum(1 for _ in rows(spec, "configPatches")), "patch", "patches")}
        case "Sidecar":
            hosts = [host for _, row in rows(spec, "egress") for host in _texts(row.get("hosts"))]
            return {"summary": f"sees {', '.join(hosts)}" if hosts else "sees everything"}
    return {"summary": ""}


def _told(spec: Mapping[str, Any]) -> Iterator[str]:
    """What a Telemetry says of traces, logs and metrics, each with whose side it is about."""
    for _, row in rows(spec, "tracing"):
        share = row.get("randomSamplingPercentage")
        said = "no traces" if row.get("disableSpanReporting") is True else "traces"
        if said == "traces" and share is not None:
            said = f"traces {share} %"
        yield said + _to_whom(row)
    for _, row in rows(spec, "accessLogging"):
        yield ("no logs" if row.get("disabled") is True else "logs") + _to_whom(row)
        if only := word(row, "filter", "expression"):
            yield f"only where {only}"
    for _, row in rows(spec, "metrics"):
        count = sum(1 for _ in rows(row, "overrides"))
        yield f"metrics with {_count(count, 'change')}" + _to_whom(row)


def _to_whom(row: Mapping[str, Any]) -> str:
    names = [name for _, one in rows(row, "providers") if (name := word(one, "name"))]
    mode = word(row, "match", "mode")
    side = {"CLIENT": " of what is called", "SERVER": " of calls"}.get(mode or "", "")
    return side + (f" to {', '.join(names)}" if names else "")


def _issuer(rule: Mapping[str, Any]) -> str:
    """Whose tokens a rule believes, and whether there must be one."""
    named = word(rule, "issuer") or f"anybody with a key of {word(rule, 'jwksUri') or 'the rule'}"
    return f"{named} (required)" if word(rule, "presence") == "REQUIRED" else named


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def mutual_tls(
    picture: Picture, namespace: str, labels: Mapping[str, str], ports: Sequence[int]
) -> list[Report]:
    """The mode of each port of a workload; of all the others, when it declares none."""
    scene = picture.scene
    found = [{"port": port, **mode_of(scene, namespace, labels, port)} for port in ports]
    return found or [{"port": None, **mode_of(scene, namespace, labels, None)}]
