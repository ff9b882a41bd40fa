"""A description for people: short lines, each with the place that it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Report = dict[str, Any]


def text(report: Report) -> str:
    """The whole description."""
    lines = _workload(report) if report["kind"] == "workload" else _service(report)
    return "\n".join(line.rstrip() for line in lines)


def _place(item: Report) -> str:
    """`` (f.yaml:12)``."""
    if not item.get("file"):
        return ""
    return f" ({item['file']}:{item['line']})" if item.get("line") else f" ({item['file']})"


def _who(item: Report) -> str:
    space = f"{item['namespace']}/" if item["namespace"] else ""
    return f"{item['kind']} {space}{item['name']}"


def _full(item: Report) -> str:
    return f"{_who(item)}{_place(item)}"


def _section(title: str, lines: Iterable[str], nothing: str = "") -> Iterator[str]:
    body = list(lines)
    if body or nothing:
        yield ""
        yield title
        yield from (f"  {line}" for line in body or [nothing])


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Aligned; the last column is as long as it likes."""
    table = list(rows)
    if not table:
        return []
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in table
    ]


def _service(report: Report) -> Iterator[str]:
    yield _full(report["resource"])
    yield f"  hosts      {', '.join(report['hosts'])}"
    if report["addresses"]:
        yield f"  addresses  {', '.join(report['addresses'])}"
    if report["external"]:
        yield "  external   it is outside of the mesh"
    yield from _section("Ports", _columns(_ports(report)), "none")
    running = [one for one in report["endpoints"] if one["health"]]
    ready = sum(one["health"] == "healthy" for one in running)
    title = f"Endpoints ({ready} of {len(running)} ready)" if running else "Endpoints"
    yield from _section(title, _columns(map(_endpoint, report["endpoints"])), "nothing is behind it")
    yield from _section("Destination rules", _rules(report))
    yield from _section("Routes", _routes(report))
    yield from _section("Reached from outside by", _exposures(report))
    yield from _section("Who may connect", _columns(_modes(report)))
    yield from _section("Policies", _columns(map(_policy, report["policies"])))
    yield from _findings(report)


def _ports(report: Report) -> Iterator[tuple[str, ...]]:
    for port in report["ports"]:
        where = f" ({report['resource']['file']}:{port['line']})" if port["line"] else ""
        yield (
            str(port["number"]),
            port["name"] or "-",
            f"to {port['targetPort']}",
            port["protocol"],
            f"{port['decidedBy']}{where}",
        )


def _endpoint(endpoint: Report) -> tuple[str, ...]:
    subsets = f"subset {', '.join(endpoint['subsets'])}" if endpoint["subsets"] else "-"
    mesh = "in the mesh" if endpoint["mesh"] else "without sidecar"
    health = endpoint["health"] or "declared"
    return _who(endpoint["workload"]), endpoint["address"] or "-", health, mesh, subsets


def _rules(report: Report) -> Iterator[str]:
    for rule in report["destinationRules"]:
        said = [f"for {rule['host']}"]
        said += [f"TLS {rule['tls']}"] if rule["tls"] else []
        said += rule["policy"]
        said += [] if rule["effective"] else ["not obeyed in the service's namespace"]
        yield f"{_full(rule)}: {', '.join(said)}"
        for subset in rule["subsets"]:
            labels = ",".join(f"{key}={value}" for key, value in subset["labels"].items())
            who = ", ".join(subset["workloads"]) or "nobody"
            yield f"  subset {subset['name']}  {labels}  {who}{_line(rule, subset)}"
        for port in rule["ports"]:
            said = [*([f"TLS {port['tls']}"] if port["tls"] else []), *port["policy"]]
            yield f"  port {port['number']}  {', '.join(said)}"


def _line(item: Report, part: Report) -> str:
    return f" ({item['file']}:{part['line']})" if item["file"] and part["line"] else ""


def _routes(report: Report) -> Iterator[str]:
    for route in report["virtualServices"]:
        yield f"{_full(route)}: hosts {', '.join(route['hosts'])} at {', '.join(route['gateways'])}"
        yield from _route_rules(route)
    for route in report["routes"]:
        hosts = f"hosts {', '.join(route['hosts'])} at " if route["hosts"] else "at "
        yield f"{_full(route)}: {hosts}{', '.join(route['parents'])}"
        yield from _route_rules(route)


