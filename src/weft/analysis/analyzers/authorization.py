"""Whom AuthorizationPolicies are for and name (IST0101, IST0127), and RequestAuthentications (IST0175)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene, selects, shown
from weft.analysis.tree import pairs, rows, table, word, words

POLICY: Final = "security.istio.io/AuthorizationPolicy"
_BLOCKED: Final = "BLOCKED_CIDRS_IN_JWKS_URIS"
_SHOWN: Final = 5


def policies(scene: Scene) -> Iterator[Found]:
    """Policies that apply to no workload, and namespaces in them that do not exist."""
    meshed: dict[str, list[Mapping[str, str]]] = {}
    for pod in scene.pods:
        if pod.ambient or scene.in_mesh(pod):
            meshed.setdefault(pod.namespace, []).append(pod.labels)
    namespaces = {item.name for item in scene.of("/Namespace")}
    if scene.live:
        namespaces |= {item.namespace for item in scene.objects}
    for policy in scene.of(POLICY):
        if not table(policy.spec, "targetRef") and not any(rows(policy.spec, "targetRefs")):
            yield from _workloads(policy, scene, meshed)
        yield from _namespaces(policy, namespaces)


def _workloads(
    policy: Object, scene: Scene, meshed: Mapping[str, list[Mapping[str, str]]]
) -> Iterator[Found]:
    whole = policy.namespace == scene.root
    selective = isinstance(policy.spec.get("selector"), dict)
    selector = pairs(policy.spec, "selector", "matchLabels")
    if whole and not selective:
        return
    inside = [labels for rows_ in meshed.values() for labels in rows_] if whole else meshed.get(
        policy.namespace, []
    )  # fmt: skip
    if not any(selects(selector, labels) for labels in inside):
        about = f"the labels {shown(selector)}" if selector else f"a sidecar in {policy.namespace}"
        yield Found(policy, "IST0127", f"no workload of the mesh has {about}", ("spec", "selector"))


def _namespaces(policy: Object, known: set[str]) -> Iterator[Found]:
    for rule, row in rows(policy.spec, "rules"):
        for place, source in rows(row, "from"):
            for field in ("namespaces", "notNamespaces"):
                for index, name in enumerate(words(source, "source", field)):
                    if not any(_matches(name, namespace) for namespace in known):
                        path = ("spec", "rules", rule, "from", place, "source", field, index)
                        yield Found(policy, "IST0101", f"there is no namespace {name!r}", path)


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name.lower() == pattern.lower()


def blocked_ranges(scene: Scene) -> Iterator[Found]:
    """Istio's control plane fetches the keys that RequestAuthentications name from wherever they say."""
    names = [item.full_name for item in scene.of("security.istio.io/RequestAuthentication")]
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    for deployment in scene.of("apps/Deployment"):
        if deployment.labels.get("app") != "istiod":
            continue
        given = any(
            word(variable, "name") == _BLOCKED and word(variable, "value")
            for _, container in rows(deployment.spec, "template", "spec", "containers")
            for _, variable in rows(container, "env")
        )
        if not given:
            message = (
                f"{_BLOCKED} is not set, and {len(names)} RequestAuthentications "
                f"({', '.join(names[:_SHOWN])}{more}) may have keys fetched from any address"
            )
            yield Found(deployment, "IST0175", message)
