"""Tables out of an Envoy's ``/config_dump``, with istioctl's columns. Pure: a dump in, rows out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from weft.names import ClusterName

Json = dict[str, Any]

_STATUS: Final = {"UNKNOWN": "HEALTHY", "": "HEALTHY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a person narrows a table by; empty fields match everything."""

    fqdn: str = ""
    port: int | None = None
    direction: str = ""
    subset: str = ""
    name: str = ""
    address: str = ""
    cluster: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """``raw`` are the parts of the dump behind the rows, for ``-o json``."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    raw: Sequence[Json]


def sections(dump: Json, kind: str) -> Iterator[Json]:
    """Parts of a dump: ``Clusters`` gives those of type ``…ClustersConfigDump``."""
    for config in dump.get("configs", []):
        if str(config.get("@type", "")).endswith(f".{kind}ConfigDump"):
            yield config


def _resources(dump: Json, kind: str, groups: Iterable[str], field: str) -> Iterator[Json]:
    for section in sections(dump, kind):
        for group in groups:
            for entry in section.get(group, []):
                found = entry.get("active_state", entry).get(field)
                if found is not None:
                    yield found


def _istio_source(resource: Json) -> str:
    """``name.namespace`` of the resource that Istio's metadata says this came from."""
    path = resource.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("config", "")
    parts = str(path).split("/")
    if "namespaces" in parts:
        at = parts.index("namespaces")
        return f"{parts[-1]}.{parts[at + 1]}"
    return ""


def clusters(dump: Json, by: Filter) -> Table:
    """SERVICE FQDN, PORT, SUBSET, DIRECTION, TYPE, DESTINATION RULE."""
    rows: list[tuple[str, ...]] = []
    raw: list[Json] = []
    groups = ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters")
    for cluster in _resources(dump, "Clusters", groups, "cluster"):
        text = str(cluster.get("name", ""))
        name = ClusterName.parse(text)
        host, port = (name.host or text, name.port) if name else (text, None)
        if (
            (by.fqdn and by.fqdn not in host)
            or (by.port is not None and port != by.port)
            or (by.subset and (name is None or name.subset != by.subset))
            or (by.direction and (name is None or name.direction != by.direction))
        ):
            continue
        kind = cluster.get("type") or cluster.get("cluster_type", {}).get("name") or "STATIC"
        raw.append(cluster)
        rows.append(
            (
                host,
                str(port) if port is not None else "-",
                (name.subset if name else "") or "-",
                name.direction if name else "-",
                str(kind),
                _istio_source(cluster),
            )
        )
    return _sorted(
        Table(("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"), rows, raw)
    )


def _address(holder: Json) -> tuple[str, int | None]:
    address = holder.get("address", {})
    if "pipe" in address:
        return f"unix://{address['pipe'].get('path', '')}", None
    socket = address.get("socket_address", {})
    port = socket.get("port_value")
    return str(socket.get("address", "")), int(port) if port is not None else None


def listeners(dump: Json, by: Filter) -> Table:
    """ADDRESSES, PORT, MATCH, DESTINATION; one row a filter chain."""
    rows: list[tuple[str, ...]] = []
    raw: list[Json] = []
    for listener in _resources(dump, "Listeners", ("static_listeners", "dynamic_listeners"), "listener"):
        address, port = _address(listener)
        if (by.address and by.address != address) or (by.port is not None and port != by.port):
            continue
        if by.name and by.name != listener.get("name"):
            continue
        raw.append(listener)
        chains = list(listener.get("filter_chains", []))
        if "default_filter_chain" in listener:
            chains.append(listener["default_filter_chain"])
        shown = str(port) if port is not None else "-"
        rows += [(address, shown, _match(chain), _destination(chain)) for chain in chains or [{}]]
    return Table(("ADDRESSES", "PORT", "MATCH", "DESTINATION"), rows, raw)


