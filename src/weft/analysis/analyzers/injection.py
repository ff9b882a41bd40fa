"""Sidecars of Kubernetes' pods: who gets one, and which (IST0102, 0103, 0123, 0146 to 0148, 0158)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from weft.analysis.objects import Object
from weft.analysis.scene import (
    DATAPLANE,
    INJECT,
    INJECTION,
    PROXY,
    REVISION,
    Bearer,
    Found,
    Scene,
    containers,
    is_proxy,
    selects,
)
from weft.analysis.selectors import matches
from weft.analysis.tree import at, pairs, rows, table, word
from weft.yaml import load

INJECTOR: Final = "istio-sidecar-injector"
WEBHOOK: Final = "admissionregistration.k8s.io/MutatingWebhookConfiguration"
_AUTO: Final = "auto"


def injector_name(revision: str) -> str:
    """The ConfigMap of the injector of a revision."""
    return INJECTOR if revision in {"", "default"} else f"{INJECTOR}-{revision}"


def _values(config: Object) -> dict[str, Any]:
    try:
        found = json.loads(word(config.data, "data", "values"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def namespaces(scene: Scene) -> Iterator[Found]:
    """Namespaces without or with too many labels that decide about sidecars, and pods without one."""
    if scene.live:
        return
    # Where weft runs the workloads, nothing is injected and nothing is missing.
    ours = {item.namespace for item in scene.of("weft.dev/Workload")}
    configs = {item.name: item for item in scene.of("/ConfigMap")}
    injected: set[str] = set()
    for item in scene.of("/Namespace"):
        if item.name == scene.root:
            continue
        labels = item.labels
        own = labels.get(INJECTION)
        said = [f"{INJECTION}={own}"] if own is not None else []
        if own is None or own == "enabled":
            said += [f"{key}={labels[key]}" for key in (REVISION, DATAPLANE) if key in labels]
        if len(said) > 1:
            message = f"several labels decide about sidecars here: {', '.join(said)}: keep one of them"
            yield Found(item, "IST0123", message, ("metadata", "labels"))
        if labels.get(DATAPLANE) == "ambient":
            continue
        if not own and REVISION not in labels:
            config = configs.get(injector_name(labels.get(REVISION, "")))
            if config is not None and at(
                _values(config), "sidecarInjectorWebhook", "enableNamespacesByDefault"
            ):
                message = "its pods get sidecars, since the injector enables namespaces by default"
                yield Found(item, "IST0148", message)
            elif item.name not in ours:
                message = (
                    f"its pods get no sidecars: kubectl label namespace {item.name} {INJECTION}=enabled "
                    "changes that, =disabled says that it is meant"
                )
                yield Found(item, "IST0102", message, ("metadata", "name"))
        elif own == "enabled":
            injected.add(item.name)
    for pod in scene.of("/Pod"):
        if pod.namespace in injected and not pod.assumed and _lacks_proxy(pod):
            message = f"the pod {pod.full_name} has no sidecar: restart it"
            yield Found(pod, "IST0103", message)


def _lacks_proxy(pod: Object) -> bool:
    wish = pod.labels.get(INJECT, pod.annotations.get(INJECT, ""))
    if wish.lower() == "false" or at(pod.spec, "hostNetwork") is True:
        return False
    return not any(is_proxy(one) and word(one, "image") for one in containers(pod.spec))


def auto_images(scene: Scene) -> Iterator[Found]:
    """``image: auto`` that no injector will fill in."""
    hooks = [
        hook
        for item in scene.of(WEBHOOK)
        for _, hook in rows(item.data, "webhooks")
        if word(hook, "name").endswith("istio.io")
    ]
    for pod in scene.of("/Pod"):
        if _auto(pod.spec):
            yield Found(pod, "IST0147", f"the Pod {pod.name} has image: auto, and no injector filled it in")
    for item in scene.of("apps/Deployment"):
        template = table(item.spec, "template")
        if not _auto(table(template, "spec")):
            continue
        namespace = scene.find("/Namespace", "", item.namespace)
        above = namespace.labels if namespace else {}
        labels = pairs(template, "metadata", "labels")
        if not any(
            matches(at(hook, "namespaceSelector"), above) and matches(at(hook, "objectSelector"), labels)
            for hook in hooks
        ):
            message = f"the Deployment {item.name} has image: auto, and no injector's webhook selects it"
            yield Found(item, "IST0146", message)


def _auto(spec: Mapping[str, Any]) -> bool:
    return any(is_proxy(one) and word(one, "image") == _AUTO for _, one in rows(spec, "containers"))


def images(scene: Scene) -> Iterator[Found]:
    """Pods whose sidecar is another one than the injector would give them now."""
    wanted = {
        item.name: _image(_values(item)) for item in scene.of("/ConfigMap") if item.name.startswith(INJECTOR)
    }
    if not wanted:
        return
    revisions = {
        item.name: item.labels.get(REVISION, "default")
        for item in scene.of("/Namespace")
        if item.labels.get(INJECTION) == "enabled" or REVISION in item.labels
    }
    variants = _Variants(scene)
    stale: dict[str, list[str]] = {}
    for pod in scene.of("/Pod"):
        revision = revisions.get(pod.namespace)
        image = wanted.get(injector_name(revision)) if revision is not None else None
        if image is None or pod.annotations.get("sidecar.istio.io/proxyImage"):
            continue
        variant = variants.of(Bearer(pod, pod.labels, pod.annotations))
        for container in containers(pod.spec):
            if is_proxy(container) and word(container, "image") not in {image, f"{image}-{variant}"}:
                stale.setdefault(pod.namespace, []).append(pod.name)
    for name, pods in stale.items():
        namespace = scene.find("/Namespace", "", name)
        if namespace is not None:
            message = (
                f"pods run another {PROXY} than they would get now: {', '.join(sorted(pods))}: restart them"
            )
            yield Found(namespace, "IST0158", message)


def _image(values: Mapping[str, Any]) -> str:
    image = word(values, "global", "proxy", "image")
    if "/" in image:
        return image
    return f"{word(values, 'global', 'hub')}/{image}:{word(values, 'global', 'tag')}"


class _Variants:
    """Which variant of the sidecar's image a pod asks for, by MeshConfig, ProxyConfigs and annotation."""

    def __init__(self, scene: Scene) -> None:
        self._mesh = word(scene.mesh, "defaultConfig", "image", "imageType")
        self._spaces: dict[str, str] = {}
        self._chosen: list[tuple[str, dict[str, str], str]] = []
        for item in scene.of("networking.istio.io/ProxyConfig"):
            variant = word(item.spec, "image", "imageType")
            if item.namespace == scene.root:
                self._mesh = variant or self._mesh
            elif isinstance(item.spec.get("selector"), dict):
                self._chosen.append((item.namespace, pairs(item.spec, "selector", "matchLabels"), variant))
            else:
                self._spaces[item.namespace] = variant

    def of(self, pod: Bearer) -> str:
        """``distroless``; empty for the default one."""
        variant = self._spaces.get(pod.namespace) or self._mesh
        for namespace, labels, own in self._chosen:
            if namespace == pod.namespace and own and selects(labels, pod.labels):
                variant = own
        documents, _ = load(pod.annotations.get("proxy.istio.io/config", ""), "annotation")
        own = word(documents[0].data, "image", "imageType") if documents else ""
        variant = own or variant
        return "" if variant == "default" else variant
