"""What a traffic policy means: each part, how parts are inherited, and what the mesh says where none does."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.compiled import cluster, listener, proxy, service, world

from weft import ir
from weft.compile.world import World

WEB = service("web")
NAME = "outbound|80||web.default.svc.cluster.local"
SUBSET = "outbound|80|v1|web.default.svc.cluster.local"
GATEWAY = "router~10.9.9.9~edge.default"


def rule(policy: str = "", subset: str = "", host: str = "web", more: str = "") -> str:
    whole = f"  trafficPolicy: {policy}\n" if policy else ""
    part = f", trafficPolicy: {subset}" if subset else ""
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n"
        f"  host: {host}\n{whole}  subsets: [{{name: v1{part}}}]\n{more}"
    )


def mesh(spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default, namespace: istio-system}}\nspec: {spec}\n"


def made(*texts: str, name: str = NAME, node: str = "sidecar~10.9.9.9~client.default") -> ir.Cluster:
    return cluster(proxy(world(*texts), node), name)


def test_budgets_pings_and_keepalive() -> None:
    found = made(
        WEB,
        rule(
            "{retryBudget: {percent: 12.5, budgetInterval: 3s}, connectionPool: {http: {http2KeepAlive: {interval: 9s, timeout: 2s}}, tcp: {tcpKeepalive: {time: 60s}}}}"
        ),
        mesh("{tcpKeepalive: {time: 100s, probes: 4}, connectTimeout: 3s}"),
    ).connections
    assert (found.retry_budget_percent, found.retry_budget_min_concurrency) == (12.5, 3)
    assert found.retry_budget_interval == timedelta(seconds=3)
    assert found.ping == ir.Ping(interval=timedelta(seconds=9), timeout=timedelta(seconds=2))
    assert found.keepalive == ir.Keepalive(probes=4, time=timedelta(seconds=60))
    assert found.connect_timeout == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("detection", "wanted"),
    [
        ("{}", {"consecutive_5xx": 5}),
        ("{consecutive5xxErrors: 0}", {"consecutive_5xx": None}),
        ("{consecutiveGatewayErrors: 3}", {"consecutive_5xx": 5, "consecutive_gateway_errors": 3}),
        ("{consecutiveErrors: 3}", {"consecutive_5xx": 5, "consecutive_gateway_errors": None}),
        (
            "{splitExternalLocalOriginErrors: true}",
            {"consecutive_local_failures": 5, "split_local_errors": True},
        ),
        (
            "{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}",
            {"consecutive_local_failures": 2},
        ),
        ("{outlierDetectionHttpErrorCodes: [429]}", {"http_codes": (429,)}),
        ("{minHealthPercent: 30}", {"min_health_percent": 30}),
    ],
)
def test_outlier_detection(detection: str, wanted: dict[str, Any]) -> None:
    found = made(WEB, rule(f"{{outlierDetection: {detection}}}")).outlier
    assert found is not None
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("hashing", "algorithm", "ring", "table"),
    [
        ("httpHeaderName: x", ir.Algorithm.RING_HASH, 1024, None),
        ("httpHeaderName: x, minimumRingSize: 7", ir.Algorithm.RING_HASH, 7, None),
        ("httpHeaderName: x, ringHash: {}", ir.Algorithm.RING_HASH, None, None),
        ("httpHeaderName: x, ringHash: {minimumRingSize: 9}", ir.Algorithm.RING_HASH, 9, None),
        ("httpHeaderName: x, maglev: {tableSize: 101}", ir.Algorithm.MAGLEV, None, 101),
    ],
)
def test_tables_of_a_consistent_hash(
    hashing: str, algorithm: ir.Algorithm, ring: int | None, table: int | None
) -> None:
    found = made(WEB, rule(f"{{loadBalancer: {{consistentHash: {{{hashing}}}}}}}")).balancing
    assert (found.algorithm, found.ring_minimum, found.table_size) == (algorithm, ring, table)


def test_what_endpoints_report_becomes_their_weight() -> None:
    reports = "{errorUtilizationPenaltyPercent: 50, weightUpdatePeriod: 1ms, weightExpirationPeriod: 9s}"
    near = "localityLbSetting: {distribute: [{from: a, to: {a: 100}}]}"
    found = made(WEB, rule(f"{{loadBalancer: {{backendUtilization: {reports}, {near}}}}}")).balancing
    assert (found.algorithm, found.locality_weighted) == (ir.Algorithm.REPORTED_LOAD, True)
    assert found.reported == ir.ReportedLoad(
        error_penalty=0.5, forgotten_after=timedelta(seconds=9), period=timedelta(milliseconds=100)
    )


def test_a_port_of_a_subset_replaces_all_but_what_ports_cannot_say() -> None:
    own = "{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}"
    base = "{retryBudget: {percent: 50}, proxyProtocol: {}, outlierDetection: {}, connectionPool: {tcp: {maxConnections: 1}}}"
    found = made(WEB, rule(base, own), name=SUBSET)
    assert found.balancing.algorithm is ir.Algorithm.RANDOM
    assert found.outlier is None
    assert found.connections.max_connections is None
    assert found.connections.retry_budget_percent == 50
    assert found.proxy_header is ir.ProxyHeader.V1
    ported = "{retryBudget: {percent: 50}, portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}"
    assert made(WEB, rule(ported)).connections.retry_budget_percent is None
    assert made(WEB, rule(ported), name=SUBSET).outlier is not None


DEFAULTS = mesh(
    "{defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}, outlierDetection: {consecutive5xxErrors: 7}}}"
)


@pytest.mark.parametrize(
    ("http", "own", "protocol"),
    [
        ("{h2UpgradePolicy: UPGRADE}", "", ir.UpstreamProtocol.HTTP2),
        (
            "{h2UpgradePolicy: UPGRADE}",
            "{connectionPool: {tcp: {maxConnections: 1}}}",
            ir.UpstreamProtocol.HTTP1,
        ),
        ("{useClientProtocol: true}", "{outlierDetection: {}}", ir.UpstreamProtocol.AS_RECEIVED),
    ],
)
def test_the_meshs_policy_says_the_protocol_where_no_rule_has_a_pool(
    http: str, own: str, protocol: ir.UpstreamProtocol
) -> None:
    default = mesh(f"{{defaultTrafficPolicy: {{connectionPool: {{http: {http}}}}}}}")
    assert made(WEB, default, *([rule(own)] if own else [])).protocol is protocol


@pytest.mark.parametrize(
    ("policy", "connections", "errors"),
    [
        (None, 9, 7),
        ("{loadBalancer: {simple: RANDOM}}", 9, 7),
        ("{connectionPool: {tcp: {connectTimeout: 1s}}}", None, 7),
        ("{outlierDetection: {consecutive5xxErrors: 2}}", 9, 2),
        ("{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}", 9, 7),
    ],
)
def test_the_meshs_policy_fills_in_for_whole_blocks(
    policy: str | None, connections: int | None, errors: int
) -> None:
    texts = (WEB, DEFAULTS) if policy is None else (WEB, DEFAULTS, rule(policy))
    found = made(*texts)
    assert found.connections.max_connections == connections
    assert found.outlier is not None
    assert found.outlier.consecutive_5xx == errors


def test_the_meshs_policy_caps_what_nobody_knows_and_no_port_of_a_subset() -> None:
    of = proxy(world(WEB, DEFAULTS))
    assert cluster(of, "PassthroughCluster").connections.max_connections == 9
    own = "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}"
    found = made(WEB, DEFAULTS, rule(subset=own), name=SUBSET)
    assert found.connections.max_connections is None
    assert found.outlier is None


def gateway(of: World) -> ir.Proxy:
    return proxy(of, GATEWAY)


@pytest.mark.parametrize(
    ("port", "pool", "sidecar", "router"),
    [
        ("http", "", ir.UpstreamProtocol.HTTP1, ir.UpstreamProtocol.HTTP1),
        ("http", "{h2UpgradePolicy: UPGRADE}", ir.UpstreamProtocol.HTTP2, ir.UpstreamProtocol.HTTP2),
        (
            "grpc",
            "{useClientProtocol: true}",
            ir.UpstreamProtocol.AS_RECEIVED,
            ir.UpstreamProtocol.AS_RECEIVED,
        ),
        ("web", "", ir.UpstreamProtocol.AS_RECEIVED, ir.UpstreamProtocol.HTTP1),
        ("web", "{h2UpgradePolicy: UPGRADE}", ir.UpstreamProtocol.AS_RECEIVED, ir.UpstreamProtocol.HTTP2),
        ("tcp", "{useClientProtocol: true}", ir.UpstreamProtocol.TCP, ir.UpstreamProtocol.TCP),
    ],
)
def test_the_version_of_http(
    port: str, pool: str, sidecar: ir.UpstreamProtocol, router: ir.UpstreamProtocol
) -> None:
    policy = f"{{connectionPool: {{http: {pool}}}}}" if pool else ""
    of = world(service("web", port_name=port), rule(policy))
    assert cluster(proxy(of), NAME).protocol is sidecar
    assert cluster(gateway(of), NAME).protocol is router


def test_a_credential_is_the_gateways_own_and_nothing_to_a_sidecar() -> None:
    tls = "{tls: {mode: MUTUAL, credentialName: partner, sni: x.example}}"
    of = world(WEB, rule(tls))
    found = cluster(proxy(of, "router~10.9.9.9~edge.istio-system"), NAME).tls
    assert found is not None
    assert found.certificate is not None
    assert found.certificate.name == "kubernetes-gateway://istio-system/partner"
    assert found.trust is not None
    assert found.trust.name == "kubernetes-gateway://istio-system/partner-cacert"
    assert cluster(proxy(of), NAME).tls is None
    named = world(WEB, rule(tls, more="  workloadSelector: {matchLabels: {app: client}}\n"))
    assert cluster(proxy(named, labels={"app": "client"}), NAME).tls is not None


@pytest.mark.parametrize(
    ("tls", "by_host", "verified"),
    [
        ("{mode: SIMPLE}", True, True),
        ("{mode: SIMPLE, subjectAltNames: [a.example]}", False, True),
        ("{mode: SIMPLE, insecureSkipVerify: true}", True, False),
    ],
)
def test_names_are_the_hosts_unless_others_are_given(tls: str, by_host: bool, verified: bool) -> None:
    found = made(WEB, rule(f"{{tls: {tls}}}")).tls
    assert found is not None
    assert found.sni_from_host
    assert found.san_from_host is by_host
    assert (found.trust is not None) is verified


def test_revocation_lists_stand_beside_the_authorities() -> None:
    found = made(WEB, rule("{tls: {mode: SIMPLE, caCrl: /r.pem}}")).tls
    assert found is not None
    assert found.trust is not None
    assert (found.trust.source, found.trust.revoked_path) == (ir.SecretFrom.SYSTEM, "/r.pem")


TCP = service("queue", 7000, port_name="tcp", clusterIP="10.96.0.9")
ROUTED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: queue}
spec:
  hosts: [queue]
  tcp: [{route: [{destination: {host: queue, subset: v1}}]}]
"""


