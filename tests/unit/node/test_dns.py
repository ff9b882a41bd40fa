from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from dnslib import AAAA, CNAME, EDNS0, QTYPE, RCODE, RR, A, DNSRecord, EDNSOption
from dnslib.server import BaseResolver, DNSServer
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ports import free_port

from weft.node.layout import Layout
from weft.node.process import Process
from weft.node.resolve import Names, parse_question, read_resolvers
from weft.node.resolver import Listening, Resolver
from weft.node.sidecar import proxy_uid

TABLE = {
    "catalog.shop.svc.cluster.local": ("240.240.0.7",),
    "orders.billing.svc.cluster.local": ("240.240.0.8",),
    "headless.shop.svc.cluster.local": tuple(f"10.0.0.{number}" for number in range(1, 61)),
    "api.example.com": ("240.240.0.9",),
    "*.wild.example.com": ("240.240.0.10",),
}


def ask(name: str, kind: str = "A", *, namespace: str = "shop", limit: bool = True) -> DNSRecord | None:
    answer = Names(TABLE).answer(bytes(DNSRecord.question(name, kind).pack()), namespace, limit=limit)
    return None if answer is None else DNSRecord.parse(answer)


def addresses(record: DNSRecord | None) -> list[str]:
    assert record is not None
    return [str(answer.rdata) for answer in record.rr]


@pytest.mark.parametrize(
    "name",
    [
        "catalog",
        "catalog.shop",
        "catalog.shop.svc",
        "catalog.shop.svc.cluster.local",
        "CaTaLoG.Shop",
    ],
)
def test_every_form_of_a_services_name(name: str) -> None:
    assert addresses(ask(name)) == ["240.240.0.7"]


def test_a_short_name_means_the_askers_namespace() -> None:
    assert ask("orders") is None
    assert addresses(ask("orders", namespace="billing")) == ["240.240.0.8"]
    assert addresses(ask("orders.billing")) == ["240.240.0.8"]


def test_each_family_of_addresses_is_answered_and_odd_ones_cost_no_other_name() -> None:
    names = Names(
        {
            "both.example.com": ("192.0.2.1", "fd00::1"),
            "odd.example.com": ("10.0.0.0/8", "unix:///run/x", "fe80::1%eth0", ""),
            f"{'x' * 70}.example.com": ("192.0.2.2",),
            "catalog.shop.svc.cluster.local": ("240.240.0.7",),
        }
    )

    def found(name: str, kind: str) -> list[str]:
        answer = names.answer(bytes(DNSRecord.question(name, kind).pack()), "shop")
        assert answer is not None
        return addresses(DNSRecord.parse(answer))

    assert found("both.example.com", "A") == ["192.0.2.1"]
    assert found("both.example.com", "AAAA") == ["fd00::1"]
    assert found("both.example.com", "ANY") == ["192.0.2.1", "fd00::1"]
    assert found("odd.example.com", "A") == []
    assert found("catalog", "A") == ["240.240.0.7"]
    reverse = names.answer(bytes(DNSRecord.question("2.2.0.192.in-addr.arpa", "PTR").pack()), "shop")
    assert reverse is None


def test_the_answer_repeats_the_case_of_the_question() -> None:
    record = ask("cAtAlOg.shop")
    assert record is not None
    assert record.rr[0].rname.label[0] == b"cAtAlOg"


def test_other_types_of_a_known_name_are_empty_but_no_error() -> None:
    record = ask("catalog", "AAAA")
    assert record is not None
    assert (record.rr, record.header.rcode) == ([], RCODE.NOERROR)


def test_an_unknown_name_of_the_mesh_does_not_exist_and_others_are_forwarded() -> None:
    record = ask("nobody.shop.svc.cluster.local")
    assert record is not None
    assert record.header.rcode == RCODE.NXDOMAIN
    assert ask("www.debian.org") is None
    assert ask("printer") is None


def test_hosts_of_service_entries_and_their_wildcards() -> None:
    assert addresses(ask("api.example.com")) == ["240.240.0.9"]
    assert addresses(ask("a.b.wild.example.com")) == ["240.240.0.10"]
    assert ask("wild.example.com") is None


def test_a_virtual_address_is_named_backwards() -> None:
    assert addresses(ask("7.0.240.240.in-addr.arpa", "PTR")) == ["catalog.shop.svc.cluster.local."]
    assert ask("1.2.0.192.in-addr.arpa", "PTR") is None


