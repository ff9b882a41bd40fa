"""DestinationRule: which rule holds, and what its policies mean."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from datetime import timedelta
from textwrap import indent

import pytest
from tests.support.compiled import cluster, forward, host, proxy, service, table, world

from weft import ir

WEB = service("web", namespace="shop")
NAME = "outbound|80||web.shop.svc.cluster.local"
NODE = "sidecar~10.9.9.9~client.default"


def rule(
    policy: str,
    *,
    name: str = "web",
    namespace: str = "shop",
    of: str = "web.shop.svc.cluster.local",
    more: str = "",
) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  host: {of}\n{indent(more, '  ')}\n"
        f"  trafficPolicy: {policy}\n"
    )


def made(*rules: str, labels: dict[str, str] | None = None) -> ir.Cluster:
    return cluster(proxy(world(WEB, *rules), NODE, labels=labels), NAME)


def balancer(name: str) -> str:
    return f"{{loadBalancer: {{simple: {name}}}}}"


RANDOM, ROUND, LEAST = ir.Algorithm.RANDOM, ir.Algorithm.ROUND_ROBIN, ir.Algorithm.LEAST_REQUEST


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ((), LEAST),
        ((rule(balancer("RANDOM")),), RANDOM),
        ((rule(balancer("RANDOM")), rule(balancer("ROUND_ROBIN"), namespace="default")), ROUND),
        ((rule(balancer("RANDOM")), rule(balancer("ROUND_ROBIN"), namespace="istio-system")), RANDOM),
        ((rule(balancer("RANDOM"), namespace="istio-system"),), RANDOM),
        ((rule(balancer("RANDOM"), namespace="elsewhere"),), LEAST),
        ((rule(balancer("RANDOM"), more='exportTo: ["."]'),), LEAST),
        (
            (
                rule(balancer("RANDOM")),
                rule(balancer("ROUND_ROBIN"), name="wide", of='"*.shop.svc.cluster.local"'),
            ),
            RANDOM,
        ),
        ((rule(balancer("ROUND_ROBIN"), name="wide", of='"*.local"'),), ROUND),
        (
            (
                rule(
                    balancer("RANDOM"),
                    namespace="default",
                    more="workloadSelector: {matchLabels: {app: client}}",
                ),
            ),
            RANDOM,
        ),
        (
            (
                rule(
                    balancer("RANDOM"), namespace="default", more="workloadSelector: {matchLabels: {app: x}}"
                ),
            ),
            LEAST,
        ),
    ],
    ids=[
        "none",
        "service",
        "client first",
        "service before root",
        "root",
        "elsewhere",
        "private",
        "exact",
        "wildcard",
        "selected",
        "not selected",
    ],
)
def test_which_rule_holds(rules: tuple[str, ...], wanted: ir.Algorithm) -> None:
    assert made(*rules, labels={"app": "client"}).balancing.algorithm is wanted


def test_port_settings_replace_all_and_subsets_overlay() -> None:
    more = """
subsets:
- {name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}
- {name: v2, labels: {version: v2}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]}}
"""
    policy = "{loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 5}}}"
    of = proxy(world(WEB, rule(policy, more=more)), NODE)
    v1 = cluster(of, "outbound|80|v1|web.shop.svc.cluster.local")
    assert (v1.balancing.algorithm, v1.connections.max_connections) == (RANDOM, 7)
    v2 = cluster(of, "outbound|80|v2|web.shop.svc.cluster.local")
    assert (v2.balancing.algorithm, v2.connections.max_connections) == (ROUND, None)
    port = "{loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}"
    only = made(rule(port))
    assert only.balancing.algorithm is LEAST
    assert only.tls is None


@pytest.mark.parametrize(
    ("tls", "wanted"),
    [
        ("{mode: DISABLE}", None),
        ("{mode: ISTIO_MUTUAL}", "outbound_.80_._.web.shop.svc.cluster.local"),
        ("{mode: ISTIO_MUTUAL, sni: x.example}", "x.example"),
        ("{mode: SIMPLE, sni: x.example}", "x.example"),
    ],
)
def test_tls_modes(tls: str, wanted: str | None) -> None:
    found = made(rule(f"{{tls: {tls}}}"))
    assert (found.tls.sni if found.tls else None) == wanted
    assert found.mutual is ir.MutualTls.ALWAYS


def test_mutual_tls_by_files_and_names() -> None:
    found = made(
        rule(
            "{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, subjectAltNames: [x.example]}}"
        )
    ).tls
    assert found is not None
    assert found.certificate is not None
    assert (found.certificate.certificate_path, found.certificate.key_path) == ("/c", "/k")
    assert found.trust is not None
    assert found.trust.bundle_path == "/ca"
    assert [name.value for name in found.peer_names] == ["x.example"]
    assert found.sni_from_host


def test_connection_pools_and_outliers() -> None:
    found = made(
        rule(
            "{connectionPool: {tcp: {connectTimeout: 2s, tcpKeepalive: {time: 60s}}, http: {http1MaxPendingRequests: 1,"
            " http2MaxRequests: 2, maxRetries: 3, maxRequestsPerConnection: 4, idleTimeout: 5s}},"
            " outlierDetection: {consecutiveGatewayErrors: 2, interval: 1s, maxEjectionPercent: 50}}"
        )
    )
    assert found.connections == ir.Connections(
        connect_timeout=timedelta(seconds=2),
        max_pending_requests=1,
        max_requests=2,
        max_retries=3,
        max_requests_per_connection=4,
        idle_timeout=timedelta(seconds=5),
        keepalive=ir.Keepalive(time=timedelta(seconds=60)),
    )
    assert found.outlier == ir.OutlierDetection(
        interval=timedelta(seconds=1),
        max_ejection_percent=50,
        consecutive_5xx=5,
        consecutive_gateway_errors=2,
    )


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("h2UpgradePolicy: UPGRADE", ir.UpstreamProtocol.HTTP2),
        ("h2UpgradePolicy: DO_NOT_UPGRADE", ir.UpstreamProtocol.HTTP1),
        ("useClientProtocol: true", ir.UpstreamProtocol.AS_RECEIVED),
    ],
)
def test_what_is_spoken(policy: str, wanted: ir.UpstreamProtocol) -> None:
    assert made(rule(f"{{connectionPool: {{http: {{{policy}}}}}}}")).protocol is wanted


def test_a_consistent_hash_is_on_the_route_and_the_cluster() -> None:
    text = rule(
        "{loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 3s}, maglev: {tableSize: 1009}}}}"
    )
    of = proxy(world(WEB, text), NODE)
    found = cluster(of, NAME).balancing
    assert (found.algorithm, found.table_size) == (ir.Algorithm.MAGLEV, 1009)
    action = forward(host(table(of, "80"), "web.shop").routes[0])
    assert action.hash_on == (ir.HashOn(cookie="c", cookie_ttl=timedelta(seconds=3)),)
    assert action.retry is not None
    assert not action.retry.avoid_previous_hosts


def test_a_retry_budget_has_istios_defaults() -> None:
    found = made(rule("{retryBudget: {percent: 30}}")).connections
    assert (found.retry_budget_percent, found.retry_budget_min_concurrency) == (30, 3)


def test_warm_up() -> None:
    found = made(rule("{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}}")).balancing
    assert (found.warm_up, found.warm_up_minimum_percent, found.warm_up_aggression) == (
        timedelta(seconds=30),
        10,
        1,
    )
