"""What an Envoy is started with: who it is, where its control plane is, how its state is read.

Standard library only: the node agent builds bootstraps and knows no protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from weft.names import (
    CLUSTER_LABEL,
    LOCAL_CLUSTER,
    TELEMETRY_CLUSTER,
    TELEMETRY_PORT,
    WORKLOAD_CERTIFICATE,
    WORKLOAD_CERTIFICATE_FILE,
    WORKLOAD_TRUST_BUNDLE,
    WORKLOAD_TRUST_BUNDLE_FILE,
    XDS_CLUSTER,
    XDS_PORT,
    ProxyName,
    canonical_name,
    canonical_revision,
    local_endpoints,
    workload_name,
)

Json = dict[str, Any]

# Envoy's clients end at TLS 1.2 unless told, and only 1.3 has post-quantum key exchange.
CONTROL_PLANE_TLS: Final = {
    "tls_minimum_protocol_version": "TLSv1_3",
    "tls_maximum_protocol_version": "TLSv1_3",
}
_TYPE: Final = "type.googleapis.com/"
_UNKNOWN: Final = "unknown"  # Istio's word in metrics
_ADMIN_CLUSTER: Final = "agent"
_SOCKET_MODE: Final = 0o600
# Metrics that are pushed: Istio's, and a few of the proxy itself. The uptime shows that it lives.
_PUSHED: Final = (
    "istio_",
    "server.uptime",
    "server.memory_",
    "server.total_connections",
    "control_plane.connected_state",
    "cluster_manager.active_clusters",
    "listener_manager.total_listeners_active",
    # Of the push itself, one of which grows with each: only counters say since when they tell.
    f"cluster.{TELEMETRY_CLUSTER}.upstream_rq_total",
    f"cluster.{TELEMETRY_CLUSTER}.upstream_rq_pending_total",
    f"cluster.{TELEMETRY_CLUSTER}.upstream_cx_total",
)
# Of one message of metrics: a megabyte.
_POINTS: Final = 500
# Batches of telemetry under way: what is more is lost at once, so that a slow store costs little memory.
_FEW: Final = {"max_connections": 4, "max_pending_requests": 32, "max_requests": 64}
# Istio's limit for regular expressions (RE2 program size).
_RE2_SIZE: Final = 32768
# Idle istio_* series vanish after this; a whole number of flushes (5 s).
_EVICTION: Final = "600s"
MILLISECONDS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
_BYTES: Final = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

# All other statistics are not made: at 1,000 services they cost 30 MB a sidecar.
_KEPT_PREFIXES: Final = (
    "cluster_manager.",
    "listener_manager.",
    "server.",
    "control_plane.",
    f"cluster.{XDS_CLUSTER}.",
    f"cluster.{TELEMETRY_CLUSTER}.",
    # Not for show: Envoy divides limits by this very gauge.
    f"cluster.{LOCAL_CLUSTER}.membership_",
    "istio_",
    "sds.",
)
_KEPT_SUFFIXES: Final = (
    "ssl_context_update_by_sds",
    "downstream_cx_active",
    "downstream_rq_active",
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "http_local_rate_limit.rate_limited",
    "http_local_rate_limit.enforced",
)
# What policies decided, told apart by labels (Istio's bootstrap has the same).
_TAGS: Final = {
    "authz_enforce_result": r"rbac(\.(allowed|denied))",
    "authz_dry_run_action": r"(\.istio_dry_run_(allow|deny)_)",
    "authz_dry_run_result": r"(\.shadow_(allowed|denied))",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An IP address and a port to listen on."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a bootstrap says. Envoy is started in the directory that holds its SDS files.

    ``metadata`` is the node's (``NAMESPACE``, ``LABELS``, ``WEFT`` …); ``control_plane`` lists the names
    that its certificate may bear (``spiffe://…`` or DNS), none means any that the trust bundle signed.
    ``kept_stats``: further prefixes of statistics to make. ``telemetry_port``: of the same host.
    """

    name: ProxyName
    metadata: Mapping[str, Any] = field(default_factory=dict)
    admin_socket: str = "admin.sock"
    xds_host: str = "127.0.0.1"
    xds_port: int = XDS_PORT
    telemetry_port: int = TELEMETRY_PORT
    control_plane: tuple[str, ...] = ()
    health: Place | None = None
    prometheus: Place | None = None
    locality: tuple[str, str, str] = ("", "", "")
    kept_stats: tuple[str, ...] = ()


def _typed(name: str, **fields: Any) -> Json:
    return {"@type": _TYPE + name, **fields}


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    labels = metadata.get("LABELS")
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}


