"""The hand-made bytes are what protobuf makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.emit.packed import Packed
from weft.names import CLUSTER_TYPE, ENDPOINT_TYPE
from weft.protos import cluster_v3, discovery_v3, endpoint_v3, well_known
from weft.protos.wire import from_any
from weft.xds.framing import Answer, no_endpoints, no_virtual_host, response, tombstone, varint
from weft.xds.shared import Shared

texts = st.text(max_size=300)
# A serialised Any: any type name without a payload, or with one.
bodies = st.builds(
    lambda url, value: well_known.Any(type_url=url, value=value).SerializeToString(deterministic=True),
    st.text(min_size=1, max_size=40),
    st.binary(max_size=40_000),
)
packed = st.builds(Packed, texts, texts, bodies)
answers = st.builds(Answer, texts, texts, st.just(b""), st.tuples(texts) | st.tuples(texts, texts))


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_varint_reads_back(number: int) -> None:
    read = 0
    for index, byte in enumerate(encoded := varint(number)):
        read |= (byte & 0x7F) << 7 * index
        assert bool(byte & 0x80) == (index < len(encoded) - 1)
    assert read == number


@given(texts, texts, st.lists(packed | answers, max_size=5), st.lists(texts, max_size=5))
def test_a_response_is_what_protobuf_reads_and_writes(
    type_url: str, nonce: str, resources: list[Packed | Answer], removed: list[str]
) -> None:
    read = discovery_v3.DeltaDiscoveryResponse.FromString(response(type_url, nonce, resources, removed))
    assert (read.type_url, read.nonce, list(read.removed_resources)) == (type_url, nonce, removed)
    for got, sent in zip(read.resources, resources, strict=True):
        assert (got.name, got.version) == (sent.name, sent.version)
        assert tuple(got.aliases) == getattr(sent, "aliases", ())
        assert got.HasField("resource") == bool(sent.body)
        assert got.resource.SerializeToString(deterministic=True) == sent.body
    # Nothing is in it that protobuf would not write.
    again = discovery_v3.DeltaDiscoveryResponse()
    again.CopyFrom(read)
    assert discovery_v3.DeltaDiscoveryResponse.FromString(again.SerializeToString()) == read


@pytest.mark.parametrize("name", ["outbound|80||a.default.svc.cluster.local", "x" * 300])
def test_negative_answers_are_real_messages(name: str) -> None:
    assignment = from_any(no_endpoints(name).body)
    assert assignment == endpoint_v3.ClusterLoadAssignment(cluster_name=name)
    cluster = from_any(tombstone(name).body)
    assert isinstance(cluster, cluster_v3.Cluster)
    assert cluster.name == name
    assert cluster.type == cluster_v3.Cluster.STATIC
    assert not cluster.load_assignment.endpoints
    assert no_virtual_host(name) == Answer(name, "absent", b"", (name,))


def test_equal_responses_are_one_object() -> None:
    shared = Shared()
    one, two = Packed("a", "1", b"\n\x01x"), Packed("b", "1", b"\n\x01y")
    first = shared.response(CLUSTER_TYPE, (one, two))
    assert shared.response(CLUSTER_TYPE, (one, two)) is first
    assert shared.response(CLUSTER_TYPE, (one,)).nonce != first.nonce
    assert shared.absent(ENDPOINT_TYPE, "a") is shared.absent(ENDPOINT_TYPE, "a")
    names = shared.names(frozenset({"a", "b"}))
    assert shared.names(frozenset({"b", "a"})) is names