def _match(chain: Json) -> str:
    match = chain.get("filter_chain_match", {})
    parts = []
    if match.get("transport_protocol"):
        parts.append(f"Trans: {match['transport_protocol']}")
    if match.get("application_protocols"):
        parts.append("App: " + ",".join(match["application_protocols"]))
    if match.get("server_names"):
        parts.append("SNI: " + ",".join(match["server_names"]))
    cidrs = match.get("prefix_ranges", [])
    parts += [f"Addr: {cidr.get('address_prefix')}/{cidr.get('prefix_len', 0)}" for cidr in cidrs]
    if match.get("destination_port") is not None:
        parts.append(f"Port: {match['destination_port']}")
    return "; ".join(parts) or "ALL"


def _destination(chain: Json) -> str:
    for item in chain.get("filters", []):
        config = item.get("typed_config", {})
        kind = str(config.get("@type", ""))
        if kind.endswith(".HttpConnectionManager"):
            if "rds" in config:
                return f"Route: {config['rds'].get('route_config_name', '')}"
            hosts = config.get("route_config", {}).get("virtual_hosts", [])
            found = {_action(route) for host in hosts for route in host.get("routes", [])}
            return "Inline Route: " + ", ".join(sorted(found)) if found else "Inline Route"
        if kind.endswith(".TcpProxy"):
            if "cluster" in config:
                return f"Cluster: {config['cluster']}"
            weighted = config.get("weighted_clusters", {}).get("clusters", [])
            return "Clusters: " + ", ".join(f"{one['name']} {one.get('weight', 0)}" for one in weighted)
    return "Non-HTTP/Non-TCP"


def _action(route: Json) -> str:
    forward = route.get("route", {})
    if "cluster" in forward:
        return str(forward["cluster"])
    if "weighted_clusters" in forward:
        clusters = forward["weighted_clusters"].get("clusters", [])
        return " ".join(f"{one.get('name')}:{one.get('weight', 0)}" for one in clusters)
    if "redirect" in route:
        return "redirect"
    if "direct_response" in route:
        return f"direct {route['direct_response'].get('status')}"
    return "-"


def routes(dump: Json, by: Filter) -> Table:
    """NAME, VHOST NAME, DOMAINS, MATCH, TO, VIRTUAL SERVICE; one row a route."""
    rows: list[tuple[str, ...]] = []
    raw: list[Json] = []
    groups = ("static_route_configs", "dynamic_route_configs")
    for table in _resources(dump, "Routes", groups, "route_config"):
        if by.name and by.name != table.get("name"):
            continue
        raw.append(table)
        for host in table.get("virtual_hosts", []):
            domains = host.get("domains", [])
            shown = ", ".join(domains[:3]) + (f" + {len(domains) - 3} more" if len(domains) > 3 else "")
            head = (str(table.get("name", "")), str(host.get("name", "")), shown)
            rows += [
                (*head, _path(route.get("match", {})), _action(route), _istio_source(route))
                for route in host.get("routes", [])
            ]
    return Table(("NAME", "VHOST NAME", "DOMAINS", "MATCH", "TO", "VIRTUAL SERVICE"), rows, raw)


def _path(match: Json) -> str:
    for field, form in (("prefix", "{}*"), ("path", "{}"), ("path_separated_prefix", "{}/*")):
        if field in match:
            text = form.format(match[field])
            break
    else:
        text = "regex " + match["safe_regex"].get("regex", "") if "safe_regex" in match else "*"
    headers = [header.get("name", "") for header in match.get("headers", [])]
    return f"{text} [{', '.join(headers)}]" if headers else text


def endpoints(dump: Json, by: Filter, live: Json | None = None) -> Table:
    """ENDPOINT, STATUS, OUTLIER CHECK, CLUSTER. ``live`` is ``/clusters?format=json``, if it can be had."""
    found = _live(live) if live is not None else _configured(dump)
    rows: list[tuple[str, ...]] = []
    raw: list[Json] = []
    for (address, port, status, outlier, cluster), data in found:
        if (
            (by.cluster and by.cluster != cluster)
            or (by.address and by.address != address)
            or (by.port is not None and by.port != port)
            or (by.status and by.status.upper() != status)
        ):
            continue
        raw.append(data)
        rows.append((f"{address}:{port}" if port else address, status, outlier, cluster))
    return _sorted(Table(("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"), rows, raw))


