"""Worlds and proxies from YAML text, for tests of what is compiled."""

from __future__ import annotations

from textwrap import dedent

from weft import ir
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.model.parse import parse
from weft.model.resource import Resource
from weft.names import ProxyName
from weft.yaml import load

SIDECAR = "sidecar~10.9.9.9~client.default"


def resources(*texts: str) -> tuple[Resource, ...]:
    """Resources of YAML texts, each of several documents."""
    found: list[Resource] = []
    for text in texts:
        documents, problems = load(dedent(text), "test.yaml")
        assert not problems, problems
        for document in documents:
            resource, problems = parse(document)
            assert resource is not None, [str(problem) for problem in problems]
            found.append(resource)
    return tuple(found)


def world(*texts: str) -> World:
    """A world of these resources."""
    return World.build(resources(*texts))


def service(
    name: str, port: int = 80, *, port_name: str = "http", namespace: str = "default", **spec: object
) -> str:
    """A Service that selects ``app: NAME``, as YAML."""
    more = "".join(f"\n  {key}: {value}" for key, value in spec.items())
    return (
        dedent(f"""
        apiVersion: v1
        kind: Service
        metadata: {{name: {name}, namespace: {namespace}}}
        spec:
          selector: {{app: {name}}}
          ports: [{{name: {port_name}, port: {port}}}]
        """).rstrip()
        + more
        + "\n"
    )


def instance(
    name: str,
    app: str,
    address: str,
    *,
    account: str = "default",
    namespace: str = "default",
    version: str = "v1",
    ports: str = "{}",
) -> str:
    """A registered workload, as YAML."""
    return dedent(f"""
        apiVersion: networking.istio.io/v1
        kind: WorkloadEntry
        metadata: {{name: {name}, namespace: {namespace}}}
        spec:
          address: {address}
          labels: {{app: {app}, version: {version}}}
          serviceAccount: "{account}"
          ports: {ports}
        """)


def identity(
    node: str = SIDECAR,
    labels: dict[str, str] | None = None,
    attachment: ir.Attachment | None = None,
    port_map: tuple[tuple[int, int], ...] = (),
) -> ir.ProxyIdentity:
    """A proxy's identity."""
    return ir.ProxyIdentity(
        name=ProxyName.parse(node),
        labels=tuple(sorted((labels or {}).items())),
        attachment=attachment or ir.Attachment(),
        port_map=port_map,
    )


def proxy(of: World, node: str = SIDECAR, **more: object) -> ir.Proxy:
    """What a proxy shall do."""
    return compile_proxy(of, identity(node, **more))[0]  # type: ignore[arg-type]


def cluster(of: ir.Proxy, name: str) -> ir.Cluster:
    """A cluster by its name."""
    return next(cluster for cluster in of.clusters if cluster.name == name)


def listener(of: ir.Proxy, name: str) -> ir.Listener:
    """A listener by its name."""
    return next(listener for listener in of.listeners if listener.name == name)


def table(of: ir.Proxy, name: str) -> ir.RouteTable:
    """A route table by its name."""
    return next(table for table in of.routes if table.name == name)


def host(of: ir.RouteTable, domain: str) -> ir.VirtualHost:
    """The virtual host that has a domain."""
    return next(host for host in of.virtual_hosts if domain in host.domains)


def forward(route: ir.Route) -> ir.Forward:
    """A route's action, which must be to forward."""
    assert isinstance(route.action, ir.Forward)
    return route.action
