"""Answers to DNS questions about the mesh (RFC 1035), without sockets and without a clock.

Packets are taken apart by hand: a question is a few bytes, and a cached answer costs a microsecond.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from weft.names import CLUSTER_DOMAIN

_HEADER: Final = struct.Struct("!6H")
_A, _PTR, _AAAA, _OPT, _ANY = 1, 12, 28, 41, 255
_IN: Final = 1
_NXDOMAIN, _REFUSED_FORMAT, _SERVFAIL = 3, 1, 2
_UDP_MAX: Final = 512
# A virtual address never changes; an instance's may any moment.
_TTL_VIRTUAL_S: Final = 30
_TTL_INSTANCE_S: Final = 5
_VIRTUAL: Final = ipaddress.IPv4Network("240.240.0.0/16")
_CACHE_MAX: Final = 8192
# Response, authoritative, recursion available; "recursion desired" is copied from the question.
_ANSWER_FLAGS: Final = 0x8480


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query. ``wire`` is its name, type and class as they came; ``name`` in lower case.

    ``udp_size``: the longest answer that the asker takes over UDP (EDNS, RFC 6891).
    """

    id: int
    flags: int
    name: str
    type: int
    wire: bytes
    udp_size: int = _UDP_MAX


def parse_question(packet: bytes) -> Question | None:
    """Read a query; None for what is no query with one question of class IN."""
    if len(packet) < 17:
        return None
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & 0xF800 or questions != 1 or answers or authorities:
        return None
    labels, at = [], 12
    while length := packet[at]:
        if length > 63 or at + length + 1 >= len(packet):
            return None  # compressed or cut short
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if end > len(packet) or packet[end - 2 : end] != b"\0\1":
        return None
    size = _UDP_MAX
    if additional and packet[end : end + 3] == b"\0\0\x29" and end + 5 <= len(packet):
        size = max(_UDP_MAX, int.from_bytes(packet[end + 3 : end + 5], "big"))
    name = b".".join(labels).decode("latin-1").lower()
    kind = int.from_bytes(packet[at + 1 : at + 3], "big")
    return Question(ident, flags, name, kind, packet[12:end], size)


def refuse(packet: bytes, code: int = _SERVFAIL) -> bytes:
    """An answer that only says what went wrong, for a query that could be read at least to its header."""
    ident, flags = struct.unpack_from("!2H", packet)
    question = parse_question(packet)
    wire = question.wire if question else b""
    return _HEADER.pack(ident, 0x8080 | (flags & 0x0100) | code, 1 if question else 0, 0, 0, 0) + wire


@dataclass(frozen=True, slots=True)
class Alias:
    """A question about a name that stands for another one, ``target``, which the resolvers know."""

    question: Question
    target: str

    @property
    def query(self) -> bytes:
        """The same question about the target."""
        head = _HEADER.pack(self.question.id, 0x0100, 1, 0, 0, 0)
        return head + _wire(self.target) + struct.pack("!2H", self.question.type, _IN)

    def answer(self, reply: bytes) -> bytes:
        """The resolvers' addresses as those of the name that was asked for; their failure, if they failed."""
        code = reply[3] & 0x0F
        try:
            found = tuple(_addresses(reply, self.question.type)) if code == 0 else ()
        except (IndexError, struct.error):
            found, code = (), _SERVFAIL
        body = Names._pack(self.question, [(self.question.type, ttl, data) for ttl, data in found], code)
        flags = int.from_bytes(body[:2], "big") | (self.question.flags & 0x0100)
        return struct.pack("!2H", self.question.id, flags) + body[2:]


def _wire(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".")) + b"\0"


def _addresses(reply: bytes, kind: int) -> Iterator[tuple[int, bytes]]:
    """Time to live and bytes of each address of that kind in a reply, behind whatever chain of names."""
    _, _, questions, answers, _, _ = _HEADER.unpack_from(reply)
    at = 12
    for _ in range(questions):
        at = _after_name(reply, at) + 4
    for _ in range(answers):
        at = _after_name(reply, at)
        found, _, ttl, length = struct.unpack_from("!2HIH", reply, at)
        at += 10
        if found == kind and len(reply) >= at + length:
            yield ttl, reply[at : at + length]
        at += length


def _after_name(packet: bytes, at: int) -> int:
    """Where a name ends; a pointer ends it."""
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