def environment(settings: Settings) -> dict[str, str]:
    """What metrics and traces say of this proxy: set it in Envoy's environment.

    So the configuration bears no name of the proxy, and proxies share its bytes.
    """
    labels = _labels(settings.metadata)
    workload = str(settings.metadata.get("WORKLOAD_NAME") or workload_name(labels, settings.name.name))
    service = canonical_name(labels, workload)
    revision = canonical_revision(labels)
    return {
        "WEFT_WORKLOAD": workload,
        "WEFT_NAMESPACE": settings.name.namespace,
        "WEFT_APP": labels.get("app") or _UNKNOWN,
        "WEFT_VERSION": labels.get("version") or _UNKNOWN,
        "WEFT_CLUSTER": labels.get(CLUSTER_LABEL) or str(settings.metadata.get("CLUSTER_ID") or _UNKNOWN),
        "WEFT_MESH": str(settings.metadata.get("MESH_ID") or _UNKNOWN),
        "WEFT_CANONICAL_SERVICE": service,
        "WEFT_CANONICAL_REVISION": revision,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(
            f"{key}={value}"
            for key, value in (
                ("service.name", f"{service}.{settings.name.namespace}"),
                ("service.namespace", settings.name.namespace),
                ("service.version", revision),
                ("service.instance.id", settings.name.name),
                ("weft.workload", workload),
                ("weft.kind", settings.name.kind),
            )
        ),
    }


def _node(settings: Settings) -> Json:
    name = settings.name
    region, zone, subzone = settings.locality
    return {
        "id": str(name),
        "cluster": f"{canonical_name(_labels(settings.metadata), name.name)}.{name.namespace}",
        "locality": {"region": region, "zone": zone, "sub_zone": subzone},
        "metadata": {"NAME": name.name, "NAMESPACE": name.namespace, **settings.metadata},
    }


def _ads(**limits: str) -> Json:
    return {"ads": {}, "resource_api_version": "V3", **limits}


def _dynamic() -> Json:
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": XDS_CLUSTER,
                        # Envoy's default would keep it away for up to 30 s after a restart.
                        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                    }
                }
            ],
        },
        # No time limit: a proxy without its configuration is not ready, and passes nothing.
        "cds_config": _ads(initial_fetch_timeout="0s"),
        "lds_config": _ads(initial_fetch_timeout="0s"),
    }


def _file_secret(name: str, file: str) -> Json:
    return {
        "name": name,
        "sds_config": {
            "path_config_source": {"path": file, "watched_directory": {"path": "."}},
            "resource_api_version": "V3",
        },
    }


def _names(names: Sequence[str]) -> list[Json]:
    return [
        {"san_type": "URI" if name.startswith("spiffe://") else "DNS", "matcher": {"exact": name}}
        for name in names
    ]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _cluster(name: str, address: Json, **fields: Any) -> Json:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **fields,
    }


def _control_plane(settings: Settings, name: str, port: int, **fields: Any) -> Json:
    """A port of the control plane's host, which shows the control plane's certificate."""
    keepalive = {"interval": "30s", "timeout": "10s"}
    return _cluster(
        name,
        {"socket_address": {"address": settings.xds_host, "port_value": port}},
        **fields,
        type="STATIC" if _is_address(settings.xds_host) else "STRICT_DNS",
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {"connection_keepalive": keepalive}},
            )
        },
        upstream_connection_options={"tcp_keepalive": {"keepalive_time": 60}},
        transport_socket={
            "name": "envoy.transport_sockets.tls",
            "typed_config": _typed(
                "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                sni="" if _is_address(settings.xds_host) else settings.xds_host,
                common_tls_context={
                    "alpn_protocols": ["h2"],
                    "tls_params": dict(CONTROL_PLANE_TLS),
                    "tls_certificate_sds_secret_configs": [
                        _file_secret(WORKLOAD_CERTIFICATE, WORKLOAD_CERTIFICATE_FILE)
                    ],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": _names(settings.control_plane)
                        },
                        "validation_context_sds_secret_config": _file_secret(
                            WORKLOAD_TRUST_BUNDLE, WORKLOAD_TRUST_BUNDLE_FILE
                        ),
                    },
                },
            ),
        },
    )


def _replicas(name: ProxyName) -> Json:
    """The local cluster. It has endpoints where zone-aware balancing or a shared rate limit needs them."""
    return {
        "name": LOCAL_CLUSTER,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {
            "service_name": local_endpoints(name.namespace, name.name),
            "eds_config": {"ads": {}, "initial_fetch_timeout": "5s", "resource_api_version": "V3"},
        },
    }