def test_an_answer_too_long_for_udp_says_so_and_fits_over_tcp_or_with_edns() -> None:
    short, whole = ask("headless"), ask("headless", limit=False)
    assert short is not None
    assert (short.header.tc, short.rr) == (1, [])
    assert len(addresses(whole)) == 60
    question = DNSRecord.question("headless")
    question.add_ar(EDNS0(udp_len=4096))
    answer = Names(TABLE).answer(bytes(question.pack()), "shop")
    assert answer is not None
    assert len(DNSRecord.parse(answer).rr) == 60


def test_virtual_addresses_live_longer_than_instances() -> None:
    virtual, instance = ask("catalog"), ask("headless", limit=False)
    assert virtual is not None
    assert instance is not None
    assert (virtual.rr[0].ttl, instance.rr[0].ttl) == (30, 5)


@given(st.binary(max_size=120))
def test_no_packet_breaks_the_parser(packet: bytes) -> None:
    question = parse_question(packet)
    assert question is None or packet[12 : 12 + len(question.wire)] == question.wire


def test_a_question_with_an_option_is_read_to_its_end() -> None:
    query = DNSRecord.question("catalog")
    query.add_ar(EDNS0(udp_len=1232, opts=[EDNSOption(10, b"12345678")]))
    question = parse_question(bytes(query.pack()))
    assert question is not None
    assert (question.name, question.udp_size) == ("catalog", 1232)


def test_resolvers_of_the_host() -> None:
    text = "# c\nsearch a b\nnameserver 192.0.2.1 ; x\nnameserver fe80::1%eth0\noptions ndots:2\n"
    assert read_resolvers(text) == ("192.0.2.1", "fe80::1")
    assert read_resolvers("search x\n") == ("127.0.0.1",)


class Upstream(BaseResolver):  # type: ignore[misc]
    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        reply = request.reply()
        kind = QTYPE[request.q.qtype]
        if kind == "A":
            reply.add_answer(RR(request.q.qname, QTYPE.A, ttl=60, rdata=A("198.51.100.1")))
        if kind == "AAAA":
            reply.add_answer(RR(request.q.qname, QTYPE.AAAA, ttl=60, rdata=AAAA("2001:db8::1")))
        return reply


@pytest.fixture
def upstream() -> Iterator[str]:
    servers = [DNSServer(Upstream(), address="127.0.0.1", port=free_port())]
    port = servers[0].server.server_address[1]
    servers.append(DNSServer(Upstream(), address="127.0.0.1", port=port, tcp=True))
    for server in servers:
        server.start_thread()
    yield f"127.0.0.1#{port}"
    for server in servers:
        server.stop()
        server.server.server_close()


@pytest.fixture
def layout() -> Iterator[Layout]:
    with tempfile.TemporaryDirectory(prefix="weft-t") as base:
        Path(base).chmod(0o711)
        found = Layout("test", Path(base) / "run" / "test", Path(base) / "state" / "test")
        found.prepare(proxy_uid=proxy_uid())
        yield found


@pytest.fixture
async def resolver(layout: Layout, upstream: str) -> AsyncIterator[Resolver]:
    found = Resolver(layout, owner=proxy_uid(), resolvers=(upstream,))
    await found.start()
    yield found
    await found.stop()


