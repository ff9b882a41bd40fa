from __future__ import annotations

import pytest

from weft.control.api.protobuf import decode
from weft.control.api.status import ApiError


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def body(kind: str, raw: bytes, api_version: bytes = b"v1") -> bytes:
    return (
        b"k8s\0" + field(1, field(1, api_version) + field(2, kind.encode())) + field(2, raw) + field(3, b"")
    )


META = field(1, field(1, b"a") + field(2, b"") + field(11, field(1, b"k") + field(2, b"v")) + field(7, 0))


def test_what_is_empty_was_not_said() -> None:
    metadata = {"name": "a", "labels": {"k": "v"}}
    assert decode(body("Namespace", META + field(2, b"") + field(3, field(1, b"")))) == {
        "apiVersion": "v1", "kind": "Namespace", "metadata": metadata,
    }  # fmt: skip


def test_secret_and_pointers() -> None:
    raw = META + field(2, field(1, b"p") + field(2, b"\xff\x00")) + field(3, b"Opaque") + field(5, 0)
    found = decode(body("Secret", raw))
    assert (found["data"], found["type"], found["immutable"]) == ({"p": "/wA="}, "Opaque", False)


def test_service_ports_by_number_and_by_name() -> None:
    by_number = field(3, 80) + field(4, field(1, 0) + field(2, 8080) + field(3, b""))
    by_name = field(3, 81) + field(4, field(1, 1) + field(2, 0) + field(3, b"http"))
    found = decode(body("Service", META + field(2, field(1, by_number) + field(1, by_name))))
    assert found["spec"]["ports"] == [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "http"}]


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        decode(body("Service", META + field(2, field(14, field(1, b"x")))))
    assert refused.value.code == 415


@pytest.mark.parametrize(
    "broken", [b"", b"k8s\0\x0a\x05a", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"{}"]
)
def test_broken_bytes(broken: bytes) -> None:
    with pytest.raises(ApiError):
        decode(broken)


def test_another_kind() -> None:
    with pytest.raises(ApiError) as refused:
        decode(body("Pod", META))
    assert refused.value.code == 415
