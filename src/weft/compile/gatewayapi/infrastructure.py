"""What the proxy of a Gateway bears: ``infrastructure``, and the ConfigMaps that complete it.

As Istio reads them: ``parametersRef`` names a ConfigMap of the Gateway's namespace; one of the root namespace
with the label ``gateway.istio.io/defaults-for-class`` is for all Gateways of a class. Of the objects that
they describe weft makes the proxy only, so the labels and annotations of ``deployment`` count
(istio pilot/pkg/config/kube/gatewaycommon, deploymentcontroller.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from weft.model.core import ConfigMap
from weft.model.gateway import Gateway
from weft.model.resource import Key
from weft.yaml import load

CLASS_DEFAULTS: Final = "gateway.istio.io/defaults-for-class"
_DEPLOYMENT: Final = "deployment"
# The objects that Istio makes for a Gateway.
_OBJECTS: Final = frozenset(
    {"deployment", "service", "serviceAccount", "horizontalPodAutoscaler", "podDisruptionBudget"}
)
_MAP: Final = ("", "ConfigMap")

Texts = Mapping[str, str]


def labels_of(gateway: Gateway, maps: Mapping[Key, ConfigMap], root: str) -> dict[str, str]:
    """Labels of the proxy: the Gateway's own where ``infrastructure`` has none, then what the maps add."""
    said = gateway.spec.infrastructure
    own = said.labels if said is not None else None
    return _with_templates(own if own is not None else gateway.metadata.labels, "labels", gateway, maps, root)


def annotations_of(gateway: Gateway, maps: Mapping[Key, ConfigMap], root: str) -> dict[str, str]:
    """Annotations of the proxy, in the same way."""
    said = gateway.spec.infrastructure
    own = said.annotations if said is not None else None
    base = own if own is not None else gateway.metadata.annotations
    return _with_templates(base, "annotations", gateway, maps, root)


def parameters_flaw(gateway: Gateway, maps: Mapping[Key, ConfigMap]) -> str:
    """What is wrong with ``parametersRef``; empty when nothing is."""
    said = gateway.spec.infrastructure
    ref = said.parameters_ref if said is not None else None
    if ref is None:
        return ""
    if (str(ref.group), str(ref.kind)) != _MAP:
        return f"parametersRef names a {ref.kind} of group {ref.group!r}, only a ConfigMap may be named"
    found = _named(gateway, maps)
    if found is None:
        return f"there is no ConfigMap {gateway.metadata.namespace}/{ref.name}"
    bad = next((name for name in found.data or {} if name in _OBJECTS and _object(found, name) is None), "")
    return f"{bad!r} of ConfigMap {found.metadata.namespace}/{ref.name} is no YAML object" if bad else ""


def unheeded(gateway: Gateway, maps: Mapping[Key, ConfigMap]) -> Iterator[str]:
    """Parts of the ConfigMap of ``parametersRef`` without effect, as ``deployment.spec.replicas``."""
    found = _named(gateway, maps)
    for name in sorted((found.data or {}) if found is not None else ()):
        if name != _DEPLOYMENT:
            yield name
            continue
        for path in _leaves(_object(found, name) or {}, name) if found is not None else ():
            if not path.startswith(
                (f"{name}.spec.template.metadata.labels.", f"{name}.spec.template.metadata.annotations.")
            ):
                yield path


def _with_templates(
    base: Texts | None, part: str, gateway: Gateway, maps: Mapping[Key, ConfigMap], root: str
) -> dict[str, str]:
    made = dict(base or {})
    for found in _overlays(gateway, maps, root):
        spec = _table((_object(found, _DEPLOYMENT) or {}).get("spec"))
        metadata = _table(_table(spec.get("template")).get("metadata"))
        made |= {str(key): str(value) for key, value in _table(metadata.get(part)).items()}
    return made


def _overlays(gateway: Gateway, maps: Mapping[Key, ConfigMap], root: str) -> Iterator[ConfigMap]:
    """The ConfigMap of the class, then the Gateway's own."""
    name = str(gateway.spec.gateway_class_name)
    of_class = (
        one
        for key, one in sorted(maps.items(), key=lambda item: item[0].name)
        if key.namespace == root and (one.metadata.labels or {}).get(CLASS_DEFAULTS) == name
    )
    yield from _first(of_class)
    own = _named(gateway, maps)
    if own is not None:
        yield own


def _first(found: Iterable[ConfigMap]) -> Iterator[ConfigMap]:
    for one in found:
        yield one
        return


def _named(gateway: Gateway, maps: Mapping[Key, ConfigMap]) -> ConfigMap | None:
    said = gateway.spec.infrastructure
    ref = said.parameters_ref if said is not None else None
    if ref is None or (str(ref.group), str(ref.kind)) != _MAP:
        return None
    return maps.get(Key("/ConfigMap", gateway.metadata.namespace, str(ref.name)))


def _object(found: ConfigMap, name: str) -> dict[str, Any] | None:
    """A part of a ConfigMap; None when it is no YAML object."""
    documents, problems = load((found.data or {}).get(name, ""), name)
    if problems or len(documents) > 1:
        return None
    return documents[0].data if documents else {}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _leaves(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    else:
        yield path
