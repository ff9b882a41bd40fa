"""What the analyzers look at: the objects, the mesh's settings, and what follows from both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from weft.analysis.hosts import Hosts
from weft.analysis.objects import Object, Objects
from weft.analysis.tree import pairs, rows, table, word
from weft.errors import did_you_mean
from weft.names import ROOT_NAMESPACE
from weft.yaml import Path

PROXY: Final = "istio-proxy"
INJECTION: Final = "istio-injection"
REVISION: Final = "istio.io/rev"
DATAPLANE: Final = "istio.io/dataplane-mode"
INJECT: Final = "sidecar.istio.io/inject"

_COMPARED_MAX: Final = 500  # comparing with more takes longer than a hint is worth
_TEMPLATES: Final = ("apps/Deployment", "apps/StatefulSet", "apps/DaemonSet", "apps/ReplicaSet", "batch/Job")


@dataclass(frozen=True, slots=True)
class Found:
    """One finding, not yet filtered: ``path`` is the field that it is about."""

    about: Object
    code: str
    message: str
    path: Path = ()


@dataclass(frozen=True, eq=False)
class Bearer:
    """A workload that selectors may choose: a pod, or what stands for the pods or processes to be.

    ``spec`` is a pod's, empty where there is none.
    """

    owner: Object
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False

    @property
    def namespace(self) -> str:
        """Where it runs."""
        return self.owner.namespace

    @property
    def ambient(self) -> bool:
        """It has no sidecar: its node's proxy takes its traffic."""
        return self.annotations.get("ambient.istio.io/redirection") == "enabled"


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all labels of the selector are there; an empty one selects everything."""
    return all(labels.get(key) == value for key, value in selector.items())


def shown(selector: Mapping[str, str]) -> str:
    """``app=reviews,version=v1``."""
    return ",".join(f"{key}={selector[key]}" for key in sorted(selector))


class Scene:
    """Everything that is analysed together. ``mesh`` and ``networks`` are as Istio's ConfigMap has them.

    ``others`` are other clusters' objects; ``live``: the objects are those of a running mesh, which makes
    its gateways itself and injects nothing.
    """

    def __init__(
        self,
        objects: Iterable[Object],
        mesh: Mapping[str, Any] | None = None,
        networks: Mapping[str, Any] | None = None,
        others: Mapping[str, Objects] | None = None,
        *,
        live: bool = False,
    ) -> None:
        self.mesh = mesh or {}
        self.networks = networks or {}
        self.root = word(self.mesh, "rootNamespace") or ROOT_NAMESPACE
        self.others = others or {}
        self.live = live
        self.objects = Objects((*self._assumed(), *objects))

    @cached_property
    def ours(self) -> bool:
        """weft runs this mesh, or will: it opens the ports of Gateways and gives hosts their addresses."""
        return self.live or any(True for _ in self.of("weft.dev/Workload"))

    def of(self, kind: str) -> Iterator[Object]:
        """All objects of a kind."""
        return self.objects.of(kind)

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object."""
        return self.objects.find(kind, namespace, name)

    def _assumed(self) -> Iterator[Object]:
        """The ingress gateway that an installation brings along, unless its settings say otherwise."""
        if word(self.mesh, "ingressControllerMode") == "OFF":
            return
        name = word(self.mesh, "ingressService") or "istio-ingressgateway"
        labels = {"istio": "ingressgateway"}
        ports = [
            {"name": title, "port": number, "targetPort": number, "protocol": "TCP"}
            for title, number in (("http2", 80), ("https", 443), ("tcp", 31400), ("tls", 15443))
        ]
        pod = {"spec": {"containers": [{"name": PROXY, "image": "weft"}]}, "metadata": {"labels": labels}}
        yield Object("/Pod", self.root, f"{name}-assumed", pod, _nowhere, assumed=True)
        if not self.live:
            service = {"spec": {"selector": labels, "ports": ports}}
            yield Object("/Service", self.root, name, service, _nowhere, assumed=True)

    @cached_property
    def hosts(self) -> Hosts:
        """Hosts of Services and ServiceEntries."""
        return Hosts(self.objects)

    @cached_property
    def pods(self) -> tuple[Bearer, ...]:
        """Every workload. A template stands for its pods where none of them is known."""
        found = [Bearer(pod, pod.labels, pod.annotations, pod.spec) for pod in self.of("/Pod")]
        known: dict[str, list[Mapping[str, str]]] = {}
        for pod in found:
            known.setdefault(pod.namespace, []).append(pod.labels)
        for kind in _TEMPLATES:
            for owner in self.of(kind):
                template = table(owner.spec, "template")
                labels = pairs(template, "metadata", "labels")
                if not any(selects(labels, other) for other in known.get(owner.namespace, ())):
                    annotations = pairs(template, "metadata", "annotations")
                    found.append(Bearer(owner, labels, annotations, table(template, "spec")))
        for owner in self.of("weft.dev/Workload"):
            found += [Bearer(owner, owner.labels, owner.annotations, ours=True)]
        for owner in self.of("networking.istio.io/WorkloadEntry"):
            labels = {**owner.labels, **pairs(owner.spec, "labels")}
            found.append(Bearer(owner, labels, owner.annotations, ours=True))
        for owner in self.of("networking.istio.io/WorkloadGroup"):
            labels = pairs(owner.spec, "metadata", "labels")
            found.append(Bearer(owner, labels, owner.annotations, ours=True))
        return tuple(found)

    @cached_property
    def services(self) -> dict[str, list[Object]]:
        """Services by namespace."""
        found: dict[str, list[Object]] = {}
        for service in self.of("/Service"):
            found.setdefault(service.namespace, []).append(service)
        return found

    def in_mesh(self, bearer: Bearer) -> bool:
        """Whether a workload has a sidecar (istio/istio, pkg/config/analysis/analyzers/util/in_mesh.go)."""
        if bearer.ours or any(word(one, "image") for one in containers(bearer.spec) if is_proxy(one)):
            return True
        for given in (bearer.labels, bearer.annotations):
            if INJECT in given:
                return given[INJECT] == "true"
        namespace = self.find("/Namespace", "", bearer.namespace)
        return namespace is not None and namespace.labels.get(INJECTION) == "enabled"


def meant(word_: str, known: Iterable[str]) -> str:
    """`` (did you mean 'reviews'?)`` for the nearest of a few known words, else the empty string."""
    words = set(known)
    hint = did_you_mean(word_, words) if len(words) <= _COMPARED_MAX else ""
    return f" ({hint})" if hint else ""


def containers(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A pod's containers, those that run before the others too."""
    for name in ("containers", "initContainers"):
        for _, container in rows(spec, name):
            yield container


def is_proxy(container: Mapping[str, Any]) -> bool:
    """Whether this is the sidecar."""
    return word(container, "name") == PROXY


def _nowhere(path: Path) -> None:
    """What nobody wrote stands in no file."""
