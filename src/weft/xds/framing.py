"""``DeltaDiscoveryResponse`` on the wire, put together from bytes that already exist.

A response to a thousand streams is built once, by joining serialised resources; no message object is made.
Field numbers: envoy/service/discovery/v3/discovery.proto. Wire: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE
from weft.xds.table import Resource

_BYTES: Final = 2  # wire type "length-delimited"

# DeltaDiscoveryResponse
_RESOURCES: Final = 2
_TYPE_URL: Final = 4
_NONCE: Final = 5
_REMOVED: Final = 6
# Resource
_VERSION: Final = 1
_RESOURCE: Final = 2
_NAME: Final = 3
_ALIASES: Final = 4
# google.protobuf.Any
_ANY_TYPE: Final = 1
_ANY_VALUE: Final = 2
# Cluster and ClusterLoadAssignment
_CLUSTER_NAME: Final = 1
_LOAD_ASSIGNMENT: Final = 33
_ASSIGNMENT_CLUSTER: Final = 1


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Answer:
    """A resource that answers under other names than its own: an on-demand virtual host, or a refusal.

    An empty ``body`` with aliases tells Envoy that the aliases do not exist, which it can serve at once.
    """

    name: str
    version: str
    body: bytes
    aliases: tuple[str, ...] = ()
    bound: bool = False


def varint(number: int) -> bytes:
    """A non-negative number in base 128, low groups first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """One length-delimited field."""
    return varint(number << 3 | _BYTES) + varint(len(body)) + body


def resource_field(resource: Resource) -> bytes:
    """``resource`` as one entry of a response's ``resources``."""
    body = field(_VERSION, resource.version.encode())
    if resource.body:
        body += field(_RESOURCE, resource.body)
    body += field(_NAME, resource.name.encode())
    for alias in getattr(resource, "aliases", ()):
        body += field(_ALIASES, alias.encode())
    return field(_RESOURCES, body)


def response(type_url: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str]) -> bytes:
    """A whole ``DeltaDiscoveryResponse``."""
    parts = [resource_field(resource) for resource in resources]
    parts.append(field(_TYPE_URL, type_url.encode()))
    parts.append(field(_NONCE, nonce.encode()))
    parts += [field(_REMOVED, name.encode()) for name in removed]
    return b"".join(parts)


def _any(type_url: str, value: bytes) -> bytes:
    return field(_ANY_TYPE, type_url.encode()) + field(_ANY_VALUE, value)


def no_endpoints(cluster: str) -> Answer:
    """An empty load assignment. Envoy ignores that one is removed; an empty one it obeys."""
    body = _any(ENDPOINT_TYPE, field(_ASSIGNMENT_CLUSTER, cluster.encode()))
    return Answer(cluster, _hash(body), body)


def tombstone(cluster: str) -> Answer:
    """A static cluster without endpoints: requests for it fail at once with 503 instead of waiting."""
    name = field(_CLUSTER_NAME, cluster.encode())
    assignment = field(_LOAD_ASSIGNMENT, field(_ASSIGNMENT_CLUSTER, cluster.encode()))
    body = _any(CLUSTER_TYPE, name + assignment)
    return Answer(cluster, _hash(body), body)


def no_virtual_host(alias: str) -> Answer:
    """A resource without a body: the on-demand virtual host does not exist, answer 404 at once."""
    return Answer(alias, "absent", b"", (alias,))


def _hash(body: bytes) -> str:
    return blake2b(body, digest_size=8).hexdigest()
