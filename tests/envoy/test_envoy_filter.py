"""EnvoyFilters on a real gateway: a filter in Lua, one that comes by itself, a route and a cluster."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.ports import free_port
from weft import ir
from weft.names import ProxyName

RESOURCES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.example]
  gateways: [edge]
  http: [{{name: all, route: [{{destination: {{host: web}}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-1, namespace: default}}
spec: {{address: 127.0.0.1, labels: {{app: web}}, ports: {{http: {port}}}}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: changes, namespace: default}}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {{name: envoy.filters.http.router}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              function envoy_on_request(handle)
                handle:headers():add("x-patched", "by-lua")
              end
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: mutation
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations:
            response_mutations: [{{append: {{header: {{key: x-discovered, value: "yes"}}}}}}]
  - applyTo: HTTP_FILTER
    match: {{context: GATEWAY}}
    patch:
      operation: INSERT_FIRST
      value:
        name: mutation
        config_discovery:
          config_source: {{ads: {{}}}}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation]
  - applyTo: HTTP_ROUTE
    match: {{context: GATEWAY, routeConfiguration: {{vhost: {{route: {{name: all}}}}}}}}
    patch:
      operation: INSERT_BEFORE
      value: {{name: ping, match: {{path: /ping}}, direct_response: {{status: 207}}}}
  - applyTo: CLUSTER
    patch:
      operation: ADD
      value:
        name: own
        type: STATIC
        load_assignment:
          cluster_name: own
          endpoints:
          - lb_endpoints:
            - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {own_port}}}}}}}
  - applyTo: HTTP_ROUTE
    match: {{context: GATEWAY, routeConfiguration: {{portNumber: 80, vhost: {{domainName: web.example}}}}}}
    patch:
      operation: INSERT_FIRST
      value: {{name: own, match: {{prefix: /own}}, route: {{cluster: own}}}}
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[int]:
    """The gateway's port."""
    with (
        serving(HttpBackend("127.0.0.1", 0, "web")) as web,
        serving(HttpBackend("127.0.0.1", 0, "own")) as own,
    ):
        port = free_port()
        resources = RESOURCES.format(port=web.server_address[1], own_port=own.server_address[1])
        identity = ir.ProxyIdentity(
            name=ProxyName("router", "127.0.0.1", "edge", "default"), service_account="edge",
            labels=(("istio", "ingressgateway"),), port_map=((80, port),),
            attachment=ir.Attachment(capture=ir.Capture.NONE),
        )  # fmt: skip
        with run_compiled(world(resources), identity, TestAuthority()):
            yield port


def get(port: int, path: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and the backend's answer to a request for web.example."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"host": "web.example"})
        response = connection.getresponse()
        body = response.read()
        return response.status, dict(response.headers), json.loads(body) if body else {}
    finally:
        connection.close()


def test_a_filter_of_ones_own_sees_every_request(edge: int) -> None:
    status, _, seen = get(edge, "/")
    assert (status, seen["name"], seen["headers"]["x-patched"]) == (200, "web", "by-lua")


def test_a_filter_whose_configuration_comes_by_itself(edge: int) -> None:
    assert get(edge, "/")[1]["x-discovered"] == "yes"


def test_a_route_before_the_others_and_one_to_a_cluster_of_ones_own(edge: int) -> None:
    assert get(edge, "/ping")[0] == 207
    assert get(edge, "/own")[2]["name"] == "own"
