"""EnvoyFilter's patches, on small messages: what each operation does, and where."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from weft import ir
from weft.emit.patches.bundle import patched
from weft.emit.patches.check import flaws_of
from weft.emit.patches.clusters import patch_cluster
from weft.emit.patches.listeners import patch_listener
from weft.emit.patches.routes import patch_routes
from weft.emit.patches.sorted import Patches
from weft.errors import Severity
from weft.ir import Context, Operation, Patch, PatchMatch, Target
from weft.names import CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, ROUTE_TYPE, ProxyName
from weft.protos import cluster_v3, hcm_v3, listener_v3, route_v3
from weft.protos.wire import from_any, from_dict, to_dict

OUT = Context.SIDECAR_OUTBOUND
TYPE = "type.googleapis.com/envoy.extensions.filters"
MANAGER = "envoy.filters.network.http_connection_manager"


def patch(
    target: Target, operation: Operation, value: Any = None, match: PatchMatch | None = None, **more: Any
) -> Patch:
    """A patch as compile makes it."""
    text = "" if value is None else json.dumps(value)
    return Patch(target=target, operation=operation, value=text, match=match or PatchMatch(), **more)


def listener(*filters: str) -> listener_v3.Listener:
    """A listener with one chain that serves HTTP with these filters."""
    manager = {
        "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {"name": "inbound|80||", "virtual_hosts": [{"name": "all", "domains": ["*"]}]},
        "http_filters": [
            {"name": name, "typed_config": {"@type": f"{TYPE}.http.router.v3.Router"}} for name in filters
        ],
    }
    found = from_dict(
        {
            "name": "0.0.0.0_80",
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
            "listener_filters": [{"name": "one"}, {"name": "two"}],
            "filter_chains": [
                {
                    "name": "http",
                    "filter_chain_match": {
                        "server_names": ["a.example"], "transport_protocol": "tls",
                        "application_protocols": ["h2", "http/1.1"], "destination_port": 8080,
                    },
                    "filters": [{"name": "first"}, {"name": MANAGER, "typed_config": manager}],
                    "transport_socket": {
                        "name": "tls",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
                            ".DownstreamTlsContext",
                            "require_client_certificate": True,
                        },
                    },
                },
                {"name": "tcp", "filters": [{"name": "tcp"}]},
            ],
        },
        "envoy.config.listener.v3.Listener",
    )  # fmt: skip
    assert isinstance(found, listener_v3.Listener)
    return found


def manager_of(made: listener_v3.Listener) -> hcm_v3.HttpConnectionManager:
    """The connection manager of the first chain."""
    part = next(one for one in made.filter_chains[0].filters if one.name == MANAGER)
    return hcm_v3.HttpConnectionManager.FromString(part.typed_config.value)


HTTP = PatchMatch(filter=MANAGER, http_filter="router")


@pytest.mark.parametrize(
    ("operation", "match", "expected"),
    [
        (Operation.ADD, PatchMatch(), ["cors", "router", "new"]),
        (Operation.INSERT_FIRST, HTTP, ["new", "cors", "router"]),
        (Operation.INSERT_BEFORE, HTTP, ["cors", "new", "router"]),
        (Operation.INSERT_BEFORE, PatchMatch(filter=MANAGER), ["new", "cors", "router"]),
        (Operation.INSERT_AFTER, PatchMatch(filter=MANAGER, http_filter="cors"), ["cors", "new", "router"]),
        (Operation.INSERT_AFTER, PatchMatch(), ["cors", "router", "new"]),
        (Operation.INSERT_AFTER, PatchMatch(filter=MANAGER, http_filter="nobody"), ["cors", "router"]),
        (Operation.REPLACE, PatchMatch(filter=MANAGER, http_filter="cors"), ["new", "router"]),
        (Operation.REPLACE, PatchMatch(), ["cors", "router"]),
        (Operation.REMOVE, PatchMatch(filter=MANAGER, http_filter="cors"), ["router"]),
        (Operation.REMOVE, PatchMatch(), ["cors", "router"]),
        (Operation.ADD, PatchMatch(filter="another"), ["cors", "router"]),
    ],
)
def test_an_http_filter_is_put_where_it_is_wanted(
    operation: Operation, match: PatchMatch, expected: list[str]
) -> None:
    made = listener("cors", "router")
    value = None if operation is Operation.REMOVE else {"name": "new"}
    assert patch_listener(made, Patches((patch(Target.HTTP_FILTER, operation, value, match),)), OUT)
    assert [one.name for one in manager_of(made).http_filters] == expected


def typed(name: str, kind: str) -> dict[str, Any]:
    """A filter of a kind, as ``http.rbac.v3.RBAC``."""
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{kind}"}}


GUARDED = (
    typed("who", "http.jwt_authn.v3.JwtAuthentication"),
    typed("may", "http.rbac.v3.RBAC"),
    typed("cors", "http.cors.v3.Cors"),
    {**typed("asked", "http.ext_authz.v3.ExtAuthz"), "disabled": True},
    typed("router", "http.router.v3.Router"),
)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (GUARDED, ["who", "n1", "n2", "may", "z1", "z2", "cors", "asked", "s1", "s2", "router"]),
        (GUARDED[-1:], ["n1", "n2", "z1", "z2", "s1", "s2", "router"]),
        (GUARDED[1:], ["n1", "n2", "may", "z1", "z2", "cors", "asked", "s1", "s2", "router"]),
    ],
)
@pytest.mark.parametrize("operation", [Operation.ADD, Operation.INSERT_BEFORE])
def test_a_filter_is_put_beside_those_of_its_class(
    operation: Operation, filters: tuple[Any, ...], expected: list[str]
) -> None:
    made = listener()
    for part in made.filter_chains[0].filters:
        if part.name == MANAGER:
            manager = from_dict(
                {"http_filters": list(filters)},
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            )
            part.typed_config.value = manager.SerializeToString()
    wanted = [
        ("n1", "AUTHN"),
        ("z1", "AUTHZ"),
        ("s1", "STATS"),
        ("n2", "AUTHN"),
        ("z2", "AUTHZ"),
        ("s2", "STATS"),
    ]
    patches = tuple(
        patch(Target.HTTP_FILTER, operation, {"name": name}, filter_class=ir.FilterClass(kind))
        for name, kind in wanted
    )
    patch_listener(made, Patches(patches), OUT)
    assert [one.name for one in manager_of(made).http_filters] == expected


def test_a_filter_that_is_named_tells_more_than_a_class() -> None:
    made = listener("cors", "router")
    near = patch(
        Target.HTTP_FILTER, Operation.INSERT_BEFORE, {"name": "new"}, HTTP, filter_class=ir.FilterClass.AUTHN
    )
    patch_listener(made, Patches((near,)), OUT)
    assert [one.name for one in manager_of(made).http_filters] == ["cors", "new", "router"]


def test_a_network_filter_is_put_beside_those_of_its_class() -> None:
    made = listener("router")
    chain = made.filter_chains[1]
    guard = from_dict(typed("may", "network.rbac.v3.RBAC"), "envoy.config.listener.v3.Filter")
    assert isinstance(guard, listener_v3.Filter)
    chain.filters.insert(0, guard)
    patches = tuple(
        patch(Target.NETWORK_FILTER, Operation.ADD, {"name": name}, filter_class=ir.FilterClass(kind))
        for name, kind in (("z", "AUTHZ"), ("s", "STATS"))
    )
    patch_listener(made, Patches(patches), OUT)
    assert [one.name for one in chain.filters] == ["may", "z", "s", "tcp"]


def test_the_configuration_of_a_filter_is_merged_and_its_name_replaced() -> None:
    made = listener("router")
    value = {
        "name": "my-router",
        "typed_config": {"@type": f"{TYPE}.http.router.v3.Router", "suppress_envoy_headers": True},
    }
    patches = Patches((patch(Target.HTTP_FILTER, Operation.MERGE, value, HTTP),))
    assert patch_listener(made, patches, OUT)
    (found,) = manager_of(made).http_filters
    assert found.name == "my-router"
    assert to_dict(from_any(found.typed_config.SerializeToString())) == {"suppress_envoy_headers": True}


def test_a_value_of_another_type_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    made = listener("router")
    other = {"name": "x", "typed_config": {"@type": f"{TYPE}.http.cors.v3.Cors"}}
    patches = (
        patch(Target.HTTP_FILTER, Operation.MERGE, other, HTTP, origin="ns/mine", index=3),
        patch(Target.HTTP_FILTER, Operation.ADD, {"name": "last"}),
    )
    with caplog.at_level(logging.WARNING):
        assert patch_listener(made, Patches(patches), OUT)
    assert [one.name for one in manager_of(made).http_filters] == ["router", "last"]
    assert "ns/mine" in caplog.text
    assert "patch 3" in caplog.text


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"listener": "0.0.0.0_80"}, True),
        ({"listener": "0.0.0.0_81"}, False),
        ({"listener_port": 80}, True),
        ({"listener_port": 81}, False),
        ({"chain": "http"}, True),
        ({"chain": "tcp"}, False),
        ({"sni": "a.example"}, True),
        ({"sni": "b.example"}, False),
        ({"transport_protocol": "tls"}, True),
        ({"transport_protocol": "raw_buffer"}, False),
        ({"application_protocols": ("h2",)}, True),
        ({"application_protocols": ("h2", "h3")}, False),
        ({"destination_port": 8080}, True),
        ({"destination_port": 80}, False),
    ],
)
def test_a_chain_is_recognised_by_all_that_is_said_of_it(match: dict[str, Any], hit: bool) -> None:
    made = listener("router")
    wanted = patch(Target.HTTP_FILTER, Operation.ADD, {"name": "new"}, PatchMatch(**match))
    assert patch_listener(made, Patches((wanted,)), OUT)
    assert (len(manager_of(made).http_filters) == 2) is hit


def test_in_a_virtual_listener_the_port_is_that_of_the_chain() -> None:
    for port, hit in ((8080, True), (80, False)):
        made = listener("router")
        made.name = "virtualInbound"
        wanted = patch(Target.HTTP_FILTER, Operation.ADD, {"name": "new"}, PatchMatch(listener_port=port))
        assert patch_listener(made, Patches((wanted,)), Context.SIDECAR_INBOUND)
        assert (len(manager_of(made).http_filters) == 2) is hit


def test_listeners_their_filters_and_chains() -> None:
    made = listener("router")
    patches = (
        patch(Target.LISTENER, Operation.MERGE, {"per_connection_buffer_limit_bytes": 7}),
        patch(Target.LISTENER_FILTER, Operation.INSERT_AFTER, {"name": "new"},
              PatchMatch(listener_filter="one")),
        patch(Target.LISTENER_FILTER, Operation.REMOVE, None, PatchMatch(listener_filter="two")),
        patch(Target.FILTER_CHAIN, Operation.REMOVE, None, PatchMatch(chain="tcp")),
        patch(Target.FILTER_CHAIN, Operation.ADD, {"name": "added", "filters": [{"name": "f"}]}),
        patch(Target.NETWORK_FILTER, Operation.INSERT_BEFORE, {"name": "zero"}, PatchMatch(filter="first")),
        patch(Target.NETWORK_FILTER, Operation.REMOVE, None, PatchMatch(filter="first")),
    )  # fmt: skip
    assert patch_listener(made, Patches(patches), OUT)
    assert made.per_connection_buffer_limit_bytes.value == 7
    assert [one.name for one in made.listener_filters] == ["one", "new"]
    assert [chain.name for chain in made.filter_chains] == ["http", "added"]
    assert [one.name for one in made.filter_chains[0].filters] == ["zero", MANAGER]
    gone = patch(Target.LISTENER, Operation.REMOVE, None, PatchMatch(listener="0.0.0.0_80"))
    assert not patch_listener(made, Patches((gone,)), OUT)


def test_the_transport_socket_of_a_chain_is_merged_in_its_depth() -> None:
    made = listener("router")
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    value = {
        "transport_socket": {
            "name": "tls", "typed_config": {"@type": tls, "require_sni": True},
        }
    }  # fmt: skip
    wanted = patch(Target.FILTER_CHAIN, Operation.MERGE, value, PatchMatch(chain="http"))
    assert patch_listener(made, Patches((wanted,)), OUT)
    found = from_any(made.filter_chains[0].transport_socket.typed_config.SerializeToString())
    assert to_dict(found) == {"require_client_certificate": True, "require_sni": True}


def table(name: str = "80") -> route_v3.RouteConfiguration:
    """A route table of two hosts."""
    found = from_dict(
        {
            "name": name,
            "virtual_hosts": [
                {
                    "name": "a:80",
                    "domains": ["a", "a.ns"],
                    "routes": [
                        {
                            "name": "one",
                            "match": {"path": "/1"},
                            "route": {"cluster": "c", "timeout": "1.5s"},
                        },
                        {"name": "two", "match": {"path": "/2"}, "redirect": {}},
                    ],
                },
                {"name": "b:80", "domains": ["b"]},
            ],
        },
        "envoy.config.route.v3.RouteConfiguration",
    )  # fmt: skip
    assert isinstance(found, route_v3.RouteConfiguration)
    return found


NEW = {"name": "new", "match": {"prefix": "/"}, "direct_response": {"status": 204}}
A: dict[str, Any] = {"virtual_host": "a:80"}
ONE = PatchMatch(**A, by_route=True, route="one")
REDIRECTS = PatchMatch(**A, by_route=True, route_action="REDIRECT")


@pytest.mark.parametrize(
    ("operation", "match", "expected"),
    [
        (Operation.ADD, PatchMatch(**A), ["one", "two", "new"]),
        (Operation.INSERT_FIRST, PatchMatch(**A), ["new", "one", "two"]),
        (Operation.INSERT_FIRST, PatchMatch(**A, by_route=True, route="nobody"), ["one", "two"]),
        (Operation.INSERT_BEFORE, REDIRECTS, ["one", "new", "two"]),
        (Operation.INSERT_AFTER, ONE, ["one", "new", "two"]),
        (Operation.REMOVE, REDIRECTS, ["one"]),
        (Operation.ADD, PatchMatch(domain="a.ns"), ["one", "two", "new"]),
        (Operation.ADD, PatchMatch(domain="c"), ["one", "two"]),
        (Operation.ADD, PatchMatch(**A, routes_port=81), ["one", "two"]),
        (Operation.ADD, PatchMatch(**A, routes="80", routes_port=80), ["one", "two", "new"]),
    ],
)
def test_a_route_is_put_where_it_is_wanted(
    operation: Operation, match: PatchMatch, expected: list[str]
) -> None:
    made = table()
    value = None if operation is Operation.REMOVE else NEW
    patch_routes(made, Patches((patch(Target.HTTP_ROUTE, operation, value, match),)), OUT)
    assert [route.name for route in made.virtual_hosts[0].routes] == expected


def test_routes_and_hosts_are_merged_replaced_and_removed() -> None:
    made = table()
    patches = (
        patch(Target.ROUTE_CONFIGURATION, Operation.MERGE, {"response_headers_to_remove": ["x"]}),
        patch(Target.HTTP_ROUTE, Operation.MERGE, {"route": {"timeout": "3s"}}, ONE),
        patch(Target.VIRTUAL_HOST, Operation.REPLACE, {"name": "c:80", "domains": ["c"]},
              PatchMatch(virtual_host="b:80")),
        patch(Target.VIRTUAL_HOST, Operation.MERGE_AND_REPLACE_LIST, {"domains": ["z"]}, PatchMatch(**A)),
        patch(Target.VIRTUAL_HOST, Operation.ADD, {"name": "d:80", "domains": ["d"]}),
    )  # fmt: skip
    patch_routes(made, Patches(patches), OUT)
    assert list(made.response_headers_to_remove) == ["x"]
    assert [host.name for host in made.virtual_hosts] == ["a:80", "c:80", "d:80"]
    assert list(made.virtual_hosts[0].domains) == ["z"]
    timeout = made.virtual_hosts[0].routes[0].route.timeout
    assert (timeout.seconds, timeout.nanos) == (3, 0)  # not 3.5: a duration is one value
    gone = patch(Target.VIRTUAL_HOST, Operation.REMOVE, None, PatchMatch(virtual_host="a:80"))
    patch_routes(made, Patches((gone,)), OUT)
    assert [host.name for host in made.virtual_hosts] == ["c:80", "d:80"]


@pytest.mark.parametrize(
    ("name", "match", "hit"),
    [
        ("http.80~1a2b3c4d", {"routes": "http.80", "routes_port": 80}, True),
        ("http.8080", {"routes_port": 8080}, True),
        ("http.8080", {"routes_port": 80}, False),
        ("https.443.tls.shop.web", {"routes_port": 443, "routes_port_name": "tls"}, True),
        ("https.443.tls.shop.web", {"routes_gateway": "web/shop"}, True),
        ("https.443.tls.shop.web", {"routes_gateway": "web/other"}, False),
        ("http.8080", {"routes_gateway": "web/shop"}, False),
        ("inbound|80||", {"routes_port": 80}, True),
    ],
)
def test_a_route_table_is_recognised_by_its_name(name: str, match: dict[str, Any], hit: bool) -> None:
    made = table(name)
    wanted = patch(
        Target.ROUTE_CONFIGURATION,
        Operation.MERGE,
        {"response_headers_to_remove": ["x"]},
        PatchMatch(**match),
    )
    patch_routes(made, Patches((wanted,)), Context.GATEWAY)
    assert bool(made.response_headers_to_remove) is hit


def cluster(name: str = "outbound|80|v1|a.ns.svc.cluster.local") -> cluster_v3.Cluster:
    """A cluster with a choice of transport sockets."""
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    found = from_dict(
        {
            "name": name,
            "metadata": {"filter_metadata": {"istio": {"services": [{"host": "served.ns"}]}}},
            "transport_socket_matches": [
                {
                    "name": "m",
                    "transport_socket": {"name": "tls", "typed_config": {"@type": tls, "sni": "a"}},
                },
                {"name": "p", "transport_socket": {"name": "raw"}},
            ],
        },
        "envoy.config.cluster.v3.Cluster",
    )  # fmt: skip
    assert isinstance(found, cluster_v3.Cluster)
    return found


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"cluster": "outbound|80|v1|a.ns.svc.cluster.local"}, True),
        ({"cluster": "other"}, False),
        ({"cluster_service": "a.ns.svc.cluster.local", "cluster_port": 80, "cluster_subset": "v1"}, True),
        ({"cluster_service": "b.ns.svc.cluster.local"}, False),
        ({"cluster_port": 81}, False),
        ({"cluster_subset": "v2"}, False),
    ],
)
def test_a_cluster_is_recognised(match: dict[str, Any], hit: bool) -> None:
    made = cluster()
    wanted = patch(Target.CLUSTER, Operation.MERGE, {"connect_timeout": "3s"}, PatchMatch(**match))
    assert patch_cluster(made, Patches((wanted,)), OUT)
    assert made.HasField("connect_timeout") is hit
    gone = patch(Target.CLUSTER, Operation.REMOVE, None, PatchMatch(**match))
    assert patch_cluster(made, Patches((gone,)), OUT) is not hit


def test_an_inbound_cluster_is_known_by_the_services_behind_it() -> None:
    wanted = patch(
        Target.CLUSTER, Operation.MERGE, {"connect_timeout": "3s"}, PatchMatch(cluster_service="served.ns")
    )
    made = cluster("inbound|80||")
    assert patch_cluster(made, Patches((wanted,)), Context.SIDECAR_INBOUND)
    assert made.HasField("connect_timeout")


def test_the_transport_socket_of_a_cluster_is_merged_where_its_name_is() -> None:
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    value = {"transport_socket": {"name": "tls", "typed_config": {"@type": tls, "allow_renegotiation": True}}}
    made = cluster()
    assert patch_cluster(made, Patches((patch(Target.CLUSTER, Operation.MERGE, value),)), OUT)
    found = from_any(made.transport_socket_matches[0].transport_socket.typed_config.SerializeToString())
    assert to_dict(found) == {"sni": "a", "allow_renegotiation": True}
    assert not made.HasField("transport_socket")
    plain = cluster_v3.Cluster(name="x")
    assert patch_cluster(plain, Patches((patch(Target.CLUSTER, Operation.MERGE, value),)), OUT)
    assert plain.transport_socket.name == "tls"


def test_a_false_that_is_written_down_is_taken() -> None:
    made = listener("router")
    made.bind_to_port.value = True
    wanted = patch(Target.LISTENER, Operation.MERGE, {"bind_to_port": False})
    assert patch_listener(made, Patches((wanted,)), OUT)
    assert made.HasField("bind_to_port")
    assert not made.bind_to_port.value


def proxy(*patches: Patch, kind: str = "sidecar") -> ir.Proxy:
    """A proxy that has nothing but patches."""
    name = ProxyName(kind, "10.0.0.1", "web", "ns")
    return ir.Proxy(
        identity=ir.ProxyIdentity(name=name), listeners=(), routes=(), clusters=(), patches=patches
    )


EMPTY: dict[str, dict[str, Any]] = {CLUSTER_TYPE: {}, LISTENER_TYPE: {}, ROUTE_TYPE: {}}


@pytest.mark.parametrize(
    ("kind", "context", "there"),
    [
        ("sidecar", Context.ANY, True),
        ("sidecar", Context.SIDECAR_INBOUND, True),
        ("sidecar", Context.SIDECAR_OUTBOUND, True),
        ("sidecar", Context.GATEWAY, False),
        ("router", Context.ANY, True),
        ("router", Context.GATEWAY, True),
        ("router", Context.SIDECAR_OUTBOUND, False),
    ],
)
def test_what_is_new_belongs_to_a_side(kind: str, context: Context, there: bool) -> None:
    patches = [
        patch(target, Operation.ADD, {"name": "new"}, context=context)
        for target in (Target.CLUSTER, Target.LISTENER, Target.EXTENSION_CONFIG)
    ]
    found = patched(EMPTY, proxy(*patches, kind=kind))
    for of_type in (CLUSTER_TYPE, LISTENER_TYPE, EXTENSION_TYPE):
        assert list(found.get(of_type, {})) == (["new"] if there else [])


def test_durations_may_be_written_as_go_does() -> None:
    protocols = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    value = {
        "connect_timeout": "500ms",
        "dnsRefreshRate": "1m30s",
        "outlier_detection": {"interval": "3.5s"},
        "typed_extension_protocol_options": {
            "x": {"@type": protocols, "common_http_protocol_options": {"idle_timeout": "1h"}}
        },
        "metadata": {"filter_metadata": {"mine": {"lifetime": "1h"}}},
    }
    wanted = patch(Target.CLUSTER, Operation.MERGE, value)
    assert flaws_of((wanted,)) == ()
    made = cluster_v3.Cluster(name="x")
    assert patch_cluster(made, Patches((wanted,)), OUT)
    assert to_dict(made) == {
        "name": "x",
        "connect_timeout": "0.500s",
        "dns_refresh_rate": "90s",
        "outlier_detection": {"interval": "3.500s"},
        "typed_extension_protocol_options": {
            "x": {"@type": protocols, "common_http_protocol_options": {"idle_timeout": "3600s"}}
        },
        "metadata": {"filter_metadata": {"mine": {"lifetime": "1h"}}},
    }
    broken = patch(Target.CLUSTER, Operation.MERGE, {"connect_timeout": "soon"})
    assert [one.severity for one in flaws_of((broken,))] == [Severity.ERROR]


def test_a_field_that_is_not_there_is_told_with_the_one_that_was_meant() -> None:
    value = {"name": "x", "connect_time_out": "1s"}
    (found,) = flaws_of((patch(Target.CLUSTER, Operation.ADD, value),))
    assert found.severity is Severity.WARNING
    assert "\n" not in found.message
    assert found.message == (
        "envoy.config.cluster.v3.Cluster has no field 'connect_time_out' (did you mean 'connect_timeout'?)"
    )


def test_what_cannot_be_read_is_told_with_its_path() -> None:
    patches = (
        patch(Target.CLUSTER, Operation.ADD, {"name": 7}, index=0),
        patch(Target.HTTP_FILTER, Operation.ADD,
              {"typed_config": {"@type": "type.googleapis.com/a.v2.B"}}, index=1),
        patch(Target.CLUSTER, Operation.MERGE, {"nmae": "x"}, index=2),
        patch(Target.CLUSTER, Operation.MERGE, {"name": "x"}, index=3),
        patch(Target.CLUSTER, Operation.REMOVE, index=4),
    )  # fmt: skip
    found = flaws_of(patches)
    assert [(one.path, one.severity) for one in found] == [
        ("spec.configPatches[0].patch.value", Severity.ERROR),
        ("spec.configPatches[1].patch.value", Severity.ERROR),
        ("spec.configPatches[2].patch.value", Severity.WARNING),
    ]
    assert "nmae" in found[2].message
    assert "v3" in found[1].hint


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": [1]}, "name: a text is expected, not a list"),
        ({"load_assignment": 5}, "load_assignment: an object is expected, not a number"),
        ({"load_assignment": {"endpoints": {"a": 1}}}, "load_assignment.endpoints: a list is expected"),
        ({"connect_timeout": {"a": 1}}, "connect_timeout: a duration is expected, as 5s"),
        (
            {"per_connection_buffer_limit_bytes": "many"},
            "per_connection_buffer_limit_bytes: a number is expected, not 'many'",
        ),
        ({"per_connection_buffer_limit_bytes": -4}, "per_connection_buffer_limit_bytes: -4 is out of range"),
        ({"type": "NO_SUCH"}, "NO_SUCH is no value of envoy.config.cluster.v3.Cluster.DiscoveryType"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_in_words(value: dict[str, Any], said: str) -> None:
    (flaw,) = flaws_of((patch(Target.CLUSTER, Operation.ADD, value),))
    assert flaw.message == said
