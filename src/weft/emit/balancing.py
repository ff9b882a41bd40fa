"""How a cluster chooses an endpoint."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from weft.emit.scalars import duration, maybe_duration
from weft.ir.cluster import Algorithm, LoadBalancing
from weft.protos import (
    client_side_wrr_v3,
    cluster_v3,
    core_v3,
    lb_common_v3,
    type_v3,
    wrr_locality_v3,
)
from weft.protos.wire import pack

_BY_LOAD: Final = "envoy.load_balancing_policies.client_side_weighted_round_robin"
_PLACES: Final = "envoy.load_balancing_policies.wrr_locality"

# Envoy's own largest ring; it refuses a cluster that asks for more.
_RING_MAX: Final = 8_388_608


def balance(made: cluster_v3.Cluster, rule: LoadBalancing) -> None:
    """Say it in the cluster ``made``, whose name is set."""
    policy = cluster_v3.Cluster.LbPolicy
    match rule.algorithm:
        case Algorithm.ROUND_ROBIN:
            made.lb_policy = policy.ROUND_ROBIN
            if rule.warm_up is not None:
                _warm_up(made.round_robin_lb_config.slow_start_config, rule, made.name)
        case Algorithm.LEAST_REQUEST:
            made.lb_policy = policy.LEAST_REQUEST
            if rule.warm_up is not None:
                _warm_up(made.least_request_lb_config.slow_start_config, rule, made.name)
        case Algorithm.RANDOM:
            made.lb_policy = policy.RANDOM
        case Algorithm.RING_HASH:
            made.lb_policy = policy.RING_HASH
            if rule.ring_minimum is not None:
                made.ring_hash_lb_config.minimum_ring_size.value = min(rule.ring_minimum, _RING_MAX)
        case Algorithm.MAGLEV:
            made.lb_policy = policy.MAGLEV
            if rule.table_size is not None:
                made.maglev_lb_config.table_size.value = rule.table_size
        case Algorithm.REPORTED_LOAD:
            made.load_balancing_policy.CopyFrom(_by_load(rule, made.name))
        case Algorithm.PROVIDED:
            made.lb_policy = policy.CLUSTER_PROVIDED
            return
    # Istio's default: no panic, so that traffic never goes to endpoints known to be bad.
    made.common_lb_config.healthy_panic_threshold.CopyFrom(type_v3.Percent(value=rule.panic_percent or 0))
    if rule.keeps_draining:
        status = core_v3.HealthStatus
        kept = (status.HEALTHY, status.DRAINING, status.UNKNOWN, status.DEGRADED)
        made.common_lb_config.override_host_status.statuses.extend(kept)
    if rule.algorithm is not Algorithm.REPORTED_LOAD:
        _places(made, rule)


def _places(made: cluster_v3.Cluster, rule: LoadBalancing) -> None:
    """Shares by zones as Envoy knows them, or by the weights of places."""
    if rule.zone_aware is not None:
        zones = made.common_lb_config.zone_aware_lb_config
        zones.SetInParent()
        if not rule.zone_aware.enabled:
            zones.routing_enabled.CopyFrom(type_v3.Percent(value=0))
        if rule.zone_aware.min_hosts is not None:
            zones.min_cluster_size.value = rule.zone_aware.min_hosts
    elif rule.locality_weighted:
        made.common_lb_config.locality_weighted_lb_config.SetInParent()


def _warm_up(
    config: cluster_v3.Cluster.SlowStartConfig | lb_common_v3.SlowStartConfig, rule: LoadBalancing, name: str
) -> None:
    if rule.warm_up is not None:
        config.slow_start_window.CopyFrom(duration(rule.warm_up))
    if rule.warm_up_minimum_percent is not None:
        config.min_weight_percent.CopyFrom(type_v3.Percent(value=rule.warm_up_minimum_percent))
    if rule.warm_up_aggression is not None:
        config.aggression.CopyFrom(
            core_v3.RuntimeDouble(default_value=rule.warm_up_aggression, runtime_key=f"{name}.aggression")
        )


def _by_load(rule: LoadBalancing, name: str) -> cluster_v3.LoadBalancingPolicy:
    """Turns by reported load. Around it, where places have weights, the choice of the place."""
    reported = rule.reported
    config = client_side_wrr_v3.ClientSideWeightedRoundRobin(
        blackout_period=maybe_duration(reported.settled_after),
        weight_expiration_period=maybe_duration(reported.forgotten_after),
        weight_update_period=maybe_duration(reported.period),
        metric_names_for_computing_utilization=reported.metrics,
    )
    if reported.error_penalty is not None:
        config.error_utilization_penalty.value = reported.error_penalty
    if rule.warm_up is not None:
        _warm_up(config.slow_start_config, rule, name)
    policy = _listed(_BY_LOAD, config)
    if rule.locality_weighted:
        return _listed(_PLACES, wrr_locality_v3.WrrLocality(endpoint_picking_policy=policy))
    return policy


def _listed(name: str, config: Message) -> cluster_v3.LoadBalancingPolicy:
    extension = core_v3.TypedExtensionConfig(name=name, typed_config=pack(config))
    policy = cluster_v3.LoadBalancingPolicy.Policy(typed_extension_config=extension)
    return cluster_v3.LoadBalancingPolicy(policies=[policy])
