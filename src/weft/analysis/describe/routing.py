"""Which routes lead to a service, or decide where its requests go, and from which gateways it is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from weft.analysis.analyzers.virtual_services import MESH, SERVICE, place_of
from weft.analysis.describe.picture import Picture, Report, ref
from weft.analysis.hosts import overlap
from weft.analysis.objects import Object
from weft.analysis.tree import at, number, pairs, rows, table, word, words
from weft.compile.hosts import narrower
from weft.model.catalog import GATEWAY_API
from weft.names import expand_host
from weft.yaml import Path

GATEWAY: Final = "networking.istio.io/Gateway"
_ROUTES: Final = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
_SCHEMES: Final = {"HTTP2": "http"}
_USUAL: Final = {"http": 80, "https": 443}

Routing = tuple[Object, Report]


def virtual_services(picture: Picture, hosts: Sequence[str]) -> list[Routing]:
    """VirtualServices for a host, and those that send to it (``roles``: ``host``, ``destination``)."""
    found: list[Routing] = []
    for item in picture.scene.of(SERVICE):
        own = [expand_host(host, item.namespace, picture.domain) for host in words(item.spec, "hosts")]
        bound = words(item.spec, "gateways") or [MESH]
        named = MESH in bound and any(overlap(one, host) for one in own for host in hosts)
        rules = [rule for rule in _rules(item, hosts, picture.domain) if named or rule["toService"]]
        roles = [
            role
            for role, holds in (("host", named), ("destination", any(rule["toService"] for rule in rules)))
            if holds
        ]
        if roles:
            report = {**ref(item), "roles": roles, "hosts": words(item.spec, "hosts"), "gateways": bound}
            found.append((item, {**report, "rules": rules}))
    return found


def _rules(item: Object, hosts: Sequence[str], domain: str) -> Iterator[Report]:
    for kind in ("http", "tls", "tcp"):
        for index, rule in rows(item.spec, kind):
            path: Path = ("spec", kind, index)
            where = item.where(path)
            targets = [
                {**_destination(table(part, "destination"), item, domain), "weight": number(part, "weight")}
                for _, part in rows(rule, "route")
            ]
            copies = [table(part, "destination") for _, part in rows(rule, "mirrors")]
            copies += [table(rule, "mirror")] if table(rule, "mirror") else []
            mirrors = [_destination(copy, item, domain) for copy in copies]
            yield {
                "kind": kind,
                "index": index,
                "name": word(rule, "name"),
                "line": where.line if where else 0,
                "matches": [_match(match) for _, match in rows(rule, "match")],
                "destinations": targets,
                "mirrors": mirrors,
                "does": _does(rule),
                "toService": any(target["host"] in hosts for target in (*targets, *mirrors)),
            }


def _destination(destination: Mapping[str, Any], item: Object, domain: str) -> Report:
    return {
        "host": expand_host(word(destination, "host"), item.namespace, domain),
        "subset": word(destination, "subset"),
        "port": number(destination, "port", "number"),
    }


def _string(match: Any) -> str:
    for how in ("exact", "prefix", "regex"):
        if isinstance(found := at(match, how), str):
            return f"{how} {found}"
    return "is there"


def _match(match: Mapping[str, Any]) -> str:
    """A match of a VirtualService in words."""
    said = [
        f"{'path' if field == 'uri' else field} {_string(match[field])}"
        for field in ("uri", "scheme", "method", "authority")
        if isinstance(match.get(field), dict)
    ]
    for field, text in (("headers", "header"), ("withoutHeaders", "no header"), ("queryParams", "query")):
        said += [f"{text} {name} {_string(value)}" for name, value in table(match, field).items()]
    said += [f"SNI {host}" for host in words(match, "sniHosts")]
    if (port := number(match, "port")) is not None:
        said.append(f"port {port}")
    said += [f"source {key}={value}" for key, value in pairs(match, "sourceLabels").items()]
    if space := word(match, "sourceNamespace"):
        said.append(f"source namespace {space}")
    return ", ".join(said) or "everything"


def _does(rule: Mapping[str, Any]) -> list[str]:
    """What a rule does besides sending somewhere."""
    said = []
    if redirect := table(rule, "redirect"):
        said.append(f"redirects to {word(redirect, 'authority')}{word(redirect, 'uri')}")
    if direct := table(rule, "directResponse"):
        said.append(f"answers {word(direct, 'status')} itself")
    if delegate := table(rule, "delegate"):
        said.append(f"delegates to {word(delegate, 'namespace') or '.'}/{word(delegate, 'name')}")
    if timeout := word(rule, "timeout"):
        said.append(f"timeout {timeout}")
    if (attempts := number(rule, "retries", "attempts")) is not None:
        said.append(f"up to {attempts} retries" if attempts else "no retries")
    fault = table(rule, "fault")
    said += [f"injects {kind}s" for kind in ("delay", "abort") if kind in fault]
    said += [
        text
        for field, text in (("rewrite", "rewrites"), ("corsPolicy", "CORS"), ("headers", "edits headers"))
        if table(rule, field)
    ]
    return said


def routes(picture: Picture, item: Object) -> list[Routing]:
    """Routes of the Gateway API with a service as a parent (in the mesh) or as a backend."""
    kind = item.kind.rpartition("/")[2]
    found: list[Routing] = []
    for name in _ROUTES:
        for route in picture.scene.of(f"{GATEWAY_API}/{name}"):
            parents = [row for _, row in rows(route.spec, "parentRefs")]
            named = any(_means(row, route, item, kind, "Gateway") for row in parents)
            rules = [
                rule
                for index, row in rows(route.spec, "rules")
                if (rule := _route_rule(route, index, row, item, kind))["toService"] or named
            ]
            roles = [
                role
                for role, holds in (
                    ("parent", named),
                    ("backend", any(rule["toService"] for rule in rules)),
                )
                if holds
            ]
            if roles:
                report = {
                    **ref(route),
                    "roles": roles,
                    "hosts": words(route.spec, "hostnames"),
                    "parents": [_parent(row, route) for row in parents],
                    "rules": rules,
                }
                found.append((route, report))
    return found


def _means(row: Mapping[str, Any], route: Object, item: Object, kind: str, default: str) -> bool:
    """Whether a reference of a route is to this service."""
    meant = (word(row, "kind") or default, word(row, "name"), word(row, "namespace") or route.namespace)
    return meant == (kind, item.name, item.namespace)


def _parent(row: Mapping[str, Any], route: Object) -> str:
    section = word(row, "sectionName")
    space = word(row, "namespace") or route.namespace
    kind = word(row, "kind") or "Gateway"
    return f"{kind} {space}/{word(row, 'name')}" + (f", {section}" if section else "")


def _route_rule(route: Object, index: int, rule: Mapping[str, Any], item: Object, kind: str) -> Report:
    where = route.where(("spec", "rules", index))
    backends = [row for _, row in rows(rule, "backendRefs")]
    filters = [_filter(row) for _, row in rows(rule, "filters")]
    return {
        "index": index,
        "name": word(rule, "name"),
        "line": where.line if where else 0,
        "matches": [_route_match(match) for _, match in rows(rule, "matches")],
        "destinations": [
            {
                "host": f"{word(row, 'namespace') or route.namespace}/{word(row, 'name')}",
                "subset": "",
                "port": number(row, "port"),
                "weight": number(row, "weight"),
            }
            for row in backends
        ],
        "mirrors": [],
        "does": filters,
        "toService": any(_means(row, route, item, kind, "Service") for row in backends),
    }


def _filter(row: Mapping[str, Any]) -> str:
    """A filter in words."""
    asked = table(row, "externalAuth", "backendRef")
    return (
        f"{word(row, 'type')} by {word(asked, 'name')}:{number(asked, 'port')}"
        if asked
        else word(row, "type")
    )


def _route_match(match: Mapping[str, Any]) -> str:
    """A match of an HTTPRoute or a GRPCRoute in words."""
    said = []
    if path := table(match, "path"):
        said.append(f"path {word(path, 'type') or 'PathPrefix'} {word(path, 'value') or '/'}")
    method = match.get("method")
    if isinstance(method, dict):
        said.append(f"method {word(method, 'service')}/{word(method, 'method')}")
    elif method:
        said.append(f"method {method}")
    for field, text in (("headers", "header"), ("queryParams", "query")):
        said += [
            f"{text} {word(row, 'name')} {word(row, 'type') or 'Exact'} {word(row, 'value')}"
            for _, row in rows(match, field)
        ]
    return ", ".join(said) or "everything"


def exposures(picture: Picture, virtual: Sequence[Routing], found: Sequence[Routing]) -> list[Report]:
    """How a service is reached from outside: gateway, host, port and URL, and through which route."""
    every = [
        *(one for item, report in virtual for one in _through_istio(picture, item, report)),
        *(one for item, report in found for one in _through_gateway_api(picture, item, report)),
    ]
    return [one for index, one in enumerate(every) if one not in every[:index]]


def _through_istio(picture: Picture, item: Object, report: Report) -> Iterator[Report]:
    paths = _paths(rule for rule in report["rules"] if rule["toService"])
    for name in words(item.spec, "gateways") if paths else ():
        space, short = place_of(name, item.namespace)
        gateway = picture.scene.find(GATEWAY, space, short) if name != MESH else None
        if gateway is None:
            continue
        for index, server in rows(gateway.spec, "servers"):
            protocol = word(server, "port", "protocol").upper()
            mode = word(server, "tls", "mode")
            for host in _common(words(server, "hosts"), words(item.spec, "hosts"), gateway, item):
                yield {
                    "gateway": ref(gateway, ("spec", "servers", index)),
                    "via": ref(item),
                    "host": host,
                    "port": number(server, "port", "number"),
                    "protocol": protocol,
                    "tls": mode,
                    "urls": _urls(protocol, mode, host, number(server, "port", "number"), paths),
                }


def _common(served: Sequence[str], wanted: Sequence[str], gateway: Object, item: Object) -> Iterator[str]:
    """Hosts that a server serves to a VirtualService, as narrow as both say."""
    for text in served:
        space, slash, name = text.rpartition("/")
        space = gateway.namespace if space == "." else space
        if not slash or space in {"*", item.namespace}:
            yield from filter(None, (narrower(name, host) for host in wanted))


def _through_gateway_api(picture: Picture, item: Object, report: Report) -> Iterator[Report]:
    paths = _paths(rule for rule in report["rules"] if rule["toService"])
    for _, row in rows(item.spec, "parentRefs") if paths else ():
        kind = word(row, "kind") or "Gateway"
        space = word(row, "namespace") or item.namespace
        owner = picture.scene.find(f"{GATEWAY_API}/{kind}", space, word(row, "name"))
        if owner is None or kind not in {"Gateway", "ListenerSet"}:
            continue
        for index, listener in rows(owner.spec, "listeners"):
            port, protocol = number(listener, "port"), word(listener, "protocol").upper()
            if word(row, "sectionName") not in {"", word(listener, "name")} or (
                number(row, "port") not in {None, port}
            ):
                continue
            own = word(listener, "hostname") or "*"
            mode = word(listener, "tls", "mode") or ("Terminate" if protocol == "HTTPS" else "")
            for host in filter(None, (narrower(own, name) for name in report["hosts"] or ["*"])):
                yield {
                    "gateway": ref(owner, ("spec", "listeners", index)),
                    "via": ref(item),
                    "host": host,
                    "port": port,
                    "protocol": protocol,
                    "tls": mode,
                    "urls": _urls(protocol, mode, host, port, paths),
                }


def _paths(rules: Iterator[Report]) -> list[str]:
    """Where paths begin that lead to the service."""
    found: list[str] = []
    for rule in rules:
        for match in rule["matches"] or [""]:
            words_ = next((part for part in match.split(", ") if part.startswith("path ")), "").split(" ", 2)
            found.append(words_[2] if len(words_) == 3 and words_[2].startswith("/") else "/")
    return list(dict.fromkeys(found))


def _urls(protocol: str, mode: str, host: str, port: int | None, paths: Sequence[str]) -> list[str]:
    scheme = _SCHEMES.get(protocol, protocol.lower())
    if scheme == "http" and mode and mode.upper() != "PASSTHROUGH":
        scheme = "https"
    number_ = "" if port is None or _USUAL.get(scheme) == port else f":{port}"
    if scheme not in {"http", "https", "grpc"} or mode.upper() == "PASSTHROUGH":
        return [f"{scheme}://{host}{number_}"]
    return [f"{scheme}://{host}{number_}{path}" for path in paths]