async def query(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    packet = DNSRecord.question(name, kind)
    raw = await asyncio.to_thread(packet.send, "127.0.0.1", port, tcp=tcp, timeout=3)
    return DNSRecord.parse(raw)


async def test_over_udp_and_tcp_from_the_table_and_from_upstream(resolver: Resolver) -> None:
    port = free_port()
    await resolver.publish(TABLE)
    await resolver.listen(Listening(name="web", namespace="shop", port=port))
    for tcp in (False, True):
        assert addresses(await query(port, "catalog", tcp=tcp)) == ["240.240.0.7"]
        assert addresses(await query(port, "www.debian.org", tcp=tcp)) == ["198.51.100.1"]
        assert addresses(await query(port, "www.debian.org", "AAAA", tcp=tcp)) == ["2001:db8::1"]
    await resolver.publish({"catalog.shop.svc.cluster.local": ("240.240.0.99",)})
    assert addresses(await query(port, "catalog")) == ["240.240.0.99"]


async def test_a_name_that_stands_for_one_outside_is_asked_of_the_resolvers(resolver: Resolver) -> None:
    port = free_port()
    await resolver.publish({**TABLE, "ext.shop.svc.cluster.local": ("www.debian.org",)})
    await resolver.listen(Listening(name="web", namespace="shop", port=port))
    for tcp in (False, True):
        found = await query(port, "ext", tcp=tcp)
        assert addresses(found) == ["198.51.100.1"]
        assert [str(answer.rname) for answer in found.rr] == ["ext."]
    assert addresses(await query(port, "ext.shop.svc", "AAAA")) == ["2001:db8::1"]
    assert addresses(await query(port, "ext", "TXT")) == []


def test_an_alias_gives_the_addresses_at_the_end_of_a_chain_and_no_broken_reply() -> None:
    names = Names({"ext.shop.svc.cluster.local": ("www.example.com",)})
    asked = DNSRecord.question("Ext.shop")
    alias = names.alias(bytes(asked.pack()), "shop")
    assert alias is not None
    query = DNSRecord.parse(alias.query)
    assert str(query.q.qname) == "www.example.com."
    reply = query.reply()
    reply.add_answer(RR("www.example.com", QTYPE.CNAME, ttl=9, rdata=CNAME("edge.example.net")))
    reply.add_answer(RR("edge.example.net", QTYPE.A, ttl=7, rdata=A("198.51.100.7")))
    packed = bytes(reply.pack())
    found = DNSRecord.parse(alias.answer(packed))
    assert (found.header.id, addresses(found), found.rr[0].ttl) == (asked.header.id, ["198.51.100.7"], 7)
    for end in range(12, len(packed)):
        DNSRecord.parse(alias.answer(packed[:end]))
    assert names.alias(bytes(DNSRecord.question("other.shop").pack()), "shop") is None


async def test_a_sidecars_listener_only_forwards(resolver: Resolver) -> None:
    port = free_port()
    await resolver.publish(TABLE)
    await resolver.listen(Listening(name="web/proxy", namespace="shop", port=port, mesh=False))
    assert addresses(await query(port, "api.example.com")) == ["198.51.100.1"]


async def test_one_workload_that_asks_without_end_keeps_no_other_from_answers(
    resolver: Resolver,
) -> None:
    await resolver.publish(TABLE)
    greedy, modest = free_port(), free_port()
    for name, port in (("greedy", greedy), ("modest", modest)):
        await resolver.listen(Listening(name=name, namespace="shop", port=port))
    held = [await asyncio.open_connection("127.0.0.1", greedy) for _ in range(200)]
    try:
        async with asyncio.timeout(5):  # those beyond its share are closed
            closed = [reader for reader, _ in held[64:] if await reader.read() == b""]
        assert len(closed) == 136
        async with asyncio.timeout(5):
            assert addresses(await query(modest, "catalog", tcp=True)) == ["240.240.0.7"]
            assert addresses(await query(modest, "catalog")) == ["240.240.0.7"]
    finally:
        for _, writer in held:
            writer.close()


async def test_a_dead_upstream_gives_an_answer_all_the_same(layout: Layout) -> None:
    resolver = Resolver(layout, owner=proxy_uid(), resolvers=(f"127.0.0.1#{free_port()}",))
    await resolver.start()
    try:
        port = free_port()
        await resolver.listen(Listening(name="web", namespace="shop", port=port))
        assert (await query(port, "www.debian.org")).header.rcode == RCODE.SERVFAIL
    finally:
        await resolver.stop()


async def test_it_outlives_the_agent_and_the_next_one_adopts_it(layout: Layout, resolver: Resolver) -> None:
    port = free_port()
    await resolver.publish(TABLE)
    await resolver.listen(Listening(name="web", namespace="shop", port=port))
    resolver.leave()
    assert addresses(await query(port, "catalog")) == ["240.240.0.7"]
    successor = Resolver(layout, owner=proxy_uid(), resolvers=())
    await successor.start()
    assert successor.pid == resolver.pid
    await successor.publish({"catalog.shop.svc.cluster.local": ("240.240.0.11",)})
    assert addresses(await query(port, "catalog")) == ["240.240.0.11"]
    await successor.stop()


async def test_killed_it_comes_back_with_its_listeners(resolver: Resolver) -> None:
    port = free_port()
    await resolver.publish(TABLE)
    await resolver.listen(Listening(name="web", namespace="shop", port=port))
    keeping = asyncio.create_task(resolver.keep())
    first = resolver.pid
    assert first is not None
    process = Process.of(first)
    assert process is not None
    if os.getuid() == 0:
        assert f"Uid:\t{proxy_uid()}" in Path(f"/proc/{first}/status").read_text()
    process.send(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert addresses(await query(port, "catalog")) == ["240.240.0.7"]
            break
        except (OSError, TimeoutError):
            assert time.monotonic() < deadline
    assert resolver.pid != first
    await resolver.stop()
    await asyncio.wait_for(keeping, 5)
