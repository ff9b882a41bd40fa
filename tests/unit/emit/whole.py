"""One proxy that uses every field of the intermediate representation that emit translates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from tests.unit.emit.whole_security import authentication, authorization, authorizers, consultations

from weft import ir
from weft.names import ProxyName

CERTIFICATE: Final = ir.SecretRef(source=ir.SecretFrom.FILE, name="default")
BUNDLE: Final = ir.SecretRef(source=ir.SecretFrom.FILE, name="ROOTCA")
GATEWAY: Final = ir.SecretRef(source=ir.SecretFrom.ADS, name="kubernetes-gateway://default/shop")
SPIFFE: Final = "spiffe://cluster.local/ns/default/sa/reviews"
SECOND: Final = timedelta(seconds=1)
EDITS: Final = ir.HeaderEdit(set=(("a", "1"),), add=(("b", "2"),), remove=("c",))


def _text(test: str, value: str = "", *, ignore_case: bool = False) -> ir.TextMatch:
    return ir.TextMatch(test=ir.TextTest(test), value=value, ignore_case=ignore_case)


def _clusters() -> tuple[ir.Cluster, ...]:
    mesh = ir.UpstreamTls(
        sni="outbound_.80_._.a",
        certificate=CERTIFICATE,
        trust=BUNDLE,
        peer_names=(_text("exact", SPIFFE),),
        alpn=("istio-h2", "istio", "h2"),
        limits=ir.TlsLimits(
            minimum=ir.TlsVersion.V1_2,
            maximum=ir.TlsVersion.V1_3,
            cipher_suites=("ECDHE-ECDSA-AES128-GCM-SHA256",),
            groups=("X25519",),
        ),
    )
    limits = ir.Connections(
        max_connections=10,
        max_pending_requests=11,
        max_requests=12,
        max_retries=3,
        max_requests_per_connection=100,
        max_concurrent_streams=50,
        idle_timeout=SECOND,
        max_connection_duration=60 * SECOND,
        keepalive=ir.Keepalive(probes=3, time=60 * SECOND, interval=5 * SECOND),
        ping=ir.Ping(interval=30 * SECOND, timeout=5 * SECOND),
        retry_budget_percent=20.0,
        retry_budget_min_concurrency=3,
        retry_budget_interval=SECOND,
    )
    outlier = ir.OutlierDetection(
        consecutive_5xx=5,
        consecutive_gateway_errors=5,
        consecutive_local_failures=5,
        split_local_errors=True,
        min_health_percent=30,
        http_codes=(500, 429),
    )
    service = ir.ServiceRef(host="a.default.svc.cluster.local", name="a", namespace="default")
    balancing = [
        ir.LoadBalancing(
            algorithm=algorithm, warm_up=warm_up, warm_up_minimum_percent=10, warm_up_aggression=1.5
        )
        for algorithm, warm_up in (
            (ir.Algorithm.ROUND_ROBIN, SECOND),
            (ir.Algorithm.LEAST_REQUEST, SECOND),
            (ir.Algorithm.RANDOM, None),
        )
    ]
    balancing += [
        ir.LoadBalancing(algorithm=ir.Algorithm.RING_HASH, ring_minimum=1024, locality_weighted=True),
        ir.LoadBalancing(algorithm=ir.Algorithm.MAGLEV, table_size=65537),
        ir.LoadBalancing(
            algorithm=ir.Algorithm.REPORTED_LOAD,
            reported=ir.ReportedLoad(
                metrics=("named_metrics.queue",),
                error_penalty=1.0,
                settled_after=SECOND,
                forgotten_after=SECOND,
                period=SECOND,
            ),
        ),
        ir.LoadBalancing(zone_aware=ir.ZoneAware(min_hosts=3)),
        ir.LoadBalancing(zone_aware=ir.ZoneAware(enabled=False), keeps_draining=True),
    ]
    listed = (ir.Endpoint(address="127.0.0.1", port=80), ir.Endpoint(address="127.0.0.2", port=80, weight=2))
    named = (ir.Endpoint(address="example.com", port=443),)
    external = ir.UpstreamTls(
        sni_from_host=True, san_from_host=True, trust=ir.SecretRef(source=ir.SecretFrom.SYSTEM, name="system")
    )
    return (
        ir.Cluster(
            name="mesh",
            discovery=ir.Discovery.EDS,
            protocol=ir.UpstreamProtocol.HTTP2,
            service=service,
            subset="v1",
            stat_name="a.http",
            keep_case=True,
            buffer_limit=32768,
            connections=limits,
            outlier=outlier,
            tls=mesh,
            source=ir.Source(path="/apis/x"),
            metadata=(("origin", "test"),),
        ),
        *(
            ir.Cluster(
                name=f"balanced-{number}-{rule.algorithm}",
                discovery=ir.Discovery.EDS,
                protocol=ir.UpstreamProtocol.AS_RECEIVED,
                balancing=rule,
            )
            for number, rule in enumerate(balancing)
        ),
        ir.Cluster(
            name="static",
            discovery=ir.Discovery.STATIC,
            protocol=ir.UpstreamProtocol.TCP,
            endpoints=listed,
            placement=ir.Placement(tiers=ir.Tiers.LOCALITY),
            client=ir.Standpoint(locality=ir.Locality(region="eu")),
            tls=mesh,
            mutual=ir.MutualTls.ALWAYS,
            proxy_header=ir.ProxyHeader.V2,
        ),
        ir.Cluster(
            name="announced",
            discovery=ir.Discovery.STATIC,
            protocol=ir.UpstreamProtocol.TCP,
            endpoints=listed,
            proxy_header=ir.ProxyHeader.V1,
        ),
        ir.Cluster(
            name="strict",
            discovery=ir.Discovery.STRICT_DNS,
            protocol=ir.UpstreamProtocol.HTTP1,
            endpoints=named,
            tls=external,
            mutual=ir.MutualTls.ALWAYS,
        ),
        ir.Cluster(
            name="logical",
            discovery=ir.Discovery.LOGICAL_DNS,
            races=True,
            protocol=ir.UpstreamProtocol.HTTP1,
            endpoints=named,
        ),
        ir.Cluster(
            name="PassthroughCluster",
            discovery=ir.Discovery.ORIGINAL_DST,
            protocol=ir.UpstreamProtocol.AS_RECEIVED,
            balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
            source_address="127.0.0.6",
            original_port=8080,
        ),
        ir.Cluster(
            name="named",
            discovery=ir.Discovery.NAMED,
            protocol=ir.UpstreamProtocol.HTTP1,
            balancing=ir.LoadBalancing(algorithm=ir.Algorithm.PROVIDED),
            # Neither the certificate nor its name is looked at, which Envoy allows on demand only.
            tls=ir.UpstreamTls(sni_from_host=True, san_from_host=False),
            mutual=ir.MutualTls.ALWAYS,
        ),
        ir.Cluster(
            name="BlackHoleCluster",
            discovery=ir.Discovery.BLACK_HOLE,
            protocol=ir.UpstreamProtocol.TCP,
        ),
    )


def _forward() -> ir.Forward:
    return ir.Forward(
        destinations=(
            ir.Destination(cluster="mesh", weight=90, request_headers=EDITS, host_rewrite="a"),
            ir.Destination(cluster="static", weight=10, response_headers=EDITS),
        ),
        timeout=3 * SECOND,
        idle_timeout=SECOND,
        retry=ir.Retry(
            attempts=3,
            on=("5xx", "retriable-status-codes"),
            codes=(409,),
            per_try_timeout=SECOND,
            back_off=ir.BackOff(base=SECOND / 40, maximum=SECOND),
            other_localities=True,
        ),
        rewrite=ir.Rewrite(prefix="/"),
        host_rewrite="b",
        append_forwarded_host=True,
        hash_on=(
            ir.HashOn(header="x-user", terminal=True),
            ir.HashOn(cookie="c", cookie_ttl=SECOND, cookie_path="/", cookie_attributes=(("Secure", ""),)),
            ir.HashOn(query="q"),
            ir.HashOn(source_ip=True),
        ),
        mirrors=(ir.Mirror(cluster="strict", fraction=100_000),),
        websocket=False,
        missing_status=500,
    )


def _routes() -> ir.RouteTable:
    here = (ir.Destination(cluster="mesh"),)
    match = ir.RequestMatch(
        path=ir.PathMatch(test=ir.PathTest.PATH_PREFIX, value="/shop"),
        headers=(
            ir.HeaderMatch(name="x-a", match=_text("regex", "v[12]", ignore_case=True)),
            ir.HeaderMatch(name="x-b", match=_text("present"), invert=True),
            ir.HeaderMatch(name="x-c", match=_text("suffix", "z"), missing_as_empty=True),
        ),
        query=(ir.QueryMatch(name="q", match=_text("contains", "1")),),
        claims=(
            ir.ClaimMatch(path=("groups", "id"), match=_text("exact", "1")),
            ir.ClaimMatch(path=("admin",), match=_text("present"), invert=True),
        ),
        grpc=True,
        below=500_000,
    )
    cors = ir.Cors(
        origins=(_text("exact", "https://a"),),
        methods=("GET",),
        headers=("x",),
        expose=("y",),
        max_age=SECOND,
        credentials=True,
        forward_unmatched_preflights=False,
    )
    fault = ir.Fault(delay=SECOND, delay_fraction=1, abort_grpc_status=14, abort_fraction=1_000_000)
    actions: tuple[ir.Forward | ir.Redirect | ir.Respond, ...] = (
        ir.Forward(destinations=here, rewrite=ir.Rewrite(full="/all")),
        ir.Forward(destinations=here, rewrite=ir.Rewrite(regex=("^/a(.*)$", r"/b\1"))),
        ir.Forward(destinations=here, host_rewrite_from=ir.HostRewriteFrom.BACKEND),
        ir.Redirect(code=303, prefix="/"),
        ir.Redirect(code=308, scheme="https", host="other", port=8443, path="/there"),
        ir.Redirect(code=302, regex=("^/a", "/b")),
        ir.Respond(status=418, body=b"short and stout"),
    )
    sticky = ir.SessionPersistence(name="x-session", place=ir.SessionIn.HEADER)
    tests = (ir.PathTest.EXACT, ir.PathTest.REGEX, ir.PathTest.PREFIX, ir.PathTest.PATH_PREFIX)
    paths = [ir.PathMatch(test=test, value="/p", ignore_case=test is ir.PathTest.EXACT) for test in tests]
    paths += [ir.PathMatch(test=ir.PathTest.TEMPLATE, value="/{a}/b"), ir.EVERY_PATH, ir.EVERY_PATH]
    routes = (
        ir.Route(
            name="full",
            stat_prefix="full",
            match=match,
            action=_forward(),
            request_headers=EDITS,
            response_headers=EDITS,
            fault=fault,
            cors=cors,
            session=ir.SessionPersistence(
                name="s",
                place=ir.SessionIn.COOKIE,
                path="/p",
                lifetime=SECOND,
                attributes=(("SameSite", "Strict"),),
                strict=True,
            ),
            authorizers=authorizers()[:1],
            operation="shop",
            source=ir.Source(path="/apis/x", rule=1, match=0),
            on_demand=False,
        ),
        *(
            ir.Route(name=f"r{index}", match=ir.RequestMatch(path=path), action=action, session=sticky)
            for index, (path, action) in enumerate(zip(paths, actions, strict=True))
        ),
    )
    tunnel = ir.Route(
        name="tunnel",
        match=ir.RequestMatch(connect=True),
        action=ir.Forward(destinations=(ir.Destination(cluster="named"),), tunnel=True),
    )
    hosts = (
        ir.VirtualHost(
            name="a",
            domains=("a", "a.default"),
            routes=routes,
            request_headers=EDITS,
            response_headers=EDITS,
            require_tls=True,
        ),
        ir.VirtualHost(name="allow_any", domains=("*",), routes=(routes[1], tunnel), count_attempts=False),
    )
    return ir.RouteTable(
        name="80", virtual_hosts=hosts, internal_only_headers=("x-internal",), response_headers=EDITS
    )


def _listeners(table: ir.RouteTable) -> tuple[ir.Listener, ...]:
    trusting = ir.DownstreamTls(
        certificates=(CERTIFICATE,),
        trust=BUNDLE,
        require_client_certificate=True,
        peer_trust_domains=("cluster.local",),
        alpn=("h2", "http/1.1"),
    )
    edge = ir.DownstreamTls(
        certificates=(GATEWAY,),
        trust=ir.SecretRef(source=ir.SecretFrom.ADS, name="kubernetes-gateway://default/shop-cacert"),
        accept_untrusted=True,
        peer_names=(_text("exact", "client.example.com"),),
        peer_certificate_hashes=("ab" * 32,),
        alpn=("h2", "http/1.1"),
    )
    kept = ir.OwnHeaders(keep_server=True)
    named = ir.HttpHandler(stat_prefix="outbound", routes="80", on_demand=True, headers=kept)
    explicit = ir.HttpHandler(stat_prefix="outbound", routes="80", explicit_proxy=True, grpc=True)
    inline = ir.HttpHandler(
        stat_prefix="inbound",
        routes=ir.RouteTable(name="inbound|80||", virtual_hosts=table.virtual_hosts[1:]),
        version=ir.HttpVersion.HTTP2,
        client_certificate=ir.ClientCertificate.APPEND_FORWARD,
        server_name="istio-envoy",
        headers=ir.OwnHeaders(
            request_id=False,
            debug=False,
            forwarded_port=True,
            keep_case=True,
            certificate=ir.CertificateParts(
                subject=False, uri=False, dns=False, certificate=True, chain=True
            ),
        ),
        limits=ir.HttpLimits(
            idle_timeout=SECOND,
            stream_idle_timeout=SECOND,
            request_timeout=SECOND,
            headers_timeout=SECOND,
            drain_timeout=SECOND,
            max_connection_duration=SECOND,
            max_stream_duration=SECOND,
            max_concurrent_streams=100,
            stream_window=1 << 16,
            connection_window=1 << 20,
            underscores=ir.Underscores.REJECT,
            merge_slashes=False,
            escaped_slashes=ir.EscapedSlashes.REDIRECT,
        ),
        path_normalization=ir.PathNormalization.DECODE_AND_MERGE_SLASHES,
    )
    everybody = ir.Bucket(name="all", tokens=5, interval=SECOND, burst=10)
    callers = ir.Bucket(
        name="callers",
        tokens=5,
        interval=SECOND,
        burst=10,
        match=(ir.HeaderMatch(name=":path", match=ir.TextMatch(test=ir.TextTest.PREFIX, value="/api/")),),
        per=(
            ir.CallerKey(by=ir.CallerBy.PRINCIPAL),
            ir.CallerKey(by=ir.CallerBy.ADDRESS),
            ir.CallerKey(by=ir.CallerBy.HEADER, path=("x-user",)),
            ir.CallerKey(by=ir.CallerBy.CLAIM, path=("realm", "sub")),
        ),
    )
    counting = ir.LimitService(cluster="mesh", domain="shop", timeout=SECOND, fail_open=False)
    limits = (
        ir.RateLimit(
            name="a/b", buckets=(everybody, callers), shared=False, shadow=True, status=503, tell=False
        ),
        ir.RateLimit(name="a/c", buckets=(everybody,), service=counting),
    )
    gateway = ir.HttpHandler(
        stat_prefix="gateway",
        routes="80",
        client_certificate=ir.ClientCertificate.SANITIZE_SET,
        edge=True,
        trusted_hops=1,
        strangers=True,
        looks_up=True,
        rate_limits=limits,
        authentication=authentication(),
        authorizers=(*authorizers(), replace(authorizers()[0], name="any", any_upstream_headers=True)),
        consultations=consultations(),
        authorization=authorization(tcp=False),
        preserve_external_request_id=True,
        path_normalization=ir.PathNormalization.NONE,
    )
    newest = ir.HttpHandler(stat_prefix="quic", routes="80", version=ir.HttpVersion.HTTP3)
    datagrams = ir.UdpHandler(
        stat_prefix="udp",
        destinations=(ir.Destination(cluster="mesh", weight=1), ir.Destination(cluster="static", weight=3)),
        idle_timeout=SECOND,
        source=ir.Source(path="/apis/x"),
    )
    tcp = ir.TcpHandler(
        on_demand=True,
        stat_prefix="tcp",
        destinations=(ir.Destination(cluster="mesh", weight=1), ir.Destination(cluster="static", weight=3)),
        alpn=("istio",),
        idle_timeout=SECOND,
        max_duration=60 * SECOND,
        hash_source_ip=True,
        tunnel=ir.Tunnel(to="10.0.0.1:80", post=True),
        look_up_port=443,
        consultations=consultations(),
        authorization=authorization(tcp=True),
    )
    blackhole = ir.TcpHandler(stat_prefix="b", destinations=(ir.Destination(cluster="BlackHoleCluster"),))

    def chain(name: str, handler: ir.HttpHandler | ir.TcpHandler, **match: object) -> ir.FilterChain:
        return ir.FilterChain(name=name, match=ir.ChainMatch(**match), handler=handler)  # type: ignore[arg-type]

    return (
        ir.Listener(
            name="virtualOutbound",
            direction=ir.Direction.OUTBOUND,
            address="127.0.0.1",
            port=15001,
            receive=ir.Receive.PROXY_PROTOCOL,
            chains=(chain("loop", blackhole, port=15001),),
            default_chain=chain("rest", tcp),
            hand_over=True,
        ),
        ir.Listener(
            name="0.0.0.0_80",
            direction=ir.Direction.OUTBOUND,
            address="0.0.0.0",
            port=80,
            receive=ir.Receive.HANDED_OVER,
            chains=(chain("http", named, transport="raw_buffer", application_protocols=("http/1.1",)),),
            default_chain=chain("tcp", tcp),
            inspect_tls=True,
            inspect_http=True,
            inspect_timeout=timedelta(0),
            additional_addresses=("::",),
            shared_port=True,
            buffer_limit=32768,
            source=ir.Source(path="/apis/x"),
        ),
        ir.Listener(
            name="127.0.0.1_15403",
            direction=ir.Direction.OUTBOUND,
            address="127.0.0.1",
            port=15403,
            receive=ir.Receive.BOUND,
            chains=(chain("explicit", explicit),),
        ),
        ir.Listener(
            name="virtualInbound",
            direction=ir.Direction.INBOUND,
            address="127.0.0.1",
            port=15006,
            receive=ir.Receive.REDIRECTED,
            chains=(
                ir.FilterChain(
                    name="mtls",
                    match=ir.ChainMatch(
                        port=80,
                        addresses=("10.0.0.0/8", "10.1.2.3"),
                        source_addresses=("::1",),
                        transport="tls",
                        application_protocols=("istio", "istio-h2"),
                    ),
                    handler=inline,
                    tls=trusting,
                    epoch=1,
                ),
            ),
            default_chain=chain("tcp", blackhole),
            inspect_tls=True,
            inspect_http=True,
            inspect_http_except=(80,),
            inspect_tls_except=(3306, 5432),
        ),
        ir.Listener(
            name="gateway",
            direction=ir.Direction.GATEWAY,
            address="127.0.0.1",
            port=8443,
            receive=ir.Receive.BOUND,
            chains=(
                ir.FilterChain(
                    name="https",
                    match=ir.ChainMatch(server_names=("a.example.com",)),
                    handler=gateway,
                    tls=edge,
                ),
                chain("passthrough", tcp, server_names=("*.b.example.com",)),
            ),
            inspect_tls=True,
        ),
        ir.Listener(
            name="udp_gateway",
            direction=ir.Direction.GATEWAY,
            address="127.0.0.1",
            port=8443,
            receive=ir.Receive.BOUND,
            quic=True,
            chains=(ir.FilterChain(name="h3", match=ir.ChainMatch(), handler=newest, tls=edge),),
        ),
        ir.Listener(
            name="udp_53",
            direction=ir.Direction.GATEWAY,
            address="127.0.0.1",
            port=53,
            receive=ir.Receive.BOUND,
            chains=(),
            udp=datagrams,
        ),
    )


def whole_proxy(telemetry: ir.Telemetry) -> ir.Proxy:
    """The proxy, with something of everything."""
    table = _routes()
    return ir.Proxy(
        identity=ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", "whole", "default")),
        listeners=_listeners(table),
        routes=(table,),
        clusters=(
            *_clusters(),
            ir.Cluster(name="traces", discovery=ir.Discovery.EDS, protocol=ir.UpstreamProtocol.HTTP2),
        ),
        telemetry=telemetry,
    )
