"""The only door to protobuf: ``from weft.protos import cluster_v3``, then ``cluster_v3.Cluster(name=...)``.

Messages come from the descriptors that the installed Envoy carries. Importing this module reads nothing; the
first message that is used does. The type checker sees the stubs that ``python -m weft.protos.stubs`` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.protos.packages import PACKAGES

if TYPE_CHECKING:
    from weft_stubs import accesslog_data_v3 as accesslog_data_v3
    from weft_stubs import accesslog_v3 as accesslog_v3
    from weft_stubs import admin_v3 as admin_v3
    from weft_stubs import bootstrap_v3 as bootstrap_v3
    from weft_stubs import cel_filter_v3 as cel_filter_v3
    from weft_stubs import client_side_wrr_v3 as client_side_wrr_v3
    from weft_stubs import cluster_provided_v3 as cluster_provided_v3
    from weft_stubs import cluster_v3 as cluster_v3
    from weft_stubs import consistent_hashing_v3 as consistent_hashing_v3
    from weft_stubs import core_v3 as core_v3
    from weft_stubs import cors_v3 as cors_v3
    from weft_stubs import discovery_v3 as discovery_v3
    from weft_stubs import early_header_mutation_v3 as early_header_mutation_v3
    from weft_stubs import endpoint_v3 as endpoint_v3
    from weft_stubs import ext_authz_network_v3 as ext_authz_network_v3
    from weft_stubs import ext_authz_v3 as ext_authz_v3
    from weft_stubs import external_auth_v3 as external_auth_v3
    from weft_stubs import fault_common_v3 as fault_common_v3
    from weft_stubs import fault_v3 as fault_v3
    from weft_stubs import file_log_v3 as file_log_v3
    from weft_stubs import formatter_cel_v3 as formatter_cel_v3
    from weft_stubs import formatter_req_without_query_v3 as formatter_req_without_query_v3
    from weft_stubs import forward_proxy_cache_v3 as forward_proxy_cache_v3
    from weft_stubs import forward_proxy_cluster_v3 as forward_proxy_cluster_v3
    from weft_stubs import forward_proxy_v3 as forward_proxy_v3
    from weft_stubs import grpc_log_v3 as grpc_log_v3
    from weft_stubs import grpc_stats_v3 as grpc_stats_v3
    from weft_stubs import hcm_v3 as hcm_v3
    from weft_stubs import health_check_v3 as health_check_v3
    from weft_stubs import http_inspector_v3 as http_inspector_v3
    from weft_stubs import http_protocols_v3 as http_protocols_v3
    from weft_stubs import http_type_v3 as http_type_v3
    from weft_stubs import jwt_authn_v3 as jwt_authn_v3
    from weft_stubs import lb_common_v3 as lb_common_v3
    from weft_stubs import least_request_v3 as least_request_v3
    from weft_stubs import listener_v3 as listener_v3
    from weft_stubs import local_ratelimit_v3 as local_ratelimit_v3
    from weft_stubs import lua_v3 as lua_v3
    from weft_stubs import maglev_v3 as maglev_v3
    from weft_stubs import match_action_v3 as match_action_v3
    from weft_stubs import match_delegate_v3 as match_delegate_v3
    from weft_stubs import matcher_v3 as matcher_v3
    from weft_stubs import metadata_v3 as metadata_v3
    from weft_stubs import mutation_rules_v3 as mutation_rules_v3
    from weft_stubs import network_inputs_v3 as network_inputs_v3
    from weft_stubs import network_set_filter_state_v3 as network_set_filter_state_v3
    from weft_stubs import omit_canary_hosts_v3 as omit_canary_hosts_v3
    from weft_stubs import on_demand_v3 as on_demand_v3
    from weft_stubs import original_dst_v3 as original_dst_v3
    from weft_stubs import otel_log_v3 as otel_log_v3
    from weft_stubs import otel_samplers_v3 as otel_samplers_v3
    from weft_stubs import otlp_common_v1 as otlp_common_v1
    from weft_stubs import otlp_logs_service_v1 as otlp_logs_service_v1
    from weft_stubs import otlp_logs_v1 as otlp_logs_v1
    from weft_stubs import otlp_metrics_service_v1 as otlp_metrics_service_v1
    from weft_stubs import otlp_metrics_v1 as otlp_metrics_v1
    from weft_stubs import otlp_resource_v1 as otlp_resource_v1
    from weft_stubs import otlp_trace_service_v1 as otlp_trace_service_v1
    from weft_stubs import otlp_trace_v1 as otlp_trace_v1
    from weft_stubs import preserve_case_v3 as preserve_case_v3
    from weft_stubs import previous_hosts_v3 as previous_hosts_v3
    from weft_stubs import previous_priorities_v3 as previous_priorities_v3
    from weft_stubs import proxy_header_v3 as proxy_header_v3
    from weft_stubs import proxy_protocol_v3 as proxy_protocol_v3
    from weft_stubs import quic_v3 as quic_v3
    from weft_stubs import random_v3 as random_v3
    from weft_stubs import rate_limit_expr_v3 as rate_limit_expr_v3
    from weft_stubs import ratelimit_common_v3 as ratelimit_common_v3
    from weft_stubs import ratelimit_config_v3 as ratelimit_config_v3
    from weft_stubs import ratelimit_service_v3 as ratelimit_service_v3
    from weft_stubs import ratelimit_v3 as ratelimit_v3
    from weft_stubs import raw_buffer_v3 as raw_buffer_v3
    from weft_stubs import rbac_filter_v3 as rbac_filter_v3
    from weft_stubs import rbac_network_v3 as rbac_network_v3
    from weft_stubs import rbac_v3 as rbac_v3
    from weft_stubs import resource_detectors_v3 as resource_detectors_v3
    from weft_stubs import ring_hash_v3 as ring_hash_v3
    from weft_stubs import round_robin_v3 as round_robin_v3
    from weft_stubs import route_v3 as route_v3
    from weft_stubs import router_v3 as router_v3
    from weft_stubs import rpc as rpc
    from weft_stubs import session_cookie_v3 as session_cookie_v3
    from weft_stubs import session_header_v3 as session_header_v3
    from weft_stubs import set_filter_state_v3 as set_filter_state_v3
    from weft_stubs import sni_forward_proxy_v3 as sni_forward_proxy_v3
    from weft_stubs import ssl_inputs_v3 as ssl_inputs_v3
    from weft_stubs import stateful_session_v3 as stateful_session_v3
    from weft_stubs import stats_log_v3 as stats_log_v3
    from weft_stubs import tap_match_v3 as tap_match_v3
    from weft_stubs import tcp_proxy_v3 as tcp_proxy_v3
    from weft_stubs import tls_inspector_v3 as tls_inspector_v3
    from weft_stubs import tls_v3 as tls_v3
    from weft_stubs import trace_v3 as trace_v3
    from weft_stubs import tracing_v3 as tracing_v3
    from weft_stubs import type_v3 as type_v3
    from weft_stubs import udp_proxy_v3 as udp_proxy_v3
    from weft_stubs import uri_template_match_v3 as uri_template_match_v3
    from weft_stubs import uri_template_rewrite_v3 as uri_template_rewrite_v3
    from weft_stubs import uuid_v3 as uuid_v3
    from weft_stubs import well_known as well_known
    from weft_stubs import wrr_locality_v3 as wrr_locality_v3
    from weft_stubs import xds_core_v3 as xds_core_v3
    from weft_stubs import xds_matcher_v3 as xds_matcher_v3
    from weft_stubs import xff_v3 as xff_v3

__all__ = [*PACKAGES]


def __getattr__(name: str) -> object:
    if name not in PACKAGES:
        raise AttributeError(f"weft.protos has no {name!r}: a package needs a row in weft/protos/packages.py")
    from weft.protos.pool import package

    globals()[name] = value = package(name)
    return value
