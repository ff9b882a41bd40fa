"""Names of the mesh and what they resolve to."""

from __future__ import annotations

from tests.support.compiled import instance, service, world

from weft.control.names import names


def external(name: str, target: str) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec: {{type: ExternalName, externalName: {target}}}\n"
    )


def test_a_service_has_its_address_and_an_external_one_stays_unknown() -> None:
    table = names(world(service("web", clusterIP="10.96.0.1", externalIPs="[192.0.2.1]")))
    assert table == {"web.default.svc.cluster.local": ("10.96.0.1",)}


def test_workloads_of_a_headless_service_have_names_of_their_own() -> None:
    sick = instance("db-1", "db", "10.0.0.2") + 'status: {conditions: [{type: Healthy, status: "False"}]}\n'
    members = (instance("db-0", "db", "10.0.0.1"), sick)
    host = "db.default.svc.cluster.local"
    table = names(world(service("db", clusterIP="None"), *members))
    assert table == {host: ("10.0.0.1",), f"db-0.{host}": ("10.0.0.1",)}
    eager = names(world(service("db", clusterIP="None", publishNotReadyAddresses="true"), *members))
    assert eager[host] == ("10.0.0.1", "10.0.0.2")
    assert eager[f"db-1.{host}"] == ("10.0.0.2",)


def test_listed_workloads_are_called_by_their_host_names() -> None:
    slice_ = """
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
        addressType: IPv4
        ports: [{name: http, port: 80}]
        endpoints:
        - {addresses: [10.0.0.1], hostname: db-0}
        - {addresses: [10.0.0.2]}
    """
    bare = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: default}\nspec: {clusterIP: None}\n"
    )
    ports = bare.replace("None}", "None, ports: [{name: http, port: 80}]}")
    host = "db.default.svc.cluster.local"
    assert names(world(ports, slice_)) == {host: ("10.0.0.1", "10.0.0.2"), f"db-0.{host}": ("10.0.0.1",)}


def test_external_names_lead_on_through_each_other() -> None:
    table = names(
        world(
            service("web", clusterIP="10.96.0.1"),
            external("one", "two.default.svc.cluster.local"),
            external("two", "web.default.svc.cluster.local"),
            external("out", "www.example.com."),
            external("far", "out.default.svc.cluster.local"),
            external("round", "again.default.svc.cluster.local"),
            external("again", "round.default.svc.cluster.local"),
            external("gone", "nobody.default.svc.cluster.local"),
        )
    )
    end = ".default.svc.cluster.local"
    assert {name.removesuffix(end): found for name, found in table.items()} == {
        "web": ("10.96.0.1",),
        "one": ("10.96.0.1",),
        "two": ("10.96.0.1",),
        "out": ("www.example.com",),
        "far": ("www.example.com",),
    }