def _window(name: str, place: Place, path: str, admin_path: str) -> Json:
    """A listener that shows one page of the admin interface, read only."""
    route = {
        "match": {
            "path": path,
            "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
        },
        "route": {"cluster": _ADMIN_CLUSTER, "prefix_rewrite": admin_path},
    }
    manager = _typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed("envoy.extensions.filters.http.router.v3.Router"),
            }
        ],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": name,
        "address": {"socket_address": {"address": place.address, "port_value": place.port}},
        "enable_reuse_port": False,
        "filter_chains": [{"filters": filters}],
    }


def _static(settings: Settings) -> Json:
    admin = {"pipe": {"path": settings.admin_socket}}
    windows = (
        ("health", settings.health, "/healthz/ready", "/ready"),
        ("prometheus", settings.prometheus, "/stats/prometheus", "/stats/prometheus?usedonly"),
    )
    return {
        "listeners": [
            _window(name, place, path, admin_path) for name, place, path, admin_path in windows if place
        ],
        "clusters": [
            _cluster(_ADMIN_CLUSTER, admin, type="STATIC"),
            _control_plane(settings, XDS_CLUSTER, settings.xds_port),
            _control_plane(
                settings, TELEMETRY_CLUSTER, settings.telemetry_port, circuit_breakers={"thresholds": [_FEW]}
            ),
            _replicas(settings.name),
        ],
    }


def _statistics(settings: Settings) -> Json:
    patterns = [{"prefix": prefix} for prefix in (*_KEPT_PREFIXES, *settings.kept_stats)]
    patterns += [{"suffix": suffix} for suffix in _KEPT_SUFFIXES]
    buckets = (
        ("istio_request_duration_milliseconds", MILLISECONDS),
        ("istio_request_bytes", _BYTES),
        ("istio_response_bytes", _BYTES),
    )
    return {
        "stats_tags": [{"tag_name": name, "regex": pattern} for name, pattern in _TAGS.items()],
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        "histogram_bucket_settings": [
            {"match": {"prefix": prefix}, "buckets": list(bounds)} for prefix, bounds in buckets
        ],
    }


def common(settings: Settings) -> Json:
    """What every bootstrap has, wherever its resources come from."""
    return {
        "node": _node(settings),
        "admin": {"address": {"pipe": {"path": settings.admin_socket, "mode": _SOCKET_MODE}}},
        "layered_runtime": {
            "layers": [
                {"name": "weft", "static_layer": {"re2.max_program_size.error_level": _RE2_SIZE}},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "stats_config": _statistics(settings),
        "stats_flush_interval": "5s",
        "stats_eviction_interval": _EVICTION,
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }


def _push() -> Json:
    """What grew since the last flush goes to the telemetry process, without what it has no use for.

    Counters that did not grow are left out by Envoy; the gauge is in every message.
    """
    full_name = _typed("envoy.extensions.matching.common_inputs.stats.v3.StatFullNameMatchInput")
    ours = [
        {
            "single_predicate": {
                "input": {"name": "full_name", "typed_config": full_name},
                "value_match": {"prefix": prefix},
            }
        }
        for prefix in _PUSHED
    ]
    drop = _typed("envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig.DropAction")
    others = {
        "predicate": {"not_matcher": {"or_matcher": {"predicate": ours}}},
        "on_match": {"action": {"name": "drop", "typed_config": drop}},
    }
    sink = _typed(
        "envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig",
        grpc_service={"envoy_grpc": {"cluster_name": TELEMETRY_CLUSTER}, "timeout": "2s"},
        report_counters_as_deltas=True,
        report_histograms_as_deltas=True,
        custom_metric_conversions={"matcher_list": {"matchers": [others]}},
        resource_detectors=[
            {
                "name": "envoy.tracers.opentelemetry.resource_detectors.environment",
                "typed_config": _typed(
                    "envoy.extensions.tracers.opentelemetry.resource_detectors.v3"
                    ".EnvironmentResourceDetectorConfig"
                ),
            }
        ],
        max_data_points_per_request=_POINTS,
    )
    return {"name": "envoy.stat_sinks.open_telemetry", "typed_config": sink}


def bootstrap(settings: Settings) -> Json:
    """The bootstrap of a sidecar or gateway, for ``envoy -c``; the rest comes over ADS."""
    return {
        **common(settings),
        "cluster_manager": {
            "enable_deferred_cluster_creation": True,
            "local_cluster_name": LOCAL_CLUSTER,
        },
        "dynamic_resources": _dynamic(),
        "static_resources": _static(settings),
        "stats_sinks": [_push()],
    }
