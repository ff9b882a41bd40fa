"""Which clusters wait until a request needs them, and what becomes of the proxy that asks for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.compiled import identity, listener, proxy, resources, service, table, world

from weft import ir
from weft.compile.delivery import MANY, is_many, on_demand
from weft.compile.proxy import compile_proxy
from weft.compile.settings import Delivery, Settings
from weft.compile.world import World
from weft.names import outbound_cluster, service_host

WEB, COPY, DATA = (
    outbound_cluster(service_host(name, "default"), port)
    for name, port in (("web", 80), ("copy", 80), ("data", 5432))
)
SERVICES = (service("web"), service("copy"), service("data", 5432, port_name="tcp"))


def lazy(of: World, **more: Any) -> frozenset[str]:
    return on_demand(proxy(of, **more), of.memo).lazy


def routes(to: str) -> str:
    return f"""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {{name: web, namespace: default}}
        spec:
          hosts: [web]
          http:
          - {to}
        """


def test_clusters_of_services_wait_and_all_others_do_not() -> None:
    made = world(*SERVICES)
    assert lazy(made) == {WEB, COPY, DATA}
    whole = proxy(made)
    asking = on_demand(whole, made.memo).proxy
    assert asking.clusters is whole.clusters


def test_every_way_out_asks_and_no_way_in_does() -> None:
    of = world(*SERVICES)
    asking = on_demand(proxy(of), of.memo).proxy
    found = {
        (one.name.rpartition("_")[2], type(chain.handler)): chain.handler.on_demand
        for one in asking.listeners
        for chain in (*one.chains, *([one.default_chain] if one.default_chain else []))
    }
    assert found.pop(("80", ir.HttpHandler))
    assert found.pop(("5432", ir.TcpHandler))
    assert not any(found.values()), "passthrough, black hole and inbound have what they need"
    assert all(route.on_demand for host in table(asking, "80").virtual_hosts for route in host.routes)


def test_what_changes_is_looked_at_again() -> None:
    """The result for a proxy does not depend on what it was before."""
    before = world(*SERVICES)
    made = on_demand(proxy(before), before.memo)
    mirror = routes("{route: [{destination: {host: web}}], mirrors: [{destination: {host: copy}}]}")
    for added in (mirror, routes("{route: [{destination: {host: gone}}]}"), service("more", 81)):
        whole = proxy(before.replace(resources(added)))
        again = on_demand(whole, before.memo, made)
        assert (again.proxy, again.lazy) == (
            (fresh := on_demand(whole, before.memo)).proxy,
            fresh.lazy,
        )
        assert (again.proxy, again.lazy) != (made.proxy, made.lazy)


def test_units_are_found_again() -> None:
    of = world(*SERVICES)
    first, second = (
        on_demand(proxy(of, f"sidecar~10.9.9.{number}~client-{number}.default"), of.memo)
        for number in range(2)
    )
    assert first.lazy is second.lazy
    first, second = (on_demand(proxy(of), of.memo) for _ in range(2))
    assert all(a is b for a, b in zip(first.proxy.listeners, second.proxy.listeners, strict=True))
    assert all(a is b for a, b in zip(first.proxy.routes, proxy(of).routes, strict=True))


def test_copies_of_requests_cannot_wait() -> None:
    to = "{route: [{destination: {host: web}}], mirrors: [{destination: {host: copy}}]}"
    assert lazy(world(*SERVICES, routes(to))) == {WEB, DATA}


def test_a_service_that_counts_requests_cannot_wait() -> None:
    limits = """
        apiVersion: weft.dev/v1alpha1
        kind: RateLimit
        metadata: {name: few, namespace: default}
        spec:
          service: {host: data, port: 5432, domain: shop}
          limits: [{name: all, requests: 5}]
        """
    of = world(*SERVICES, limits)
    made = proxy(of, attachment=ir.Attachment(inbound_ports=((80, 10080),)))
    limited = {
        limit.service.cluster
        for one in made.listeners
        for chain in one.chains
        if isinstance(chain.handler, ir.HttpHandler)
        for limit in chain.handler.rate_limits
        if limit.service
    }
    assert limited == {DATA}, "the case shows what it says"
    assert on_demand(made, of.memo).lazy == {WEB, COPY}


def test_what_an_envoy_filter_names_cannot_wait() -> None:
    code = f'handle:httpCall("{COPY}", {{}}, "", 5)'
    value = {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": code},
        },
    }
    patch = f"""
        apiVersion: networking.istio.io/v1alpha3
        kind: EnvoyFilter
        metadata: {{name: lua, namespace: default}}
        spec:
          configPatches:
          - applyTo: HTTP_FILTER
            match: {{context: SIDECAR_OUTBOUND}}
            patch: {{operation: INSERT_FIRST, value: {json.dumps(value)}}}
        """
    assert lazy(world(*SERVICES, patch)) == {WEB, DATA}


@pytest.mark.parametrize(
    ("host", "resolution", "discovery"),
    [
        ("*.example.com", "DYNAMIC_DNS", ir.Discovery.NAMED),
        ("example.com", "DNS", ir.Discovery.STRICT_DNS),
        ("example.com", "DNS_ROUND_ROBIN", ir.Discovery.LOGICAL_DNS),
    ],
)
def test_names_that_are_looked_up_cannot_wait(host: str, resolution: str, discovery: ir.Discovery) -> None:
    """A name server that does not answer must hold up nobody else."""
    entry = f"""
        apiVersion: networking.istio.io/v1
        kind: ServiceEntry
        metadata: {{name: all, namespace: default}}
        spec:
          hosts: ["{host}"]
          ports: [{{number: 80, name: http, protocol: HTTP}}]
          resolution: {resolution}
        """
    of = world(*SERVICES, entry)
    assert any(cluster.discovery is discovery for cluster in proxy(of).clusters)
    assert lazy(of) == {WEB, COPY, DATA}


def test_what_needs_a_secret_cannot_wait() -> None:
    """It may be missing, and Envoy waits for it a while."""
    rule = """
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: web, namespace: default}
        spec:
          host: web
          workloadSelector: {matchLabels: {app: client}}
          trafficPolicy: {tls: {mode: MUTUAL, credentialName: missing}}
        """
    of = world(*SERVICES, rule)
    assert lazy(of) == {WEB, COPY, DATA}
    assert lazy(of, labels={"app": "client"}) == {COPY, DATA}


def test_nothing_is_asked_for_on_routes_to_what_does_not_exist() -> None:
    """They fail as they do elsewhere, at once; the other clusters of such a route are there."""
    to = "{route: [{destination: {host: web}, weight: 1}, {destination: {host: gone}, weight: 1}]}"
    of = world(*SERVICES, routes(to))
    made = on_demand(compile_proxy(of, identity())[0], of.memo)
    assert made.lazy == {COPY, DATA}
    asking = {
        host.name: [route.on_demand for route in host.routes]
        for host in table(made.proxy, "80").virtual_hosts
    }
    assert asking["web.default.svc.cluster.local:80"] == [False]
    assert asking["copy.default.svc.cluster.local:80"] == [True]


@pytest.mark.parametrize(
    ("delivery", "number", "many"),
    [
        (Delivery.AUTO, MANY, False),
        (Delivery.AUTO, MANY + 1, True),
        (Delivery.ON_DEMAND, 1, True),
        (Delivery.EAGER, MANY + 1, False),
    ],
)
def test_the_number_decides_unless_somebody_does(delivery: Delivery, number: int, many: bool) -> None:
    of = world(*(service(f"s{index}") for index in range(number)))
    settings = Settings(delivery=delivery)
    assert is_many(proxy(of), settings) == many
    assert not is_many(proxy(of, "router~10.9.9.9~gate.default"), settings)


def test_a_mesh_config_decides() -> None:
    config = """
        apiVersion: weft.dev/v1alpha1
        kind: MeshConfig
        metadata: {name: default, namespace: istio-system}
        spec: {clusterDelivery: onDemand}
        """
    assert world(config).settings.delivery is Delivery.ON_DEMAND
    assert world().settings.delivery is Delivery.AUTO
    assert listener(proxy(world(*SERVICES, config)), "0.0.0.0_80") is not None
