"""Resources: which there are, what is wrong with them, and each as it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import yaml

from weft.dashboard.page import Gap, NotFoundError, Visit, together
from weft.dashboard.places import NOWHERE, word_of
from weft.dashboard.readers import Kind
from weft.dashboard.redaction import redact
from weft.dashboard.services import namespaces

_LINE: Final = re.compile(r"^(\s*(?:- )*)([^\s:'\"#][^:]*|'[^']*'|\"[^\"]*\")(:)(?=\s|$)(.*)$")
_FAMILIES: Final = {
    "": "Kubernetes",
    "discovery.k8s.io": "Kubernetes",
    "networking.istio.io": "Traffic, Istio",
    "security.istio.io": "Security, Istio",
    "telemetry.istio.io": "Telemetry, Istio",
    "gateway.networking.k8s.io": "Gateway API",
    "rbac.authorization.k8s.io": "Roles",
    "weft.dev": "weft",
}


async def configuration(visit: Visit) -> Mapping[str, Any]:
    """Kinds with how many there are, and everything that is wrong."""
    kinds, findings, objects, spaces = await together(
        visit.attempt(visit.readers.kinds()),
        visit.attempt(visit.readers.findings()),
        visit.attempt(visit.readers.objects()),
        namespaces(visit),
    )
    served: tuple[Kind, ...] = kinds or ()
    flawed = Counter(_kind_of(one) for one in findings or ())
    count = Counter(
        (str(one["apiVersion"]).rpartition("/")[0], str(one["kind"]))
        for one in objects or ()
        if not visit.namespace or one["metadata"].get("namespace") == visit.namespace
    )
    families: dict[str, list[dict[str, Any]]] = {}
    for kind in served:
        number = count[kind.group, kind.kind]
        if not number:
            continue
        row = {"kind": kind.kind, "word": word_of(kind), "count": number, "flaws": flawed[kind.kind]}
        families.setdefault(_FAMILIES.get(kind.group, kind.group), []).append(row)
    return {
        "families": {name: families[name] for name in sorted(families)},
        "findings": list(_in(findings or (), visit)),
        "unknown": isinstance(findings, Gap),
        "spaces": spaces,
    }


async def collection(visit: Visit) -> Mapping[str, Any]:
    """The objects of a kind."""
    kind = await _kind(visit)
    table, findings, spaces = await together(
        _table(visit, kind),
        visit.attempt(visit.readers.findings()),
        namespaces(visit),
    )
    flaws: dict[str, list[Mapping[str, Any]]] = {}
    for one in findings or ():
        flaws.setdefault(one["origin"], []).append(one)
    columns = [(place, one["name"]) for place, one in _columns(table)] if table else []
    rows = []
    for row in table["rows"] if table else ():
        metadata = row["object"]["metadata"]
        namespace = metadata.get("namespace", "")
        origin = (
            f"{kind.kind} {namespace}/{metadata['name']}" if namespace else f"{kind.kind} {metadata['name']}"
        )
        rows.append(
            {
                "name": metadata["name"],
                "namespace": namespace,
                "place": namespace or NOWHERE,
                "created": metadata.get("creationTimestamp"),
                "cells": [_cell(row["cells"][place]) for place, _ in columns],
                "flaws": flaws.get(origin, []),
            }
        )
    return {
        "title": kind.kind,
        "kind": kind,
        "word": word_of(kind),
        "columns": [name for _, name in columns],
        "rows": rows,
        "spaces": spaces if kind.namespaced else [],
    }


async def resource(visit: Visit) -> Mapping[str, Any]:
    """One object: its YAML, its status, what is wrong, and who refuses it."""
    kind = await _kind(visit)
    namespace, name = visit.path["namespace"], visit.path["name"]
    place = "" if namespace == NOWHERE else namespace
    path = kind.path(place, name)
    found, findings, proxies, changes = await together(
        _object(visit, kind, place, name),
        visit.attempt(visit.readers.findings()),
        visit.get("/weft/v1/proxies"),
        visit.get("/weft/v1/telemetry/changes", {"since": "6h", "limit": "500"}),
    )
    if not found:
        if found.status == 404:
            raise NotFoundError(
                f"There is no {kind.kind} {name}" + (f" in the namespace {place}." if place else ".")
            )
        return {"title": name, "kind": kind, "word": word_of(kind), "name": name, "space": place, "lines": []}
    origin = f"{kind.kind} {place}/{name}" if place else f"{kind.kind} {name}"
    return {
        "title": name,
        "kind": kind,
        "word": word_of(kind),
        "name": name,
        "space": place,
        "created": found["metadata"].get("creationTimestamp"),
        "version": found["metadata"].get("resourceVersion", ""),
        "generation": found["metadata"].get("generation"),
        "lines": list(
            lines(
                {"apiVersion": f"{kind.group}/{kind.version}".lstrip("/"), "kind": kind.kind, **redact(found)}
            )
        ),
        "conditions": list(conditions(found.get("status") or {})),
        "findings": [one for one in findings or () if one["origin"] == origin],
        "refusals": list(_refusals(proxies, path)) if proxies else [],
        "changes": [
            one
            for one in (changes["changes"] if changes else ())
            if (one["kind"], one["group"], one["namespace"], one["name"])
            == (kind.kind, kind.group, place, name)
        ],
    }


def conditions(status: Any, about: str = "") -> Iterator[dict[str, Any]]:
    """Every condition in a status, with what it is about: ``listener http``, ``parent shop``."""
    if isinstance(status, list):
        for inner in status:
            yield from conditions(inner, about)
    if not isinstance(status, Mapping):
        return
    for name, value in status.items():
        if name == "conditions" and isinstance(value, list):
            for one in value:
                if isinstance(one, Mapping):
                    yield {
                        "about": about,
                        "type": str(one.get("type", "")),
                        "status": str(one.get("status", "")),
                        "reason": str(one.get("reason", "")),
                        "message": str(one.get("message", "")),
                        "time": one.get("lastTransitionTime"),
                    }
        elif name in {"listeners", "parents", "ancestors"} and isinstance(value, list):
            for one in value:
                reference = one.get("parentRef") or one.get("ancestorRef") or one
                yield from conditions(one, f"{name[:-1]} {reference.get('name', '')}")


def lines(wire: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """YAML by lines: what is before a key, the key, and what comes after it."""
    for line in yaml.safe_dump(dict(wire), sort_keys=False, allow_unicode=True, width=100).splitlines():
        match = _LINE.match(line)
        yield (match[1], match[2], match[3] + match[4]) if match else (line, "", "")


async def _kind(visit: Visit) -> Kind:
    word = visit.path["kind"]
    for kind in await visit.readers.kinds():
        if word_of(kind) == word:
            return kind
    raise NotFoundError(f"There is no kind {word}.")


async def _table(visit: Visit, kind: Kind) -> Any:
    """The objects of a kind as a Table."""
    if not _is_secret(kind):
        return await visit.get(kind.path(visit.namespace if kind.namespaced else ""), table=True)
    found = await visit.attempt(visit.readers.objects())
    rows = [
        {"cells": [str(one.get("type", ""))], "object": one}
        for one in found or ()
        if one["kind"] == kind.kind and visit.namespace in {"", one["metadata"].get("namespace")}
    ]
    return {"columnDefinitions": [{"name": "Type"}], "rows": rows}


async def _object(visit: Visit, kind: Kind, namespace: str, name: str) -> Any:
    """One object. A page that stays open must not read a Secret again and again: each is recorded."""
    if not _is_secret(kind):
        return await visit.get(kind.path(namespace, name))
    for one in await visit.attempt(visit.readers.objects()) or ():
        about = one["metadata"]
        if one["kind"] == kind.kind and (about.get("namespace", ""), about["name"]) == (namespace, name):
            return one
    # Not among those that may be listed: the answer says why.
    return await visit.get(kind.path(namespace, name))


def _is_secret(kind: Kind) -> bool:
    return (kind.group, kind.kind) == ("", "Secret")


def _columns(table: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Those that kubectl shows by itself, without what the page has of its own."""
    for place, column in enumerate(table["columnDefinitions"]):
        if not column.get("priority") and column["name"] not in {"Name", "Age"}:
            yield place, column


def _cell(value: object) -> str:
    if isinstance(value, str) and value.startswith("["):
        try:
            found = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
        return ", ".join(map(str, found)) if isinstance(found, list) else value
    return "" if value is None else str(value)


def _kind_of(finding: Mapping[str, Any]) -> str:
    return str(finding["origin"]).partition(" ")[0]


def _in(findings: Iterable[Mapping[str, Any]], visit: Visit) -> Iterator[Mapping[str, Any]]:
    for one in findings:
        space = str(one["origin"]).partition(" ")[2].partition("/")[0]
        if not visit.namespace or space == visit.namespace:
            yield one


def _refusals(proxies: Mapping[str, Any], path: str) -> Iterator[dict[str, Any]]:
    for row in proxies["proxies"]:
        for one in row["rejected"]:
            if any(_same(source, path) for source in one["sources"]):
                yield {"proxy": row["name"], "namespace": row["namespace"], **one}


def _same(source: str, path: str) -> bool:
    """Whether two API paths are of one object: versions of a kind differ, the rest does not."""
    return _tail(source) == _tail(path)


def _tail(path: str) -> list[str]:
    steps = path.strip("/").split("/")
    return [steps[1], *steps[3:]] if steps[:1] == ["apis"] else steps[2:]
