"""A bundle in the form of Envoy's ``/config_dump``, so that tools which read one work on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from weft.emit.bootstrap import Json
from weft.emit.bundle import Bundle
from weft.emit.packed import Packed
from weft.emit.static import bundle_secrets, message, walk
from weft.names import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    EXTENSION_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
)

_ADMIN: Final = "type.googleapis.com/envoy.admin.v3."
_REDACTED: Final = {"inline_string": "[redacted]"}


def _resource(packed: Packed, type_url: str) -> Json:
    return {"@type": type_url, **message(packed)}


def _clusters(units: Mapping[str, Packed]) -> Json:
    return {
        "@type": f"{_ADMIN}ClustersConfigDump",
        "dynamic_active_clusters": [
            {"version_info": unit.version, "cluster": _resource(unit, CLUSTER_TYPE)}
            for unit in units.values()
        ],
    }


def _endpoints(units: Iterable[Packed]) -> Json:
    return {
        "@type": f"{_ADMIN}EndpointsConfigDump",
        "dynamic_endpoint_configs": [
            {
                "version_info": unit.version,
                "endpoint_config": _resource(unit, ENDPOINT_TYPE),
            }
            for unit in units
        ],
    }


def _listeners(units: Mapping[str, Packed]) -> Json:
    return {
        "@type": f"{_ADMIN}ListenersConfigDump",
        "dynamic_listeners": [
            {
                "name": unit.name,
                "active_state": {
                    "version_info": unit.version,
                    "listener": _resource(unit, LISTENER_TYPE),
                },
            }
            for unit in units.values()
        ],
    }


def _inline_routes(listeners: Mapping[str, Packed]) -> list[Json]:
    """Route tables that are part of a listener; Envoy lists them as static."""
    return [
        {"route_config": {"@type": ROUTE_TYPE, **part["route_config"]}}
        for unit in listeners.values()
        for part in walk(message(unit))
        if "route_config" in part
    ]


def _routes(units: Mapping[str, Packed], listeners: Mapping[str, Packed]) -> Json:
    return {
        "@type": f"{_ADMIN}RoutesConfigDump",
        "static_route_configs": _inline_routes(listeners),
        "dynamic_route_configs": [
            {"version_info": unit.version, "route_config": _resource(unit, ROUTE_TYPE)}
            for unit in units.values()
        ],
    }


def _extensions(units: Mapping[str, Packed]) -> Json:
    return {
        "@type": f"{_ADMIN}EcdsConfigDump",
        "ecds_filters": [
            {"version_info": unit.version, "ecds_filter": _resource(unit, EXTENSION_TYPE)}
            for unit in units.values()
        ],
    }


def _secrets(bundle: Bundle) -> Json:
    """Which secrets are asked for. Their content is never shown."""
    certificates, bundles = bundle_secrets(bundle)
    contents = {
        **{name: {"tls_certificate": {"private_key": _REDACTED}} for name in certificates},
        **{name: {"validation_context": {"trusted_ca": _REDACTED}} for name in bundles},
    }
    return {
        "@type": f"{_ADMIN}SecretsConfigDump",
        "dynamic_active_secrets": [
            {"name": name, "secret": {"@type": SECRET_TYPE, "name": name, **contents[name]}}
            for name in sorted(contents)
        ],
    }


def config_dump(
    bundle: Bundle, endpoints: Iterable[Packed], bootstrap: Json | None, kinds: Iterable[str] = ()
) -> Json:
    """``{"configs": […]}``; ``kinds`` picks parts by ``bootstrap|cds|ecds|eds|lds|rds|secrets``, none is all.

    Without a ``bootstrap`` that part is left out.
    """
    resources = bundle.resources
    first = {"@type": f"{_ADMIN}BootstrapConfigDump", "bootstrap": bootstrap}
    parts = {
        **({"bootstrap": first} if bootstrap is not None else {}),
        "cds": _clusters(resources[CLUSTER_TYPE]),
        "eds": _endpoints(endpoints),
        "lds": _listeners(resources[LISTENER_TYPE]),
        "rds": _routes(resources[ROUTE_TYPE], resources[LISTENER_TYPE]),
        "secrets": _secrets(bundle),
    }
    if extensions := resources.get(EXTENSION_TYPE):
        parts["ecds"] = _extensions(extensions)
    wanted = tuple(kinds) or tuple(parts)
    return {"configs": [parts[kind] for kind in parts if kind in wanted]}
