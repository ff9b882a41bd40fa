"""Prometheus' text format: what others wrote is relabelled, checked and merged; ours is written. Pure.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. All series of a name have to stand
together, under one TYPE, and a line that cannot be read costs a scrape all others: so what applications say
is read line by line, and only what can be read is passed on. Proxies are trusted to write what can be read,
and their text is changed as a whole: a hundred of them would take seconds otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_CHUNK: Final = 64 * 1024
# Whole pairs, so that nothing is found inside a value.
_ENVOY_LABEL: Final = re.compile(rb'\b(?:envoy_)?([a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*")')
_PAIR: Final = re.compile(rb'[ \t]*([a-zA-Z_]\w*)[ \t]*=[ \t]*("(?:[^"\\\n]|\\.)*")[ \t]*(,|$)')
_SAMPLE: Final = re.compile(
    rb"[ \t]*([a-zA-Z_:][\w:]*)[ \t]*"
    rb'(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\})?'
    rb"[ \t]*(?<=[ \t}])"
    rb"([+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?)|[nN]a[nN])"
    rb"(?:[ \t]+(-?\d{1,18}))?[ \t]*"
)
_COMMENT: Final = re.compile(
    rb"#[ \t]+(?:(HELP)[ \t]+([a-zA-Z_:][\w:]*)[ \t]*(.*)|(TYPE)[ \t]+([a-zA-Z_:][\w:]*)[ \t]+(\w+)[ \t]*)"
)
_KINDS: Final = frozenset({b"counter", b"gauge", b"histogram", b"summary", b"untyped"})
_PARTS: Final = {b"histogram": (b"_bucket", b"_sum", b"_count"), b"summary": (b"_sum", b"_count")}
# What an application says under these names would be taken for what the mesh says of it.
_RESERVED: Final = (b"istio_", b"envoy_", b"weft_", b"container_")


@dataclass(slots=True)
class Family:
    """All that is known under one name. ``lines`` are whole lines of samples."""

    name: bytes
    kind: bytes = b"untyped"
    help: bytes = b""
    lines: list[bytes] = field(default_factory=list)

    def add(self, value: float, /, **labels: str) -> None:
        """One sample of ours."""
        pairs = b"{" + write_labels(labels) + b"}" if labels else b""
        number = repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
        self.lines.append(b"%s%s %s\n" % (self.name, pairs, number.encode()))


def own(name: str, kind: str, help_: str) -> Family:
    """A family of ours, to be filled."""
    return Family(name.encode(), kind.encode(), help_.encode())


def write_labels(labels: Mapping[str, str]) -> bytes:
    """As they stand between the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def of_proxy(text: bytes, labels: Mapping[str, str]) -> Iterator[Family]:
    """What an Envoy says, as Istio names it: ``istio_*`` without Envoy's prefix and with the word ``unknown``
    for what is not known, labels without Envoy's prefix; each series bears ``labels``.
    """
    written = write_labels(labels)
    clashes = [(b"," + name, b"{" + name) for name in (f"{label}=".encode() for label in labels)]
    names = tuple(name.encode() for name in labels)
    # At the beginning of a line, where no value can be.
    for part in (b"\n" + _decodable(text)).split(b"\n# TYPE ")[1:]:
        head, _, body = part.partition(b"\n")
        said, _, kind = head.partition(b" ")
        if not body.strip():
            continue
        body, name = b"\n" + body.strip(b"\n") + b"\n", said
        if said.startswith(b"envoy_istio_"):
            name = said.removeprefix(b"envoy_")
            # A quotation mark inside a value is escaped: these are empty values, and nothing else.
            body = body.replace(b'="",', b'="unknown",').replace(b'=""}', b'="unknown"}')
        else:
            body = _ENVOY_LABEL.sub(rb"\1", body)
        if any(first in body or second in body for first, second in clashes):
            body = _ENVOY_PAIR.sub(lambda pair: _renamed(pair, names), body)
        yield Family(name, kind, lines=[_labelled(body, said, name, written)])


_ENVOY_PAIR: Final = re.compile(rb'\b([a-zA-Z_]\w*)(="(?:[^"\\\n]|\\.)*")')


def _renamed(pair: re.Match[bytes], names: tuple[bytes, ...]) -> bytes:
    """As Prometheus itself calls a label that a target's own label hides."""
    return (b"exported_" if pair[1] in names else b"") + pair[0]