def stream(*texts: str) -> ir.TcpHandler:
    (chain,) = listener(proxy(world(TCP, *texts)), "10.96.0.9_7000").chains
    assert isinstance(chain.handler, ir.TcpHandler)
    return chain.handler


def test_connections_as_a_whole_obey_the_hosts_policy() -> None:
    policy = "{connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 60s}}, loadBalancer: {consistentHash: {useSourceIp: true}}, tunnel: {targetHost: in.example, targetPort: 1}}"
    found = stream(rule(policy, host="queue"))
    assert (found.idle_timeout, found.max_duration) == (timedelta(seconds=5), timedelta(seconds=60))
    assert found.hash_source_ip
    assert found.tunnel == ir.Tunnel(to="in.example:1")
    part = stream(rule(policy, "{loadBalancer: {simple: RANDOM}}", host="queue"), ROUTED)
    assert part.destinations[0].cluster == "outbound|7000|v1|queue.default.svc.cluster.local"
    assert part.idle_timeout == timedelta(seconds=5)
    assert not part.hash_source_ip
    assert part.tunnel is None
    own = stream(
        rule("", "{tunnel: {targetHost: '::1', targetPort: 2, protocol: POST}}", host="queue"), ROUTED
    )
    assert own.tunnel == ir.Tunnel(to="[::1]:2", post=True)


