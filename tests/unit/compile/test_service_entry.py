"""ServiceEntries: entries that complete each other, names that are looked up, addresses, selected workloads."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import (
    cluster,
    forward,
    host,
    identity,
    instance,
    listener,
    proxy,
    resources,
    service,
    table,
    world,
)

from weft import ir
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.endpoints import pack
from weft.emit.placement import groups


def entry(spec: str, *, name: str = "e", namespace: str = "default", more: str = "") -> str:
    meta = f"{{name: {name}, namespace: {namespace}{more}}}"
    return f"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {meta}\nspec: {spec}\n"


def addresses(of: World, name: str) -> list[tuple[str, int]]:
    return [(endpoint.address, endpoint.port) for endpoint in endpoint_set(of, name).endpoints]


def outbound(of: ir.Proxy) -> list[str]:
    return sorted(item.name for item in of.clusters if item.name.startswith("outbound|"))


WEB = "{hosts: [a.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}"
TLS = "{hosts: [a.example.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}"


def test_entries_of_one_host_are_one_service() -> None:
    of = world(entry(WEB, name="web"), entry(TLS, name="tls"))
    made = proxy(of)
    assert outbound(made) == ["outbound|443||a.example.com", "outbound|80||a.example.com"]
    # They share the address that names of the mesh resolve to.
    (address,) = {item.address for item in made.listeners if item.port == 443}
    assert address.startswith("240.240.")
    assert host(table(made, "80"), "a.example.com").domains[-1] == address
    assert not compile_proxy(of, identity())[1]


def test_endpoints_serve_the_ports_of_their_own_entry() -> None:
    static = "{hosts: [a.example.com], resolution: STATIC, ports: [{number: %d, name: p%d, protocol: TCP}], endpoints: [{address: %s}]}"
    of = world(
        entry(static % (1, 1, "10.0.0.1"), name="a"),
        entry(static % (2, 2, "10.0.0.2"), name="b"),
        entry(static % (1, 1, "10.0.0.3"), name="c"),
    )
    assert addresses(of, "outbound|1||a.example.com") == [("10.0.0.1", 1), ("10.0.0.3", 1)]
    assert addresses(of, "outbound|2||a.example.com") == [("10.0.0.2", 2)]
    rest = of.replace((), [of.services.parts["a.example.com"][0].source])
    assert addresses(rest, "outbound|1||a.example.com") == [("10.0.0.3", 1)]


@pytest.mark.parametrize(
    "second",
    [
        entry(TLS.replace("DNS", "NONE"), name="tls"),
        entry(TLS[:-1] + ", exportTo: ['.']}", name="tls"),
        entry(TLS[:-1] + ", location: MESH_INTERNAL}", name="tls"),
    ],
)
def test_entries_that_contradict_each_other(second: str) -> None:
    of = world(entry(WEB, name="web", more=", creationTimestamp: '2020-01-01T00:00:00Z'"), second)
    made, problems = compile_proxy(of, identity())
    assert outbound(made) == ["outbound|80||a.example.com"]
    assert [(problem.code, problem.resource) for problem in problems] == [
        ("WEFT0111", "ServiceEntry default/tls")
    ]


def test_a_service_of_kubernetes_keeps_its_name() -> None:
    squatter = entry(
        "{hosts: [web.default.svc.cluster.local], resolution: DNS, ports: [{number: 81, name: http, protocol: HTTP}]}",
        more=", creationTimestamp: '2001-01-01T00:00:00Z'",
    )
    made, problems = compile_proxy(world(service("web"), squatter), identity())
    assert outbound(made) == ["outbound|80||web.default.svc.cluster.local"]
    assert [problem.resource for problem in problems] == ["ServiceEntry default/e"]


LOOKED_UP = "{hosts: ['*.example.com'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}, {number: 81, name: h2, protocol: HTTP2}]}"


def test_the_names_of_a_wildcard_are_looked_up() -> None:
    subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: '*.example.com', subsets: [{name: v1, labels: {a: b}}]}\n"
    made = proxy(world(entry(LOOKED_UP), subsets))
    assert outbound(made) == [f"outbound|{port}||*.example.com" for port in (443, 80, 81)]
    assert {item.discovery for item in made.clusters if "example" in item.name} == {ir.Discovery.NAMED}
    assert cluster(made, "outbound|81||*.example.com").protocol is ir.UpstreamProtocol.HTTP2
    http = listener(made, "0.0.0.0_80").chains[0].handler
    assert isinstance(http, ir.HttpHandler)
    assert http.looks_up
    (route,) = host(table(made, "80"), "*.example.com").routes
    assert forward(route).destinations[0].cluster == "outbound|80||*.example.com"
    (chain,) = listener(made, "0.0.0.0_443").chains
    assert chain.match.server_names == ("*.example.com",)
    assert isinstance(chain.handler, ir.TcpHandler)
    assert chain.handler.look_up_port == 443


def test_gateways_look_names_up_too() -> None:
    edge = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}\n"
    made = proxy(world(entry(LOOKED_UP), edge), "router~10.0.0.1~g.default")
    handler = listener(made, "0.0.0.0_80").chains[0].handler
    assert isinstance(handler, ir.HttpHandler)
    assert handler.looks_up


def test_without_resolution_the_port_may_be_another() -> None:
    spec = "{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 81, name: h2, protocol: HTTP}]}"
    made = proxy(world(entry(spec)))
    assert cluster(made, "outbound|80||a.example.com").original_port == 8080
    assert cluster(made, "outbound|81||a.example.com").original_port is None


def test_addresses() -> None:
    spec = "{hosts: [a.example.com], addresses: [10.1.1.1, 10.1.1.2/32, 10.2.0.0/16], ports: [{number: 5, name: tcp, protocol: TCP}]}"
    made = proxy(world(entry(spec)))
    assert [item.name for item in made.listeners if item.port == 5] == [
        "0.0.0.0_5",
        "10.1.1.1_5",
        "10.1.1.2_5",
    ]
    (chain,) = listener(made, "0.0.0.0_5").chains
    assert chain.match.addresses == ("10.2.0.0/16",)


def test_two_entries_for_the_same_addresses() -> None:
    spec = "{hosts: [%s.example.com], addresses: [%s], ports: [{number: 9999, name: tcp, protocol: TCP}]}"
    # Bits behind the prefix say nothing: these are the same addresses.
    same = world(entry(spec % ("a", "10.1.2.3/8"), name="a"), entry(spec % ("b", "10.9.9.9/8"), name="b"))
    chains = listener(proxy(same), "0.0.0.0_9999").chains
    assert [chain.name for chain in chains] == ["outbound|9999||a.example.com"]
    some = world(
        entry(spec % ("a", "1.1.1.1"), name="a"), entry(spec % ("b", "'2.2.2.2', '1.1.1.1'"), name="b")
    )
    made = proxy(some)
    assert listener(made, "1.1.1.1_9999").chains[0].name == "outbound|9999||a.example.com"
    assert listener(made, "2.2.2.2_9999").chains[0].name == "outbound|9999||b.example.com"


def test_selected_workloads_of_a_name_are_looked_up() -> None:
    spec = "{hosts: [a.example.com], resolution: DNS, workloadSelector: {labels: {app: a}}, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]}"
    of = world(
        entry(spec),
        instance("one", "a", "one.example.com"),
        instance("two", "a", "two.example.com", ports="{http: 9090}"),
    )
    found = cluster(proxy(of), "outbound|80||a.example.com")
    assert found.discovery is ir.Discovery.STRICT_DNS
    assert [(to.address, to.port) for to in found.endpoints] == [
        ("one.example.com", 8080),
        ("two.example.com", 9090),
    ]
    # Nobody is there yet: the host is no address of a workload.
    assert cluster(proxy(world(entry(spec))), "outbound|80||a.example.com").endpoints == ()


def test_labels_of_the_metadata_win() -> None:
    spec = "{hosts: [a.example.com], resolution: STATIC, workloadSelector: {labels: {app: outer}}, ports: [{number: 80, name: http, protocol: HTTP}]}"
    workload = instance("one", "inner", "10.0.0.1").replace(
        "metadata: {", "metadata: {labels: {app: outer}, "
    )
    assert addresses(world(entry(spec), workload), "outbound|80||a.example.com") == [("10.0.0.1", 80)]


def test_hidden_entries() -> None:
    hidden = WEB[:-1] + ", exportTo: ['~']}"
    assert outbound(proxy(world(entry(hidden)))) == []
    meant = hidden.replace("['~']", "[default]")
    assert outbound(proxy(World.build(resources(entry(meant, namespace="other"))))) == [
        "outbound|80||a.example.com"
    ]


PRIVATE = "{hosts: [a.example.com], exportTo: ['.'], resolution: %s, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: %s}]}"


def seen_from(of: World, namespace: str) -> list[str]:
    """The endpoints that a client of a namespace gets for ``a.example.com``."""
    name = "outbound|80||a.example.com"
    made = cluster(proxy(of, f"sidecar~10.0.0.9~x.{namespace}"), name)
    if made.discovery is not ir.Discovery.EDS:
        return [endpoint.address for endpoint in made.endpoints]
    assert pack(endpoint_set(of, name), made.placement)
    found = groups(endpoint_set(of, name).endpoints, made.placement)
    return [endpoint.address for group in found for endpoint in group.endpoints]


def test_each_namespace_has_its_own_entry_of_a_host() -> None:
    of = world(
        entry(PRIVATE % ("STATIC", "10.0.0.1"), namespace="default"),
        entry(PRIVATE % ("STATIC", "10.0.0.2"), namespace="other"),
        entry(PRIVATE % ("DNS", "db.example.net"), namespace="third"),
    )
    assert seen_from(of, "default") == ["10.0.0.1"]
    assert seen_from(of, "other") == ["10.0.0.2"]
    assert seen_from(of, "third") == ["db.example.net"]
    # Alone again, nobody needs to choose.
    rest = of.replace((), [key for key in of.services.by_source if key.namespace != "other"])
    assert seen_from(rest, "other") == ["10.0.0.2"]
    assert (
        cluster(proxy(rest, "sidecar~10.0.0.9~x.other"), "outbound|80||a.example.com").placement
        == ir.Placement()
    )


def test_an_entry_without_endpoints_does_not_take_another_namespace_s() -> None:
    of = world(
        entry(PRIVATE % ("STATIC", "10.0.0.1"), namespace="default"),
        entry((PRIVATE % ("STATIC", "x")).replace(", endpoints: [{address: x}]", ""), namespace="other"),
    )
    assert (seen_from(of, "default"), seen_from(of, "other")) == (["10.0.0.1"], [])
