"""A bootstrap that holds everything a proxy would get over ADS: for validation, tests and a look at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from weft.emit.bootstrap import Json, Settings, common
from weft.emit.bundle import Bundle
from weft.emit.endpoints import pack
from weft.emit.packed import Packed
from weft.ir.endpoint import EndpointSet
from weft.ir.placement import ANYWHERE, UNPLACED
from weft.ir.proxy import Proxy
from weft.names import CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOCAL_CLUSTER, ROUTE_TYPE
from weft.protos.wire import from_any, to_dict

_CERTIFICATES: Final = "tls_certificate_sds_secret_configs"
_BUNDLE: Final = "validation_context_sds_secret_config"


def message(packed: Packed) -> Json:
    """The resource in its JSON form."""
    return to_dict(from_any(packed.body))


def walk(value: object) -> Iterator[Json]:
    """Every object in a JSON value, outer ones first."""
    if isinstance(value, dict):
        yield value
        for part in list(value.values()):
            yield from walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from walk(part)


def secret_names(resources: object) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the certificates and of the trust bundles that some resources ask for."""
    certificates: set[str] = set()
    bundles: set[str] = set()
    for part in walk(resources):
        certificates.update(config["name"] for config in part.get(_CERTIFICATES, ()))
        if _BUNDLE in part:
            bundles.add(part[_BUNDLE]["name"])
    return frozenset(certificates), frozenset(bundles)


def bundle_secrets(bundle: Bundle) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the certificates and of the trust bundles that a bundle's resources ask for."""
    kinds = (CLUSTER_TYPE, LISTENER_TYPE)
    return secret_names([message(unit) for kind in kinds for unit in bundle.resources[kind].values()])


def _fix_secrets(resources: object, known: Mapping[str, Json]) -> None:
    """Let secrets that are given be found among the static ones: a name without a source says so."""
    for part in walk(resources):
        if part.get("name") in known:
            part.pop("sds_config", None)


def _fix_routes(resources: object, tables: Mapping[str, Packed]) -> None:
    for part in walk(resources):
        if "rds" in part:
            name = part.pop("rds")["route_config_name"]
            part["route_config"] = message(tables[name]) if name in tables else {"name": name}


def _fix_extensions(resources: object, known: Mapping[str, Packed]) -> None:
    """Configurations of filters that would come by themselves (ECDS) are put in place."""
    for part in walk(resources):
        if "config_discovery" in part and part.get("name") in known:
            del part["config_discovery"]
            part["typed_config"] = message(known[part["name"]])["typed_config"]


def _cluster(packed: Packed, assignments: Mapping[str, Packed]) -> Json:
    made = message(packed)
    if made.pop("eds_cluster_config", None) is not None:
        known = assignments.get(packed.name)
        made["type"] = "STATIC"
        made["load_assignment"] = message(known) if known else {"cluster_name": packed.name}
    return made


def assignments(endpoints: Iterable[EndpointSet], proxy: Proxy | None = None) -> list[Packed]:
    """Endpoint sets as ``proxy`` sees them; without one, as somebody does of whom nothing is known."""
    placements = {cluster.name: cluster.placement for cluster in proxy.clusters} if proxy else {}
    client = proxy.identity.standpoint if proxy else UNPLACED
    return [pack(unit, placements.get(unit.cluster, ANYWHERE), client) for unit in endpoints]


def static_bootstrap(
    bundle: Bundle,
    endpoints: Iterable[EndpointSet],
    settings: Settings,
    secrets: Mapping[str, Json] | None = None,
    proxy: Proxy | None = None,
) -> Json:
    """A bootstrap with the bundle's resources in it, ``endpoints`` as ``proxy`` sees them.

    ``secrets``: by name, in the JSON form of Envoy's Secret; those not given are read as they would be,
    so that the workload's own files are still watched.
    """
    given = secrets or {}
    by_cluster = {known.name: known for known in assignments(endpoints, proxy)}
    clusters = [_cluster(packed, by_cluster) for packed in bundle.resources[CLUSTER_TYPE].values()]
    listeners = [message(packed) for packed in bundle.resources[LISTENER_TYPE].values()]
    _fix_routes(listeners, bundle.resources[ROUTE_TYPE])
    _fix_extensions(listeners, bundle.resources.get(EXTENSION_TYPE, {}))
    _fix_secrets([clusters, listeners], given)
    wanted: frozenset[str] = frozenset().union(*secret_names([clusters, listeners]))
    static: dict[str, Any] = {"clusters": clusters, "listeners": listeners}
    if given:
        static["secrets"] = [given[name] for name in sorted(wanted) if name in given]
    # Filters that count on replicas refuse to be without the cluster, be there none.
    replicas = by_cluster.get(LOCAL_CLUSTER)
    local = message(replicas) if replicas else {"cluster_name": LOCAL_CLUSTER}
    clusters.append({"name": LOCAL_CLUSTER, "type": "STATIC", "load_assignment": local})
    manager = {"local_cluster_name": LOCAL_CLUSTER}
    return {**common(settings), "cluster_manager": manager, "static_resources": static}