@dataclass(slots=True)
class Names:
    """The table of the mesh: fully qualified name -> IP addresses, and the answers made of it.

    One text that is no address is another name, outside the mesh.
    """

    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domain: str = CLUSTER_DOMAIN
    _cache: dict[tuple[str, bytes], bytes | None] = field(default_factory=dict)
    _reverse: dict[str, str] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, found in self.table.items():
            if len(found) == 1 and not _packed(found[0]) and _is_plain(found[0]):
                self._aliases[name.rstrip(".").lower()] = found[0]
        # One name with something odd must not cost a host all the others: it is left out, no more.
        self.table = {
            name.rstrip(".").lower(): tuple(ip for ip in ips if _packed(ip))
            for name, ips in self.table.items()
        }
        for name, addresses in self.table.items():
            if not _is_plain(name):
                continue
            for address in addresses:
                self._reverse.setdefault(ipaddress.ip_address(address).reverse_pointer, name)

    def find(self, name: str, namespace: str) -> tuple[str, ...] | None:
        """The addresses of a name as a workload of ``namespace`` means it; None: not a name of the mesh.

        ``catalog``, ``catalog.shop``, ``catalog.shop.svc``, the full name, and names of ServiceEntries with
        their wildcards. A name below the mesh's own domain that nothing bears has no addresses.
        """
        table, domain = self.table, self.domain
        for candidate in self._tries(name, namespace):
            if candidate in table:
                return table[candidate]
        rest = name
        while rest := rest.partition(".")[2]:
            if f"*.{rest}" in table:
                return table[f"*.{rest}"]
        return () if name.endswith(f".svc.{domain}") else None

    def _tries(self, name: str, namespace: str) -> tuple[str, ...]:
        """A name as it is, then as a workload of ``namespace`` may mean it."""
        dots, domain = name.count("."), self.domain
        if dots == 0:
            return (name, f"{name}.{namespace}.svc.{domain}")
        if dots == 1:
            return (name, f"{name}.svc.{domain}")
        return (name, f"{name}.{domain}") if name.endswith(".svc") else (name,)

    def alias(self, packet: bytes, namespace: str) -> Alias | None:
        """For a name that stands for one outside the mesh: what to ask the resolvers instead."""
        question = parse_question(packet) if self._aliases else None
        if question is None or question.type not in {_A, _AAAA}:
            return None
        tries = self._tries(question.name, namespace)
        target = next((self._aliases[name] for name in tries if name in self._aliases), None)
        return None if target is None else Alias(question, target)

    def answer(self, packet: bytes, namespace: str, *, limit: bool = True) -> bytes | None:
        """The packed answer to a query, or None when it is to be forwarded. ``limit``: it goes over UDP."""
        question = parse_question(packet)
        if question is None:
            return None
        key = (namespace, question.wire)
        if key in self._cache:
            body = self._cache[key]
        else:
            if len(self._cache) >= _CACHE_MAX:
                self._cache.clear()
            body = self._cache[key] = self._body(question, namespace)
        if body is None:
            return None
        head = struct.pack("!H", question.id)
        flags = int.from_bytes(body[:2], "big") | (question.flags & 0x0100)
        if limit and len(body) + 2 > question.udp_size:
            return _HEADER.pack(question.id, flags | 0x0200, 1, 0, 0, 0) + question.wire
        return head + flags.to_bytes(2, "big") + body[2:]

    def _body(self, question: Question, namespace: str) -> bytes | None:
        """Everything after the id; None for a name that is not the mesh's."""
        if question.type == _PTR:
            host = self._reverse.get(question.name)
            if host is None:
                return None
            return self._pack(question, [(_PTR, _TTL_VIRTUAL_S, _wire(host))])
        addresses = self.find(question.name, namespace)
        if addresses is None:
            return None
        if not addresses and question.name not in self.table:
            return self._pack(question, [], code=_NXDOMAIN)
        # Other types exist for this name, with nothing in them: NXDOMAIN for AAAA would kill the A as well.
        wanted = {_A, _AAAA} if question.type == _ANY else {question.type}
        found = [(_kind(address), _ttl(address), _packed(address)) for address in addresses]
        return self._pack(question, [answer for answer in found if answer[0] in wanted])

    @staticmethod
    def _pack(question: Question, answers: list[tuple[int, int, bytes]], code: int = 0) -> bytes:
        body = struct.pack("!5H", _ANSWER_FLAGS | code, 1, len(answers), 0, 0) + question.wire
        for kind, ttl, data in answers:
            # 0xC00C points at the name in the question.
            body += struct.pack("!3HIH", 0xC00C, kind, _IN, ttl, len(data)) + data
        return body


def _packed(address: str) -> bytes:
    """The bytes of an address; none when it is none, or means something on one link only."""
    try:
        return b"" if "%" in address else ipaddress.ip_address(address).packed
    except ValueError:
        return b""


def _kind(address: str) -> int:
    return _AAAA if ":" in address else _A


def _is_plain(name: str) -> bool:
    """Whether a name can stand in an answer: no wildcard, labels of at most 63 bytes."""
    return name.isascii() and all(0 < len(part) < 64 and part != "*" for part in name.split("."))


def _ttl(address: str) -> int:
    return _TTL_VIRTUAL_S if ipaddress.ip_address(address) in _VIRTUAL else _TTL_INSTANCE_S


def read_resolvers(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf(5); the local host when it names none."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(words[1].partition("%")[0])
    return tuple(found[:3]) or ("127.0.0.1",)
