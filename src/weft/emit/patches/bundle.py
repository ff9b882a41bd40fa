"""A bundle with the patches of its proxy applied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from weft.emit.packed import Packed, pack
from weft.emit.patches.clusters import added, patch_cluster
from weft.emit.patches.listeners import patch_listener
from weft.emit.patches.routes import patch_routes
from weft.emit.patches.sorted import Patches, hands
from weft.ir.listener import Direction
from weft.ir.patch import Context, Patch, Target
from weft.ir.route import Source
from weft.names import CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, ROUTE_TYPE
from weft.protos.wire import from_any

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.ir.proxy import Proxy

Resources = Mapping[str, Mapping[str, Packed]]

_CONTEXTS: Final = {
    Direction.INBOUND: Context.SIDECAR_INBOUND,
    Direction.OUTBOUND: Context.SIDECAR_OUTBOUND,
    Direction.GATEWAY: Context.GATEWAY,
}
_INBOUND: Final = ("inbound|", "InboundPassthroughCluster")


@dataclass(frozen=True, slots=True, eq=False)
class MadeOf:
    """Whose fault a patched resource may be: its own unit, and the EnvoyFilters that had a hand in it."""

    made_of: tuple[object, ...]


class _Patched:
    """What became of a resource; holds what it was made of, so that the identities in the key stay theirs."""

    __slots__ = ("__weakref__", "result", "source")

    def __init__(self, source: object, result: Packed | None) -> None:
        self.source = source
        self.result = result


_known: Final[WeakValueDictionary[tuple[object, ...], _Patched]] = WeakValueDictionary()


class _Table(dict[str, Packed]):
    """Resources by name; holds the patched units, so that they are found again for other proxies."""

    __slots__ = ("units",)

    def __init__(self, units: list[_Patched]) -> None:
        super().__init__((unit.result.name, unit.result) for unit in units if unit.result is not None)
        self.units = units


def patched(resources: Resources, proxy: Proxy) -> Resources:
    """The resources of ``proxy`` after its patches; what none of them is about stays the very same object.

    Proxies with equal patches share the results.
    """
    patches = _sorted(proxy.patches)
    sidecar = proxy.identity.name.kind != "router"
    contexts = (Context.SIDECAR_OUTBOUND, Context.SIDECAR_INBOUND) if sidecar else (Context.GATEWAY,)
    directions = {listener.name: _CONTEXTS[listener.direction] for listener in proxy.listeners}

    def of_cluster(name: str) -> Context:
        return contexts[-1] if name.startswith(_INBOUND) else contexts[0]

    result = dict(resources)
    if _any(proxy.patches, Target.CLUSTER):
        result[CLUSTER_TYPE] = _patch(resources[CLUSTER_TYPE], patches, patch_cluster, of_cluster)
        _add(result[CLUSTER_TYPE], added(patches, Target.CLUSTER, contexts))
    if _any(proxy.patches, *_OF_LISTENERS):
        result[LISTENER_TYPE] = _patch(
            resources[LISTENER_TYPE], patches, patch_listener, directions.__getitem__
        )
        _add(result[LISTENER_TYPE], added(patches, Target.LISTENER, contexts))
    if _any(proxy.patches, *_OF_ROUTES):
        result[ROUTE_TYPE] = _patch(resources[ROUTE_TYPE], patches, _routes, lambda _: contexts[0])
    extensions: dict[str, Packed] = {}
    _add(extensions, added(patches, Target.EXTENSION_CONFIG, contexts))
    if extensions:
        result[EXTENSION_TYPE] = extensions
    return result


_OF_ROUTES: Final = (Target.ROUTE_CONFIGURATION, Target.VIRTUAL_HOST, Target.HTTP_ROUTE)
# Inbound listeners hold their route tables themselves.
_OF_LISTENERS: Final = (
    Target.LISTENER,
    Target.LISTENER_FILTER,
    Target.FILTER_CHAIN,
    Target.NETWORK_FILTER,
    Target.HTTP_FILTER,
    *_OF_ROUTES,
)


@functools.lru_cache(maxsize=256)
def _sorted(patches: tuple[Patch, ...]) -> Patches:
    """The same object for equal patches."""
    return Patches(patches)


def _any(patches: Iterable[Patch], *targets: Target) -> bool:
    return any(patch.target in targets for patch in patches)


def _routes(table: Any, patches: Patches, context: Context) -> bool:
    patch_routes(table, patches, context)
    return True


def _patch(
    units: Mapping[str, Packed],
    patches: Patches,
    apply: Callable[[Any, Patches, Context], bool],
    context: Callable[[str], Context],
) -> dict[str, Packed]:
    found = []
    for name, unit in units.items():
        where = context(name)
        key = (id(unit), id(patches), apply, where)
        known = _known.get(key)
        if known is None:
            message = from_any(unit.body)
            with hands() as origins:
                kept = apply(message, patches, where)
            made_of = MadeOf((unit.unit, *map(_source, origins)))
            made = pack(name, message, made_of) if kept else None
            known = _known[key] = _Patched((unit, patches), made)
        found.append(known)
    return _Table(found)


def _add(units: Mapping[str, Packed], messages: Iterable[tuple[Message, str]]) -> None:
    """What is generated keeps its name."""
    assert isinstance(units, dict)
    for message, origin in messages:
        name = str(message.name)  # type: ignore[attr-defined]
        units.setdefault(name, pack(name, message, MadeOf((_source(origin),))))


def _source(origin: str) -> Source:
    """An EnvoyFilter (``namespace/name``) in Istio's form."""
    namespace, _, name = origin.partition("/")
    return Source(path=f"/apis/networking.istio.io/v1alpha3/namespaces/{namespace}/envoy-filter/{name}")
