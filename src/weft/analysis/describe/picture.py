"""The whole that a description is taken from: objects, the compiled world, findings, and who is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from weft.analysis.analyze import Survey
from weft.analysis.objects import Object
from weft.analysis.scene import Bearer, Scene
from weft.analysis.tree import word, words
from weft.compile.service import Service
from weft.compile.world import World
from weft.errors import WeftError, did_you_mean
from weft.names import service_host
from weft.yaml import Path

Report = dict[str, Any]
"""JSON: what INTERFACES calls a shape; keys are camelCase."""

SERVICE: Final = "/Service"
ENTRY: Final = "networking.istio.io/ServiceEntry"

_SERVICE_WORDS: Final = frozenset({"service", "services", "svc"})
_ENTRY_WORDS: Final = frozenset({"serviceentry", "serviceentries", "se"})
# In a mesh without Kubernetes a replica is a WorkloadEntry, and a Workload is what a Deployment would be.
_POD: Final = ("/Pod", "networking.istio.io/WorkloadEntry")
_DEPLOYMENT: Final = ("apps/Deployment", "weft.dev/Workload")
_WORKLOAD_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "pod": _POD,
    "pods": _POD,
    "po": _POD,
    "deployment": _DEPLOYMENT,
    "deploy": _DEPLOYMENT,
    "statefulset": ("apps/StatefulSet",),
    "sts": ("apps/StatefulSet",),
    "daemonset": ("apps/DaemonSet",),
    "ds": ("apps/DaemonSet",),
    "workloadentry": ("networking.istio.io/WorkloadEntry",),
    "we": ("networking.istio.io/WorkloadEntry",),
    "workloadgroup": ("networking.istio.io/WorkloadGroup",),
    "wg": ("networking.istio.io/WorkloadGroup",),
    "workload": (),
    "workloads": (),
    "wl": (),
}
WORDS: Final = frozenset({*_SERVICE_WORDS, *_ENTRY_WORDS, *_WORKLOAD_WORDS})
"""Kinds that may stand before a name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A target on the command line: ``kind`` is empty when only a name was given."""

    kind: str
    name: str
    namespace: str

    @classmethod
    def of(cls, text: str, namespace: str) -> Asked:
        """Read ``service/reviews``, ``pod/reviews-1.shop``, ``reviews`` or a host."""
        kind, slash, name = text.partition("/")
        if not slash or kind.lower() not in WORDS:
            kind, name = "", text
        return cls(kind.lower(), name, namespace)


class Picture:
    """``proxies`` are rows of ``weft proxy status``, ``vips`` virtual addresses by (namespace, name): those
    of a running mesh.
    """

    def __init__(
        self,
        survey: Survey,
        proxies: Sequence[Mapping[str, Any]] = (),
        vips: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.scene: Scene = survey.scene
        self.world = World.build(survey.resources, vips=vips)
        self.proxies = proxies
        self._found = survey.found

    @cached_property
    def domain(self) -> str:
        """Of the mesh's services."""
        return self.world.settings.domain

    def service_of(self, item: Object) -> Service | None:
        """The service of a Service or a ServiceEntry, as it is compiled; None when it is not valid."""
        for key, services in self.world.services.by_source.items():
            if (key.kind, key.namespace, key.name) == (item.kind, item.namespace, item.name):
                return services[0]
        return None

    def hosts_of(self, item: Object) -> list[str]:
        """Its host names in full."""
        if item.kind == SERVICE:
            return [service_host(item.name, item.namespace, self.domain)]
        return words(item.spec, "hosts")

    def findings(self, items: Iterable[Object]) -> list[Report]:
        """What an analysis says about these, the worst first."""
        wanted = set(items)
        found = {finding: None for finding, about in self._found if about in wanted}
        return [finding.as_json() for finding in sorted(found, key=lambda finding: finding.rank)]

    def find(self, asked: Asked) -> Object | Bearer:
        """Who is meant: a Service or a ServiceEntry before a workload of the same name.

        Raises:
            WeftError: when nothing is called so.
        """
        services = not asked.kind or asked.kind in _SERVICE_WORDS | _ENTRY_WORDS
        found = self._service(asked) if services else None
        if found is None and asked.kind not in _SERVICE_WORDS | _ENTRY_WORDS:
            workload = self._workload(asked)
            if workload is not None:
                return workload
        if found is not None:
            return found
        what = "service" if asked.kind in _SERVICE_WORDS else asked.kind or "service or workload"
        raise WeftError(f"there is no {what} {asked.name!r} in {asked.namespace}", hint=self._hint(asked))

    def _hint(self, asked: Asked) -> str:
        known = [*self.scene.of(SERVICE), *self.scene.of(ENTRY), *(pod.owner for pod in self.scene.pods)]
        named = [item for item in known if item.name == asked.name]
        for item in named:
            if item.namespace == asked.namespace:
                return f"there is a {item.kind.rpartition('/')[2]} of that name"
        spaces = sorted({item.namespace for item in named})
        if spaces:
            return f"one is in {', '.join(spaces)}: add -n {spaces[0]}"
        space, slash, _ = asked.name.partition("/")
        if slash and all(item.namespace != space for item in known):
            return "what can be described: service/NAME, workload/NAME, pod/NAME, or a name alone"
        here = {item.name for item in known if item.namespace == asked.namespace and not item.assumed}
        return did_you_mean(asked.name, here) or "-n says where to look; weft analyze -A looks at everything"

    def _service(self, asked: Asked) -> Object | None:
        for namespace, name in _places(asked, self.domain):
            for kind in (SERVICE, ENTRY):
                item = self.scene.find(kind, namespace, name)
                if item is not None and (asked.kind not in _ENTRY_WORDS or kind == ENTRY):
                    return item
        hosts = (item for item in self.scene.of(ENTRY) if asked.name in words(item.spec, "hosts"))
        return next(hosts, None)

    def _workload(self, asked: Asked) -> Bearer | None:
        kinds = _WORKLOAD_WORDS.get(asked.kind, ())
        for namespace, name in _places(asked, self.domain):
            for pod in self.scene.pods:
                if (pod.namespace, pod.owner.name) == (namespace, name) and (
                    not kinds or pod.owner.kind in kinds
                ):
                    return pod
        return None


def _places(asked: Asked, domain: str) -> list[tuple[str, str]]:
    """(namespace, name) that a text may mean: ``reviews``, ``reviews.shop``, a host in full."""
    text = asked.name.removesuffix(f".svc.{domain}").removesuffix(".svc")
    space, slash, short = text.partition("/")
    if slash:
        return [(space, short)]
    places = [(asked.namespace, text)]
    name, dot, namespace = text.rpartition(".")
    return [*places, (namespace, name)] if dot else places


def ref(item: Object, path: Path = ()) -> Report:
    """Which resource, and where it says so."""
    where = item.where(path)
    return {
        "kind": item.kind.rpartition("/")[2],
        "namespace": item.namespace,
        "name": item.name,
        "file": where.file if where else "",
        "line": where.line if where else 0,
    }


def age(item: Object) -> tuple[str, str, str]:
    """Sort key of conflicts, as ``weft.compile.age`` has it for typed resources."""
    return (word(item.data, "metadata", "creationTimestamp") or "9", item.namespace, item.name)