@pytest.mark.parametrize(("labels", "found"), [("", ("api.example",)), (", labels: {a: b}", ())])
def test_a_name_without_endpoints_is_of_no_subset_with_labels(labels: str, found: tuple[str, ...]) -> None:
    entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, labels: {a: b}}\nspec: {hosts: [api.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n"
    split = f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec: {{host: api.example, subsets: [{{name: v1{labels}}}]}}\n"
    made_of = made(entry, split, name="outbound|80|v1|api.example")
    assert tuple(endpoint.address for endpoint in made_of.endpoints) == found


PASSES = "{loadBalancer: {simple: PASSTHROUGH}}"
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, annotations: {istio.io/connect-strategy: race_first_tcp_connect}}
spec: {hosts: [api.example], resolution: RESOLUTION, ports: [{number: 80, name: http, protocol: HTTP}], addresses: [ADDRESS], endpoints: [{address: LISTED}]}
"""


@pytest.mark.parametrize(
    ("resolution", "address", "listed", "node", "discovery", "algorithm"),
    [
        ("STATIC", "192.0.2.1", "10.4.0.1", "", ir.Discovery.ORIGINAL_DST, ir.Algorithm.PROVIDED),
        ("STATIC", "192.0.2.1", "10.4.0.1", GATEWAY, ir.Discovery.EDS, ir.Algorithm.LEAST_REQUEST),
        ("DNS", "192.0.2.1", "a.example", "", ir.Discovery.ORIGINAL_DST, ir.Algorithm.PROVIDED),
        ("DNS", "240.240.7.7", "a.example", "", ir.Discovery.LOGICAL_DNS, ir.Algorithm.LEAST_REQUEST),
        ("DNS", "192.0.2.1", "a.example", GATEWAY, ir.Discovery.LOGICAL_DNS, ir.Algorithm.LEAST_REQUEST),
    ],
)
def test_connections_are_passed_through_where_that_leads_somewhere(
    resolution: str,
    address: str,
    listed: str,
    node: str,
    discovery: ir.Discovery,
    algorithm: ir.Algorithm,
) -> None:
    entry = ENTRY.replace("RESOLUTION", resolution).replace("ADDRESS", address).replace("LISTED", listed)
    found = made(
        entry,
        rule(PASSES, host="api.example"),
        name="outbound|80||api.example",
        node=node or "sidecar~10.9.9.9~client.default",
    )
    assert (found.discovery, found.balancing.algorithm) == (discovery, algorithm)
    assert found.races is (discovery is ir.Discovery.LOGICAL_DNS)


def test_several_names_are_no_race() -> None:
    entry = ENTRY.replace("RESOLUTION", "DNS").replace("ADDRESS", "192.0.2.1")
    entry = entry.replace("{address: LISTED}", "{address: a.example}, {address: b.example}")
    found = made(entry, name="outbound|80||api.example")
    assert (found.discovery, found.races) == (ir.Discovery.STRICT_DNS, False)


def test_a_service_may_name_who_serves() -> None:
    noted = "{name: web, annotations: {alpha.istio.io/canonical-serviceaccounts: 'spiffe://other/a, spiffe://other/b', alpha.istio.io/kubernetes-serviceaccounts: 'shop'},"
    found = made(WEB.replace("{name: web,", noted, 1))
    assert found.tls is not None
    assert [name.value for name in found.tls.peer_names] == [
        "spiffe://cluster.local/ns/default/sa/shop",
        "spiffe://other/a",
        "spiffe://other/b",
    ]
