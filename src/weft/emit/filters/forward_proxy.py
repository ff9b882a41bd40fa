"""Looks up the host that a request names, for clusters that have no endpoints of their own.

Requests to other clusters pass through it untouched.
"""

from __future__ import annotations

from typing import Final

from weft.ir.listener import HttpHandler
from weft.protos import cluster_v3, forward_proxy_cache_v3, forward_proxy_v3

NAME: Final = "envoy.filters.http.dynamic_forward_proxy"


def name_cache() -> forward_proxy_cache_v3.DnsCacheConfig:
    """The addresses that the filter finds and the clusters connect to. Envoy knows it by its name."""
    return forward_proxy_cache_v3.DnsCacheConfig(
        name="forward-proxy", dns_lookup_family=cluster_v3.Cluster.DnsLookupFamily.V4_PREFERRED
    )


def base() -> forward_proxy_v3.FilterConfig:
    """With the cache that the clusters read."""
    return forward_proxy_v3.FilterConfig(dns_cache_config=name_cache())


def wanted(unit: HttpHandler) -> bool:
    """Only where clients say themselves where they want to go."""
    return unit.explicit_proxy or unit.looks_up