def _labelled(body: bytes, said: bytes, name: bytes, written: bytes) -> bytes:
    """The lines of a family that was ``said`` so, under its ``name`` and with labels before all others.

    By replacing what lines begin with: expressions take twenty times as long.
    """
    empty, whole = b"{" + written + b",}", b"{" + written + b"}"
    for suffix in (b"", b"_bucket", b"_sum", b"_count"):
        old, new = b"\n" + said + suffix, b"\n" + name + suffix
        body = body.replace(old + b"{", new + b"{" + written + b",")
        body = body.replace(old + b" ", new + whole + b" ")
    # Such a row of marks is in no value: there they are escaped.
    body = body.replace(empty, whole)
    return body[1:]


def _decodable(text: bytes) -> bytes:
    """Prometheus refuses a page with a byte that is no UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace").encode()
    return text


def of_application(text: bytes, labels: Mapping[str, str]) -> tuple[list[Family], int]:
    """What an application says, and how many lines of it were left out: those that are no samples, and those
    under names that are the mesh's.
    """
    written, names = write_labels(labels), frozenset(name.encode() for name in labels)
    families: dict[bytes, Family] = {}
    owners: dict[bytes, bytes] = {}
    dropped = 0
    for raw in _decodable(text).split(b"\n"):
        line = raw.rstrip(b"\r")
        if not line.strip():
            continue
        if line.lstrip().startswith(b"#"):
            _hear(line.strip(), families, owners)
            continue
        sample = _read(line, written, names)
        if sample is None:
            dropped += 1
            continue
        name, whole = sample
        family = families.setdefault(owners.get(name, name), Family(owners.get(name, name)))
        family.lines.append(whole)
    return [family for family in families.values() if family.lines], dropped


def _hear(line: bytes, families: dict[bytes, Family], owners: dict[bytes, bytes]) -> None:
    """Take a comment's word for what a family is; other comments say nothing."""
    found = _COMMENT.fullmatch(line)
    if found is None:
        return
    name = found[2] or found[5]
    if found[1]:
        families.setdefault(name, Family(name)).help = found[3]
    elif found[6] in _KINDS:
        families.setdefault(name, Family(name)).kind = found[6]
        for part in _PARTS.get(found[6], ()):
            owners[name + part] = name


def _read(line: bytes, written: bytes, names: frozenset[bytes]) -> tuple[bytes, bytes] | None:
    found = _SAMPLE.fullmatch(line)
    if found is None or found[1].startswith(_RESERVED):
        return None
    pairs = [written]
    seen = set(names)
    rest, at = (found[2] or b"").rstrip(), 0
    while at < len(rest):
        pair = _PAIR.match(rest, at)
        if pair is None:
            return None
        name = b"exported_" + pair[1] if pair[1] in names else pair[1]
        if name in seen:
            return None
        seen.add(name)
        pairs.append(name + b"=" + pair[2])
        at = pair.end()
    stamp = b" " + found[4] if found[4] else b""
    return found[1], b"%s{%s} %s%s\n" % (found[1], b",".join(pairs), found[3], stamp)


class Page:
    """Families of many sources, each name once. ``size`` is in bytes."""

    def __init__(self) -> None:
        self._families: dict[bytes, Family] = {}
        self.size = 0

    def add(self, families: Iterable[Family]) -> None:
        """More of them; of what a family is, the first has the word."""
        for family in families:
            if not family.lines:
                continue
            known = self._families.setdefault(family.name, Family(family.name, family.kind, family.help))
            known.lines += family.lines
            self.size += sum(map(len, family.lines))

    def chunks(self) -> Iterator[bytes]:
        """The text, a family after the other, by name, in parts of some 64 KiB."""
        pending: list[bytes] = []
        waiting = 0
        for name in sorted(self._families):
            family = self._families[name]
            if family.help:
                pending.append(b"# HELP %s %s\n" % (name, family.help))
            pending.append(b"# TYPE %s %s\n" % (name, family.kind))
            for lines in family.lines:
                pending.append(lines)
                waiting += len(lines)
                if waiting >= _CHUNK:
                    yield b"".join(pending)
                    pending, waiting = [], 0
        if pending:
            yield b"".join(pending)
