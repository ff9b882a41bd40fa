"""The objects that are analysed, as they were written: every kind, also those that weft does not serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from weft.analysis.tree import at, pairs, table, word
from weft.errors import Origin
from weft.model.catalog import by_kind
from weft.yaml import Path

# Kinds that weft does not serve and that have no namespace.
_CLUSTER_KINDS: Final = frozenset(
    {
        "/Node",
        "/PersistentVolume",
        "admissionregistration.k8s.io/MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
        "apiextensions.k8s.io/CustomResourceDefinition",
        "rbac.authorization.k8s.io/ClusterRole",
        "rbac.authorization.k8s.io/ClusterRoleBinding",
    }
)
# Kubernetes' own, which no mesh has to do with (istio/istio, pkg/kube/inject: IgnoredNamespaces).
IGNORED_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})

Where = Callable[[Path], Origin | None]


@dataclass(frozen=True, eq=False)
class Object:
    """One object. ``kind`` is "group/Kind", "/Service" for core; ``where`` finds a field in its file.

    ``live``: it came from a running mesh. ``assumed``: nobody wrote it, an installation would have it.
    """

    kind: str
    namespace: str
    name: str
    data: Mapping[str, Any]
    where: Where
    live: bool = False
    assumed: bool = False
    cluster: str = ""

    @property
    def origin(self) -> str:
        """``VirtualService default/reviews``, ``Namespace default``."""
        kind = self.kind.rpartition("/")[2]
        return f"{kind} {self.full_name}"

    @property
    def full_name(self) -> str:
        """``default/reviews``; the name alone where there is no namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def home(self) -> str:
        """The namespace that it belongs to; a Namespace's is itself."""
        return self.name if self.kind == "/Namespace" else self.namespace

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What is wished for."""
        return table(self.data, "spec")

    @cached_property
    def labels(self) -> dict[str, str]:
        """Its own labels."""
        return pairs(self.data, "metadata", "labels")

    @cached_property
    def annotations(self) -> dict[str, str]:
        """Its own annotations."""
        return pairs(self.data, "metadata", "annotations")


def object_of(
    data: Mapping[str, Any],
    where: Where,
    namespace: str = "default",
    *,
    live: bool = False,
    assumed: bool = False,
    cluster: str = "",
) -> Object | None:
    """The object of a document; None when it does not say its kind and name."""
    api_version, kind = at(data, "apiVersion"), at(data, "kind")
    name = word(data, "metadata", "name") or word(data, "metadata", "generateName")
    if not (isinstance(api_version, str) and isinstance(kind, str) and api_version and kind and name):
        return None
    known = f"{api_version.rpartition('/')[0]}/{kind}"
    row = by_kind(api_version, kind)
    namespaced = row.namespaced if row else known not in _CLUSTER_KINDS
    home = (word(data, "metadata", "namespace") or namespace) if namespaced else ""
    return Object(known, home, name, data, where, live, assumed, cluster)


class Objects:
    """All objects of one cluster by kind. A later one replaces an earlier one of the same name."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self._kinds: dict[str, dict[tuple[str, str], Object]] = {}
        self.replaced: list[tuple[Object, Object]] = []
        """(the one that is left out, the one that counts)."""
        for item in objects:
            if item.home in IGNORED_NAMESPACES:
                continue
            kind = self._kinds.setdefault(item.kind, {})
            key = (item.namespace, item.name)
            if (before := kind.get(key)) is not None:
                if not before.live and not before.assumed:
                    self.replaced.append((before, item))
                del kind[key]
            kind[key] = item

    def of(self, kind: str) -> Iterator[Object]:
        """All objects of a kind, in the order in which they were given."""
        yield from self._kinds.get(kind, {}).values()

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object."""
        return self._kinds.get(kind, {}).get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        for kind in self._kinds.values():
            yield from kind.values()

    def __len__(self) -> int:
        return sum(len(kind) for kind in self._kinds.values())
