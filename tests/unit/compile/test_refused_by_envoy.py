"""What is valid, and what Envoy would refuse as it stands: it is left out and told, all else stays."""

from __future__ import annotations

from tests.support.compiled import instance, proxy, service, world

from weft.compile.endpoints import endpoint_set
from weft.compile.problems import problems_of


def test_an_address_that_is_a_name() -> None:
    made = world(
        service("web"),
        instance("web-0", "web", "10.0.0.1"),
        instance("web-1", "web", "db.example.com"),
        instance("web-2", "web", "unix:///run/web.sock").replace("ports: {}", ""),
    )
    found = endpoint_set(made, "outbound|80||web.default.svc.cluster.local")
    assert [endpoint.address for endpoint in found.endpoints] == ["10.0.0.1", "unix:///run/web.sock"]
    (problem,) = problems_of(made, "default")
    assert problem.resource == "WorkloadEntry default/web-1"
    assert problem.path == "spec.address"
    assert "db.example.com" in problem.message


def test_names_behind_a_headless_service_get_no_listener() -> None:
    made = world(
        service("web", 9000, port_name="tcp", clusterIP='"None"'),
        instance("web-0", "web", "10.0.0.1"),
        instance("web-1", "web", "db.example.com"),
    )
    names = [listener.name for listener in proxy(made).listeners if listener.port == 9000]
    assert names == ["10.0.0.1_9000"]


def test_the_ports_of_the_sidecar_itself() -> None:
    made = world(service("in", 15006), service("out", 15001), service("web", 80))
    listeners = proxy(made).listeners
    assert [item.name for item in listeners] == ["virtualOutbound", "0.0.0.0_80", "virtualInbound"]
    told = problems_of(made, "default")
    assert [(item.resource, item.path) for item in told] == [
        ("Service default/in", "spec.ports[0]"),
        ("Service default/out", "spec.ports[0]"),
    ]
