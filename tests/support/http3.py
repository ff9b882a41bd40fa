"""A client that speaks HTTP/3: an Envoy."""

from __future__ import annotations

from typing import Any

from tests.support.certificates import TestAuthority


def http3_client(port: int, to: int, sni: str, authority: TestAuthority) -> dict[str, Any]:
    """The bootstrap of an Envoy that takes plain HTTP at ``port`` and carries it by HTTP/3 to port ``to``."""
    kind = "type.googleapis.com/envoy.extensions"
    tls = {
        "sni": sni,
        "common_tls_context": {"validation_context": {"trusted_ca": {"inline_string": authority.pem}}},
    }

    def at(number: int, protocol: str) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number, "protocol": protocol}}

    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "edge"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {"endpoint": {"address": at(to, "UDP")}}
    cluster = {
        "name": "edge",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "edge", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http3_protocol_options": {}},
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.quic",
            "typed_config": {
                "@type": f"{kind}.transport_sockets.quic.v3.QuicUpstreamTransport",
                "upstream_tls_context": tls,
            },
        },
    }
    return {
        "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "static_resources": {
            "listeners": [
                {"name": "client", "address": at(port, "TCP"), "filter_chains": [{"filters": filters}]}
            ],
            "clusters": [cluster],
        },
    }