_Endpoint = tuple[tuple[str, int | None, str, str, str], Json]


def _live(clusters: Json) -> Iterator[_Endpoint]:
    for cluster in clusters.get("cluster_statuses", []):
        for host in cluster.get("host_statuses", []):
            address, port = _address(host)
            health = host.get("health_status", {})
            status = str(health.get("eds_health_status", ""))
            if health.get("failed_active_health_check"):
                status = "UNHEALTHY"
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            key = (address, port, _STATUS.get(status, status), outlier, str(cluster.get("name", "")))
            yield key, {"cluster": cluster.get("name"), **host}


def _configured(dump: Json) -> Iterator[_Endpoint]:
    groups = ("static_endpoint_configs", "dynamic_endpoint_configs")
    for assignment in _resources(dump, "Endpoints", groups, "endpoint_config"):
        for place in assignment.get("endpoints", []):
            for host in place.get("lb_endpoints", []):
                address, port = _address(host.get("endpoint", {}))
                status = str(host.get("health_status", ""))
                name = str(assignment.get("cluster_name", ""))
                yield (address, port, _STATUS.get(status, status), "-", name), {"cluster": name, **host}


def secrets(dump: Json, by: Filter) -> Table:
    """RESOURCE NAME, TYPE, STATUS, VALID CERT, SERIAL NUMBER, NOT AFTER, NOT BEFORE."""
    rows: list[tuple[str, ...]] = []
    raw: list[Json] = []
    for section in sections(dump, "Secrets"):
        for group, status in (
            ("static_secrets", "ACTIVE"),
            ("dynamic_active_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
        ):
            for entry in section.get(group, []):
                secret = entry.get("secret", {})
                name = str(entry.get("name", secret.get("name", "")))
                if by.name and by.name != name:
                    continue
                raw.append(entry)
                rows.append((name, *_certificate(secret, status)))
    columns = ("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")
    return _sorted(Table(columns, rows, raw))


def _certificate(secret: Json, status: str) -> tuple[str, ...]:
    if "tls_certificate" in secret:
        kind, source = "Cert Chain", secret["tls_certificate"].get("certificate_chain", {})
    elif "validation_context" in secret:
        kind, source = "CA", secret["validation_context"].get("trusted_ca", {})
    else:
        return "-", status, "-", "-", "-", "-"
    import base64

    from cryptography import x509

    try:
        text = source.get("inline_string", "").encode() or base64.b64decode(source.get("inline_bytes", ""))
        certificate = x509.load_pem_x509_certificate(text)
    except ValueError:
        return kind, status, "-", "-", "-", "-"
    now = datetime.datetime.now(datetime.UTC)
    valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    return (
        kind,
        status,
        str(valid).lower(),
        format(certificate.serial_number, "x"),
        certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def bootstrap(dump: Json, by: Filter) -> Table:
    """The bootstrap has no table: its JSON is what there is to see."""
    raw = [section.get("bootstrap", {}) for section in sections(dump, "Bootstrap")]
    rows = [
        (str(one.get("node", {}).get("id", "")), str(one.get("node", {}).get("cluster", ""))) for one in raw
    ]
    return Table(("NODE", "CLUSTER"), rows, raw)


TABLES: Final[dict[str, Callable[[Json, Filter], Table]]] = {
    "bootstrap": bootstrap,
    "cluster": clusters,
    "listener": listeners,
    "route": routes,
    "endpoint": endpoints,
    "secret": secrets,
}


def _sorted(table: Table) -> Table:
    pairs = sorted(zip(table.rows, table.raw, strict=True), key=lambda pair: pair[0])
    return Table(table.columns, [row for row, _ in pairs], [data for _, data in pairs])
