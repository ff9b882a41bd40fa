"""The protocol against a model of Envoy that does whatever Envoy may do, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from weft.emit.packed import Packed
from weft.names import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    VIRTUAL_HOST_TYPE,
    local_endpoints,
)
from weft.xds.messages import Acknowledged, ProtocolError, Refused, Request, Snapshot
from weft.xds.protocol import Stream
from weft.xds.shared import Response, Shared
from weft.xds.table import Table

CLUSTERS = [f"c{number}" for number in range(5)]
ROUTES = ["r0", "r1"]
LISTENERS = ["l0", "l1", "l2"]

asked_for = st.sets(st.sampled_from(CLUSTERS), max_size=3)
clusters = st.dictionaries(st.sampled_from(CLUSTERS), st.integers(0, 2), min_size=0, max_size=4)
endpoint_sets = st.dictionaries(st.sampled_from(CLUSTERS), st.integers(0, 2), max_size=3)
BAD = 2  # versions that Envoy refuses


def make(kind: str, data: dict[str, object]) -> dict[str, Packed]:
    """``l0`` has a port of its own, which another listener may need."""
    return {
        name: Packed(name, f"{name}@{kind}@{value}", b"\n\x01x", bound=name == "l0")
        for name, value in data.items()
    }


def is_made(version: str) -> bool:
    """Whether a cluster of that version is a real one: not there, or there in name only, it has no value."""
    return "@" in version


def is_bad(resource: Packed) -> bool:
    return resource.version.endswith(f"@{BAD}")


@dataclass
class ModelKind:
    """What Envoy has of one type."""

    held: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    open: list[Response] = field(default_factory=list)


class Model(RuleBasedStateMachine):
    """Envoy: applies what it is sent, subscribes to what that refers to, answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = Shared()
        self.revision = 0
        self.table: Table[Packed] = Table()
        self.sequence = 0
        self.current: dict[str, dict[str, Packed]] = {}
        self.lazy: frozenset[str] = frozenset()
        self.ahead: frozenset[str] = frozenset()
        self.asked: set[str] = set()
        self.route_to: dict[str, str] = {}
        self.connected = False
        self.kinds: dict[str, ModelKind] = {}
        self.stream = Stream(self.shared)
        self.again: set[str] = set()
        self.ever_refused: set[str] = set()
        self.ever_lazy: set[str] = set()

    @initialize(asked=asked_for)
    def start(self, asked: set[str]) -> None:
        """A proxy that starts, or comes back and asked for clusters before."""
        self.asked = asked
        self.connect()

    def connect(self) -> None:
        self.stream = Stream(self.shared)
        if self.current:
            self.stream.update(Snapshot(self.revision, self.current, self.lazy, self.ahead))
        self.stream.update_endpoints(self.table, self.sequence)
        old = self.kinds
        self.kinds = {
            url: ModelKind(
                dict(old[url].held) if url in old else {}, set(old[url].names) if url in old else set()
            )
            for url in (CLUSTER_TYPE, LISTENER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE)
        }
        self.again = set()
        for url, kind in self.kinds.items():
            names = {"*", *self.asked} if url == CLUSTER_TYPE and self.asked else kind.names
            if url in {CLUSTER_TYPE, LISTENER_TYPE} or names:
                self.stream.receive(
                    Request(url, subscribe=tuple(sorted(names)), initial_versions=dict(kind.held))
                )
                for name in names - set(kind.held):
                    self.again.add(name)
        self.connected = True

    @rule(
        clusters=clusters,
        listeners=st.dictionaries(st.sampled_from(LISTENERS), st.integers(0, 2), max_size=3),
        leads_to=st.lists(st.integers(0, 9), min_size=2, max_size=2),
        bad=st.booleans(),
        lazy=st.one_of(st.just(set()), asked_for),
        ahead=st.one_of(st.just(set()), asked_for),
    )
    def publish(
        self,
        clusters: dict[str, int],
        listeners: dict[str, int],
        leads_to: list[int],
        bad: bool,
        lazy: set[str],
        ahead: set[str],
    ) -> None:
        """A bundle whose listeners have their routes, which lead only to clusters in it."""
        self.revision += 1
        good = sorted(clusters)
        to: dict[str, object] = {}
        if good:
            for name, number in zip(ROUTES, leads_to, strict=True):
                value = BAD if bad and number == 9 else 0
                to[name] = f"{good[number % len(good)]}@{value}"
        self.current = {
            CLUSTER_TYPE: make("c", dict(clusters)),
            LISTENER_TYPE: make("l", dict(listeners if good else {})),
            ROUTE_TYPE: make("r", to),
        }
        self.lazy, self.ahead = frozenset(lazy & set(clusters)), frozenset(ahead)
        self.ever_lazy |= self.lazy
        self.stream.update(Snapshot(self.revision, self.current, self.lazy, self.ahead))

    @rule(put=endpoint_sets, removed=st.sets(st.sampled_from(CLUSTERS), max_size=2))
    def publish_endpoints(self, put: dict[str, int], removed: set[str]) -> None:
        self.sequence += 1
        self.table = self.table.replace(make("e", dict(put)), removed)
        self.stream.update_endpoints(self.table, self.sequence)

    @rule()
    def send(self) -> None:
        response = self.stream.send()
        if response is not None:
            self.take(response)

    def take(self, response: Response) -> None:
        kind = self.kinds[response.type_url]
        assert not kind.open, "a second response of a type before the first is answered"
        names = [resource.name for resource in response.resources]
        assert len(names) == len(set(names))
        for resource in response.resources:
            if response.type_url in {ENDPOINT_TYPE, ROUTE_TYPE}:
                assert resource.name in kind.names, "not asked for"
            known = kind.held.get(resource.name)
            assert known != resource.version or resource.name in self.again, "sent again for no reason"
        if response.type_url == CLUSTER_TYPE:
            # Its endpoints will be sent again; after a refusal anything may be.
            self.again |= set(names)
        kind.open.append(response)

    def _open(self) -> list[str]:
        return [url for url, kind in self.kinds.items() if kind.open]

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        url = data.draw(st.sampled_from(self._open()))
        kind = self.kinds[url]
        response = kind.open.pop()
        bad = [resource for resource in response.resources if is_bad(resource)]  # type: ignore[arg-type]
        if bad:
            # Some errors keep all of a response out, others only the bad ones.
            applied = [] if data.draw(st.booleans()) else [r for r in response.resources if r not in bad]
            self.again |= {resource.name for resource in response.resources}
            named = data.draw(st.booleans())
            error = f"cannot add {bad[0].name}: no" if named else "no"
        else:
            applied, error = list(response.resources), None
        if not bad or applied:
            for name in response.removed:
                if url == CLUSTER_TYPE and "hurried" not in self.again:
                    # Make before break, refusals or not.
                    leads_to = {route.split("@")[2] for route in self.kinds[ROUTE_TYPE].held.values()}
                    assert name not in leads_to, f"a route still leads to {name}"
                kind.held.pop(name, None)
                self.again.discard(name)
        for resource in applied:
            if url == CLUSTER_TYPE and not is_made(resource.version) and "hurried" not in self.again:
                # To be made empty is to be taken away.
                held = kind.held.get(resource.name, "")
                leads_to = {route.split("@")[2] for route in self.kinds[ROUTE_TYPE].held.values()}
                assert not is_made(held) or resource.name not in leads_to, f"a route leads to {resource.name}"
            kind.held[resource.name] = resource.version
            if url == ROUTE_TYPE and "hurried" not in self.again:
                target = resource.version.split("@")[2]
                known = {*self.kinds[CLUSTER_TYPE].held, *self.ever_refused, *self.ever_lazy}
                assert target in known, f"a route leads to {target}, which is not there"
        if url == CLUSTER_TYPE:
            self.ever_refused |= {resource.name for resource in bad}
        event = self.stream.receive(Request(url, nonce=response.nonce, error=error))
        if error is None:
            assert event == Acknowledged(url, response.nonce)
        else:
            assert isinstance(event, Refused)
            assert event.culprit is None or is_bad(event.culprit)  # type: ignore[arg-type]
        if url == CLUSTER_TYPE:
            self.follow(ENDPOINT_TYPE, set(self.kinds[CLUSTER_TYPE].held))
        elif url == LISTENER_TYPE:
            self.follow(ROUTE_TYPE, {"r" + name[1:] for name in kind.held} & set(ROUTES))

    def follow(self, url: str, names: set[str]) -> None:
        """Subscribe to what is referred to now, and no more to what is not."""
        kind = self.kinds[url]
        new, gone = names - kind.names, kind.names - names
        if new or gone:
            kind.names = set(names)
            for name in gone:
                kind.held.pop(name, None)
            self.again |= new
            self.stream.receive(Request(url, subscribe=tuple(sorted(new)), unsubscribe=tuple(sorted(gone))))

    @rule(name=st.sampled_from(CLUSTERS))
    def ask_again(self, name: str) -> None:
        if name in self.kinds[ENDPOINT_TYPE].names:
            self.again.add(name)
            self.stream.receive(Request(ENDPOINT_TYPE, subscribe=(name,)))

    @rule(names=asked_for)
    def ask_for_clusters(self, names: set[str]) -> None:
        """A request needs clusters that are not there; names are asked for once and kept for ever."""
        new = {name for name in names - self.asked if name not in self.kinds[CLUSTER_TYPE].held}
        if new:
            self.asked |= new
            self.again |= new
            self.stream.receive(Request(CLUSTER_TYPE, subscribe=tuple(sorted(new))))

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule()
    def hurry(self) -> None:
        """The clock of the adapter ran out: order is given up, nothing else."""
        self.stream.hurry()
        self.again |= {"hurried"}

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Left alone, the proxy ends with what it shall have."""
        for _ in range(300):
            response = self.stream.send()
            if response is not None:
                self.take(response)
            elif self._open():
                self.answer(data)
            else:
                break
        else:
            pytest.fail("the two never come to rest")
        if not self.current:
            return
        assert self.stream.revision == self.revision
        assert self.stream.has_endpoints(self.sequence)
        rejected = {(url, rejection.resource.name) for url, rejection in self.stream.rejected()}
        for url, kind in self.kinds.items():
            for name, resource in self.wanted(url).items():
                if is_bad(resource):
                    assert (url, name) in rejected
                else:
                    assert kind.held.get(name) == resource.version, (url, name)
                    assert (url, name) not in rejected
        if not {LISTENER_TYPE, ROUTE_TYPE} & {url for url, _ in rejected}:
            held = self.kinds[CLUSTER_TYPE].held
            assert {name for name in held if is_made(held[name])} <= set(self.wanted(CLUSTER_TYPE))
            assert {name for name in held if not is_made(held[name])} <= self.asked
            assert self.asked <= set(held) | {name for _, name in rejected}, "somebody waits for an answer"
        assert set(self.kinds[LISTENER_TYPE].held) <= set(self.current[LISTENER_TYPE])

    def wanted(self, url: str) -> dict[str, Packed]:
        if url == ENDPOINT_TYPE:
            names = self.kinds[url].names & set(self.wanted(CLUSTER_TYPE))
            return {name: self.table[name] for name in names if name in self.table}
        if url == ROUTE_TYPE:
            return {n: r for n, r in self.current[url].items() if n in self.kinds[url].names}
        if url == CLUSTER_TYPE:
            wait = self.lazy - self.ahead - self.asked
            return {n: r for n, r in self.current[url].items() if n not in wait}
        return self.current[url]


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstAModel = Model.TestCase


def test_an_unknown_virtual_host_is_refused_at_once_and_healed_later() -> None:
    stream = Stream(Shared())
    stream.update(Snapshot(1, {VIRTUAL_HOST_TYPE: {}}))
    stream.receive(Request(VIRTUAL_HOST_TYPE, subscribe=("r/shop",)))
    refusal = stream.send()
    assert refusal is not None
    assert [(answer.name, answer.body) for answer in refusal.resources] == [("r/shop", b"")]
    stream.receive(Request(VIRTUAL_HOST_TYPE, nonce=refusal.nonce))
    real = Packed("r/shop", "1", b"\n\x01x")
    stream.update(Snapshot(2, {VIRTUAL_HOST_TYPE: {"r/shop": real}}))
    healed = stream.send()
    assert healed is not None
    assert healed.resources == (real,)


def test_clusters_on_demand_come_only_when_asked_for() -> None:
    stream, lazy = Stream(Shared()), Packed("lazy", "1", b"\n\x01x")
    eager = Packed("eager", "1", b"\n\x01x")
    stream.update(Snapshot(1, {CLUSTER_TYPE: {"lazy": lazy, "eager": eager}}, frozenset({"lazy"})))
    stream.receive(Request(CLUSTER_TYPE, subscribe=("*",)))
    first = stream.send()
    assert first is not None
    assert first.resources == (eager,)
    stream.receive(Request(CLUSTER_TYPE, nonce=first.nonce))
    assert stream.send() is None
    stream.receive(Request(CLUSTER_TYPE, subscribe=("lazy", "unknown")))
    second = stream.send()
    assert second is not None
    assert [resource.name for resource in second.resources] == ["lazy", "unknown"]
    assert second.resources[0] is lazy
    stream.receive(Request(CLUSTER_TYPE, nonce=second.nonce))
    # The name stays subscribed: it comes when it exists, and leaves a tombstone when it goes.
    unknown = Packed("unknown", "2", b"\n\x01x")
    stream.update(Snapshot(2, {CLUSTER_TYPE: {"unknown": unknown, "eager": eager}}, frozenset({"unknown"})))
    third = stream.send()
    assert third is not None
    assert (third.resources, third.removed) == ((unknown,), ())
    # Only now, as routes may have led there until here.
    stream.receive(Request(CLUSTER_TYPE, nonce=third.nonce))
    fourth = stream.send()
    assert fourth is not None
    assert [resource.name for resource in fourth.resources] == ["lazy"]
    assert fourth.removed == ()
    stream.receive(Request(CLUSTER_TYPE, nonce=fourth.nonce))
    assert stream.send() is None
    assert stream.revision == 2


def test_a_cluster_that_was_asked_for_is_emptied_after_routes_left_it() -> None:
    stream, made = Stream(Shared()), Packed("c", "1", b"\n\x01x")

    def answer() -> tuple[str, list[str]]:
        response = stream.send()
        assert response is not None
        stream.receive(Request(response.type_url, nonce=response.nonce))
        return response.type_url, [resource.name for resource in response.resources]

    def routes(version: str) -> dict[str, Packed]:
        return {"r": Packed("r", version, b"\n\x01x")}

    stream.receive(Request(CLUSTER_TYPE, subscribe=("*", "c")))
    stream.receive(Request(ROUTE_TYPE, subscribe=("r",)))
    stream.update(Snapshot(1, {CLUSTER_TYPE: {"c": made}, ROUTE_TYPE: routes("1")}, frozenset({"c"})))
    assert [answer(), answer()] == [(CLUSTER_TYPE, ["c"]), (ROUTE_TYPE, ["r"])]
    stream.update(Snapshot(2, {CLUSTER_TYPE: {}, ROUTE_TYPE: routes("2")}))
    assert [answer(), answer()] == [(ROUTE_TYPE, ["r"]), (CLUSTER_TYPE, ["c"])]
    assert stream.send() is None
    assert stream.revision == 2


def test_listeners_that_hold_a_port_make_room_and_others_wait_for_the_routes() -> None:
    stream = Stream(Shared())

    def listeners(*names: str) -> dict[str, Packed]:
        return {name: Packed(name, "1", b"\n\x01x", bound=name.startswith("bound")) for name in names}

    def answer() -> tuple[str, list[str], tuple[str, ...]]:
        response = stream.send()
        assert response is not None
        stream.receive(Request(response.type_url, nonce=response.nonce))
        return response.type_url, [resource.name for resource in response.resources], response.removed

    stream.receive(Request(LISTENER_TYPE, subscribe=("*",)))
    stream.receive(Request(ROUTE_TYPE, subscribe=("80",)))
    old = {LISTENER_TYPE: listeners("bound", "10.0.0.1_80"), ROUTE_TYPE: make("r", {"80": 0})}
    stream.update(Snapshot(1, old))
    assert [answer()[0], answer()[0]] == [LISTENER_TYPE, ROUTE_TYPE]
    stream.update(Snapshot(2, {LISTENER_TYPE: listeners("bound-too"), ROUTE_TYPE: make("r", {"80": 1})}))
    assert answer() == (LISTENER_TYPE, ["bound-too"], ("bound",))
    assert answer() == (ROUTE_TYPE, ["80"], ())
    assert answer() == (LISTENER_TYPE, [], ("10.0.0.1_80",))
    assert stream.send() is None
    assert stream.revision == 2


def test_a_proxy_that_starts_is_answered_even_with_nothing() -> None:
    stream = Stream(Shared())
    stream.receive(Request(CLUSTER_TYPE))
    assert stream.send() is None, "nothing is known of what it shall have"
    stream.update(Snapshot(1, {CLUSTER_TYPE: {}}))
    empty = stream.send()
    assert empty is not None
    assert (empty.resources, empty.removed) == ((), ())
    stream.receive(Request(CLUSTER_TYPE, nonce=empty.nonce))
    assert stream.send() is None
    assert stream.revision == 1


def test_endpoints_of_clusters_that_it_has_not_are_not_told() -> None:
    stream = Stream(Shared())
    stream.update(Snapshot(1, {CLUSTER_TYPE: {}}))
    stream.update_endpoints(Table[Packed]().replace({"secret": Packed("secret", "1", b"\n\x01x")}))
    for names in (("secret",), ("*",)):
        stream.receive(Request(ENDPOINT_TYPE, subscribe=names))
        assert stream.send() is None


def test_the_replicas_of_a_proxy_are_told_to_itself_before_any_cluster() -> None:
    own, other = local_endpoints("shop", "web-0"), local_endpoints("shop", "api-0")
    stream = Stream(Shared(), own)
    stream.update(Snapshot(1, {CLUSTER_TYPE: {}}))
    stream.update_endpoints(
        Table[Packed]().replace({name: Packed(name, "1", b"\n\x01x") for name in (own, other)})
    )
    stream.receive(Request(ENDPOINT_TYPE, subscribe=(own, other)))
    response = stream.send()
    assert response is not None
    assert [resource.name for resource in response.resources] == [own]


def test_unknown_types_end_the_stream() -> None:
    with pytest.raises(ProtocolError, match="no resources of type"):
        Stream(Shared()).receive(Request("type.googleapis.com/envoy.service.runtime.v3.Runtime"))
