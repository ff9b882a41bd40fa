"""Whom AuthorizationPolicies are for and name (IST0101, IST0127), and RequestAuthentications (IST0175).

Also policies by tokens that nobody verifies (WEFT0101).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, Found, Scene, selects, shown
from weft.analysis.tree import pairs, rows, table, word, words
from weft.yaml import Path

POLICY: Final = "security.istio.io/AuthorizationPolicy"
_TOKENS: Final = "security.istio.io/RequestAuthentication"
_PRINCIPALS: Final = ("requestPrincipals", "notRequestPrincipals")
_CLAIMS: Final = "request.auth."
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
        if not _is_attached(policy):
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


def unverified(scene: Scene) -> Iterator[Found]:
    """Policies by users or claims, where no RequestAuthentication has tokens verified: nobody has any."""
    verifying = [item for item in scene.of(_TOKENS) if any(rows(item.spec, "jwtRules"))]
    for policy in scene.of(POLICY):
        path = next(_by_token(policy), None)
        if path is not None and _all_unverified(policy, verifying, scene):
            message = (
                "no RequestAuthentication is for its workloads: no token is verified, no request has claims"
            )
            yield Found(policy, "WEFT0101", message, path)


def _by_token(policy: Object) -> Iterator[Path]:
    """Where rules ask about users or claims."""
    for rule, row in rows(policy.spec, "rules"):
        for place, source in rows(row, "from"):
            for field in _PRINCIPALS:
                if words(source, "source", field):
                    yield ("spec", "rules", rule, "from", place, "source", field)
        for place, condition in rows(row, "when"):
            if word(condition, "key").startswith(_CLAIMS):
                yield ("spec", "rules", rule, "when", place, "key")


def _all_unverified(policy: Object, verifying: Iterable[Object], scene: Scene) -> bool:
    """Whether the policy is for workloads, and no authentication is for any of them.

    Which labels the proxies of attached Gateways have is not looked up: any authentication may be for them.
    """
    near = [item for item in verifying if policy.namespace == scene.root or _reaches(item, policy, scene)]
    if _is_attached(policy):
        return not near
    inside = [pod for pod in scene.pods if _reaches(policy, pod, scene) and _chosen(policy, pod)]
    return bool(inside) and not any(
        _reaches(item, pod, scene) and (_is_attached(item) or _chosen(item, pod))
        for item in near
        for pod in inside
    )


def _reaches(policy: Object, other: Object | Bearer, scene: Scene) -> bool:
    return policy.namespace in {scene.root, other.namespace}


def _chosen(policy: Object, pod: Bearer) -> bool:
    return selects(pairs(policy.spec, "selector", "matchLabels"), pod.labels)


def _is_attached(policy: Object) -> bool:
    return bool(table(policy.spec, "targetRef")) or any(rows(policy.spec, "targetRefs"))


def blocked_ranges(scene: Scene) -> Iterator[Found]:
    """Istio's control plane fetches the keys that RequestAuthentications name from wherever they say."""
    names = [item.full_name for item in scene.of(_TOKENS)]
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