def _route_rules(route: Report) -> Iterator[str]:
    for rule in route["rules"]:
        name = f"{rule.get('kind', 'rule')}[{rule['index']}]" + (f" {rule['name']!r}" if rule["name"] else "")
        when = " or ".join(rule["matches"]) or "everything"
        ends = [_destination(one, rule) for one in rule["destinations"]]
        does = ", ".join([*rule["does"], *(f"mirrored to {_name(one)}" for one in rule["mirrors"])])
        to = f" -> {', '.join(ends)}" if ends else ""
        yield f"  {name}: {when}{to}{f'; {does}' if does else ''}{_line(route, rule)}"


def _name(destination: Report) -> str:
    port = f":{destination['port']}" if destination["port"] else ""
    subset = f" subset {destination['subset']}" if destination["subset"] else ""
    return f"{destination['host']}{port}{subset}"


def _destination(destination: Report, rule: Report) -> str:
    weighed = len(rule["destinations"]) > 1 and destination["weight"] is not None
    return f"{_name(destination)} ({destination['weight']})" if weighed else _name(destination)


def _exposures(report: Report) -> Iterator[str]:
    for one in report["exposed"]:
        for url in one["urls"]:
            yield f"{url}  {_full(one['gateway'])}, {_full(one['via'])}"


_MODES = {
    "STRICT": "mTLS only",
    "PERMISSIVE": "mTLS and plain text",
    "DISABLE": "plain text only",
}


def _modes(report: Report) -> Iterator[tuple[str, ...]]:
    for mode in report["mutualTls"]:
        port = f"port {mode['port']}" if mode["port"] is not None else "every port"
        by = _full(mode["decidedBy"]) if mode["decidedBy"] else "no PeerAuthentication says otherwise"
        who = f", at {', '.join(mode['workloads'])}" if mode.get("workloads") else ""
        yield port, mode["mode"], _MODES.get(mode["mode"], ""), f"{by}{who}"


def _policy(policy: Report) -> tuple[str, ...]:
    scopes = {"workload": "for the workload", "namespace": "for the namespace", "mesh": "for the mesh"}
    return _full(policy), scopes.get(policy["scope"], "for the service"), policy["summary"]


def _findings(report: Report) -> Iterator[str]:
    lines = []
    for one in report["findings"]:
        place = f" {one['reference']}" if one["reference"] else ""
        lines.append(f"{one['level']} [{one['code']}] ({one['origin']}{place}) {one['message']}")
    yield from _section("Findings", lines)


def _workload(report: Report) -> Iterator[str]:
    yield _full(report["resource"])
    labels = ",".join(f"{key}={value}" for key, value in report["labels"].items())
    yield f"  identity   {report['identity'] or report['serviceAccount']}"
    yield f"  labels     {labels or '-'}"
    if report["address"]:
        yield f"  address    {report['address']}" + (f" on {report['node']}" if report["node"] else "")
    if not report["inMesh"]:
        yield "  it has no sidecar: no rule of the mesh holds for its traffic"
    ports = ", ".join(f"{port['number']} {port['name']}".rstrip() for port in report["ports"])
    yield f"  ports      {ports or 'it declares none'}"
    yield from _section("Replicas", _columns(map(_replica, report["replicas"])))
    yield from _section("Services", _services(report), "no service selects it: nobody can call it by name")
    yield from _section("Serves the Gateways", map(_full, report["gateways"]))
    yield from _section("Who may connect", _columns(_modes(report)))
    yield from _section("Policies", _columns(map(_policy, report["policies"])))
    yield from _section("Proxy", _columns(map(_proxy, report["proxies"])))
    yield from _findings(report)


def _services(report: Report) -> Iterator[str]:
    for service in report["services"]:
        yield f"{_full(service)}: port{'s' * (len(service['ports']) != 1)} {', '.join(service['ports'])}"
        for subset in service["subsets"]:
            yield f"  subset {subset['name']} of {_full(subset['rule'])}"


def _replica(one: Report) -> tuple[str, ...]:
    return one["name"], one["address"] or "-", one["health"], f"on {one['node']}" if one["node"] else ""


def _proxy(row: Report) -> tuple[str, ...]:
    sent = ((short, state["status"]) for short, state in row["types"].items())
    types = ", ".join(f"{short} {status}" for short, status in sent if status != "NOT SENT")
    refused = "; ".join(f"refuses {one['type']} {one['name']}: {one['error']}" for one in row["rejected"])
    return f"{row['name']}.{row['namespace']}", types, refused or f"Envoy {row['version']}"
