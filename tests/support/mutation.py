"""Resources almost as somebody would write them: good ones, changed at random within their schema."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from weft.model.catalog import KINDS
from weft.model.openapi import REF, definition, schemas

Json = Any
Wire = dict[str, Any]

# A file that is not there is refused by Envoy only: nothing else can know of it.
FILES: Final = frozenset(
    {"caCertificates", "caCrl", "clientCertificate", "privateKey", "serverCertificate", "accessLogFile"}
)
_INTS: Final = (0, 1, -1, 2, 80, 100, 443, 15001, 15006, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
                2**40, 2**63 - 1, 2**64)  # fmt: skip
_FLOATS: Final = (0.0, 1e-12, 0.0001, 2.5, 99.9999999, 100, 100.1, -0.5, 1e300)
_TEXTS: Final = (
    "", " ", "a", "*", "*.", "*.com", ".", "..", "a" * 64, "a" * 300, "a" * 65536, "\0", "a\r\nb: c", "é",
    "%", "%%", "%FOO%", "%REQ(", "%REQ(x)%", "(a{900}){30}", "[", "(", "(?P<x>a)", "\\9", "(?=a)", ".*",
    "(a*)*b", "/", "//", "/a/../b", "/a?b#c", "*/*", "./*", "~/*", ":authority", ":path", ":x", "host",
    "x-envoy-a", "connection", "0s", "-1s", "1ns", "1ms", "9223372036s", "2562047h", "240.240.0.1", "0.0.0.0",
    "::1", "10.0.0.0/8", "10.0.0.0/33", "::/0", "300.1.1.1", "127.0.0.1:80", "unix:///tmp/x", "http://",
    "https://x:99999/", "*.*.com", "a.*.com", "a*", "-a", "A", "a_b", "mesh", "spiffe://*", "5xx,foo", "200-",
    "TCP", "HTTP", "reviews", "reviews.default.svc.cluster.local", "outbound|80||a", "BlackHoleCluster", "|",
)  # fmt: skip
_TIMES: Final = ("1s", "10ms", "5m", "100s", "1h")
_TOPS: Final = ("spec", "data", "ports", "endpoints")


@cache
def _schema(api_version: str, kind: str) -> tuple[Wire, Wire] | None:
    for row in KINDS:
        for version in row.versions:
            if row.kind == kind and row.api_version_of(version) == api_version:
                known = schemas(row.group, version)
                return known[definition(row, version)], known
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """A value in a document: where it stands, and what its schema says."""

    parent: Json
    key: Json
    value: Json
    schema: Wire


class Mutation:
    """Changes documents; the same ``seed`` changes the same ones in the same way."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._known: Wire = {}

    def some(self, documents: list[Wire]) -> Wire:
        """One of them, changed."""
        return self.changed(self._random.choice(documents))

    def changed(self, document: Wire) -> Wire:
        """A copy with something added, replaced, repeated or left out."""
        made: Wire = copy.deepcopy(document)
        found = _schema(str(made.get("apiVersion")), str(made.get("kind")))
        if found is None:
            return made
        top, self._known = found
        fields = top.get("properties", {})
        places = [
            place for name in _TOPS if name in made
            for place in self._places(made, name, made[name], fields.get(name, {}))
        ]  # fmt: skip
        if places:
            self._change(self._random.choice(places))
        return made

    def _change(self, place: _Place) -> None:
        how, fields = self._random.random(), place.schema.get("properties")
        if isinstance(place.value, dict) and fields and how < 0.75:
            name = self._random.choice(sorted(set(fields) - FILES))
            place.value[name] = self._made(fields[name], 2)
        elif isinstance(place.value, list) and place.value and how < 0.5:
            position = self._random.randrange(len(place.value) + 1)
            place.value.insert(position, copy.deepcopy(self._random.choice(place.value)))
        elif how < 0.85:
            place.parent[place.key] = self._made(place.schema, 2)
        elif place.key not in _TOPS:
            del place.parent[place.key]

    def _places(self, parent: Json, key: Json, value: Json, schema: Wire) -> Iterator[_Place]:
        schema = self._resolved(schema)
        yield _Place(parent, key, value, schema)
        if isinstance(value, dict):
            rest = schema.get("additionalProperties")
            for name in [name for name in value if name not in FILES]:
                part = schema.get("properties", {}).get(name) or (rest if isinstance(rest, dict) else {})
                yield from self._places(value, name, value[name], part)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                yield from self._places(value, position, item, schema.get("items") or {})

    def _resolved(self, schema: Wire) -> Wire:
        while "$ref" in schema or len(schema.get("allOf", ())) == 1:
            schema = self._known.get(schema.get("$ref", "").removeprefix(REF)) or schema.get("allOf", [{}])[0]
        return schema

    def _made(self, schema: Wire, depth: int) -> Json:
        draw, schema = self._random, self._resolved(schema)
        if "enum" in schema:
            return draw.choice(schema["enum"])
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self._made(draw.choice(choices), depth)
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                count = draw.choice((0, 1, 1, 2))
                return [self._made(schema.get("items", {}), depth - 1) for _ in range(count)]
            case "boolean":
                return draw.random() < 0.5
            case "integer":
                return draw.choice(_INTS) if draw.random() < 0.6 else draw.randint(1, 600)
            case "number":
                return draw.choice(_FLOATS)
        return draw.choice(_TIMES) if draw.random() < 0.25 else draw.choice(_TEXTS)

    def _object(self, schema: Wire, depth: int) -> Wire:
        draw, rest = self._random, schema.get("additionalProperties")
        if fields := schema.get("properties"):
            share, needed = (0.35 if depth > 0 else 0.05), set(schema.get("required", ()))
            return {
                name: self._made(part, depth - 1) for name, part in fields.items()
                if name not in FILES and (name in needed or draw.random() < share)
            }  # fmt: skip
        if not isinstance(rest, dict):
            return {}
        names = (*_TEXTS, "app", "version")
        return {draw.choice(names): self._made(rest, depth - 1) for _ in range(draw.randint(0, 2))}
