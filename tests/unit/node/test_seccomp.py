"""The filter, interpreted for both machines, and the rules for connects and binds."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from weft.node.capture import bpf
from weft.node.capture.seccomp_policy import Address, Policy, Steer, parse, proxy_header

COMPAT = {"x86_64": 0x40000003, "aarch64": 0x40000028}


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run the filter as the kernel does (linux/filter.h)."""
    native = bpf.MACHINES[machine].arch
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, native if arch is None else arch, 0, *given)
    code = [
        struct.unpack_from("=HBBI", bpf.program(machine), at) for at in range(0, len(bpf.program(machine)), 8)
    ]
    at, accumulator = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x15:
                at += yes if accumulator == k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x45:
                at += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(hex(operation))


def refused(number: int) -> int:
    return bpf.ERRNO | number


@pytest.mark.parametrize("machine", bpf.MACHINES)
class TestFilter:
    def test_asks_about_connect_and_bind(self, machine: str) -> None:
        calls = bpf.MACHINES[machine]
        assert verdict(machine, calls.connect, 3) == bpf.NOTIFY
        assert verdict(machine, calls.bind, 3) == bpf.NOTIFY

    def test_allows_the_rest(self, machine: str) -> None:
        calls = bpf.MACHINES[machine]
        special = {calls.connect, calls.bind, bpf.IO_URING_SETUP}
        assert {verdict(machine, number) for number in range(470) if number not in special} == {bpf.ALLOW}

    def test_closes_the_ways_around(self, machine: str) -> None:
        calls, fast_open = bpf.MACHINES[machine], 0x20000000
        assert verdict(machine, calls.sendto, 3, 0, 0, fast_open) == refused(errno.EOPNOTSUPP)
        assert verdict(machine, calls.sendmmsg, 3, 0, 0, fast_open | 0x40) == refused(errno.EOPNOTSUPP)
        assert verdict(machine, calls.sendmsg, 3, 0, fast_open) == refused(errno.EOPNOTSUPP)
        assert verdict(machine, calls.sendto, 3, fast_open, fast_open, 0x4040) == bpf.ALLOW
        assert verdict(machine, bpf.IO_URING_SETUP) == refused(errno.ENOSYS)

    def test_32_bit_programs_do_not_connect(self, machine: str) -> None:
        calls, arch = bpf.MACHINES[machine], COMPAT[machine]
        assert verdict(machine, calls.compat_connect, 3, arch=arch) == refused(errno.EACCES)
        assert verdict(machine, calls.compat_bind, 3, arch=arch) == refused(errno.EACCES)
        assert verdict(machine, 4, arch=arch) == bpf.ALLOW

    def test_an_unknown_machine_is_refused(self, machine: str) -> None:
        assert verdict(machine, 1, arch=0xDEAD) == refused(errno.EACCES)


def test_x32_and_socketcall_on_x86() -> None:
    assert verdict("x86_64", 0x40000000 | 42, 3) == refused(errno.ENOSYS)
    for call, want in (
        (1, bpf.ALLOW),
        (2, refused(errno.EACCES)),
        (3, refused(errno.EACCES)),
        (4, bpf.ALLOW),
    ):
        assert verdict("x86_64", 102, call, arch=COMPAT["x86_64"]) == want


def address(ip: str, port: int) -> Address:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    raw = struct.pack("=H", family) + struct.pack("!H", port)
    packed = socket.inet_pton(family, ip)
    found = parse(raw + (b"\0" * 4 + packed + b"\0" * 4 if family == socket.AF_INET6 else packed + b"\0" * 8))
    assert found is not None
    return found


@pytest.fixture
def policy() -> Policy:
    made = Policy(app_address="127.70.0.1", advertised="192.0.2.10", outbound=("127.70.0.1", 15001))
    made.bound(8080)
    return made


STEERED = Steer(("127.70.0.1", 15001), announce=True)
OWN = Steer(("127.70.0.1", 8080), announce=False)


@pytest.mark.parametrize(
    ("ip", "port", "want"),
    [
        ("240.240.0.7", 8080, STEERED),
        ("::ffff:240.240.0.7", 8080, STEERED),
        ("2001:db8::1", 443, STEERED),
        ("192.0.2.10", 9090, STEERED),  # another workload on this host
        ("127.130.0.1", 8080, STEERED),  # another replica of weft up
        ("127.0.0.1", 8080, OWN),
        ("::1", 8080, OWN),
        ("0.0.0.0", 8080, OWN),
        ("192.0.2.10", 8080, OWN),
        ("127.0.0.1", 5432, None),
        ("::1", 5432, None),
        ("127.0.0.53", 53, None),
        ("127.70.0.1", 8080, None),
        ("127.71.0.1", 8080, errno.ECONNREFUSED),  # another's application: around its sidecar
        ("127.71.0.1", 15001, errno.ECONNREFUSED),  # another's way out
    ],
)
def test_connects(policy: Policy, ip: str, port: int, want: object) -> None:
    assert policy.connect(address(ip, port)) == want


@pytest.mark.parametrize(
    ("ip", "port", "moved"),
    [
        ("0.0.0.0", 80, True),
        ("::", 80, True),
        ("127.0.0.1", 80, True),
        ("::1", 80, True),
        ("192.0.2.10", 80, True),
        ("0.0.0.0", 0, False),
        ("198.51.100.1", 80, False),
        ("127.70.0.1", 80, False),
    ],
)
def test_binds(policy: Policy, ip: str, port: int, moved: bool) -> None:
    assert policy.bind(address(ip, port)) == (("127.70.0.1", port) if moved else None)


@pytest.mark.parametrize(
    ("advertised", "ip", "port", "moved"),
    [
        ("127.130.0.1", "0.0.0.0", 53, True),
        ("127.130.0.1", "::", 53, True),
        ("127.130.0.1", "127.0.0.1", 53, True),
        ("127.130.0.1", "0.0.0.0", 54, False),  # not what it declares: a client of others
        ("127.130.0.1", "0.0.0.0", 0, False),
        ("127.130.0.1", "127.130.0.1", 53, False),
        ("192.0.2.10", "0.0.0.0", 53, False),  # answers come from the address that was asked
    ],
)
def test_binds_for_datagrams(advertised: str, ip: str, port: int, moved: bool) -> None:
    made = Policy(
        app_address="127.70.0.1", advertised=advertised, outbound=("127.70.0.1", 15001), declared=[53]
    )
    assert made.bind_datagrams(address(ip, port)) == (("127.130.0.1", port) if moved else None)


@pytest.mark.parametrize(
    "raw", [b"", b"\1", struct.pack("=H", 1) + b"/run/x", struct.pack("=H", 2) + b"\0", b"\0" * 16]
)
def test_other_families_are_not_ours(raw: bytes) -> None:
    assert parse(raw) is None


def test_the_header_is_of_one_family() -> None:
    four = proxy_header(("127.70.0.1", 4000), address("240.240.0.7", 80))
    assert four[12:16] == b"\x21\x11\x00\x0c"
    assert four[16:] == bytes([127, 70, 0, 1, 240, 240, 0, 7]) + struct.pack("!HH", 4000, 80)
    six = proxy_header(("127.70.0.1", 4000), address("2001:db8::1", 80))
    assert six[12:16] == b"\x21\x21\x00\x24"
    assert six[16:32] == socket.inet_pton(socket.AF_INET6, "::ffff:127.70.0.1")
    assert six[32:48] == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
