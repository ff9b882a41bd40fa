"""The three steps, as pure states: when the next one is taken, and that each survives being stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError
from weft.identity.revocation import issuer_key
from weft.identity.rotation import AGENT, Loaded, Member, Missing, Phase, State, missing, step

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
VERSION = "v"


def loaded(state: State, trust: str = VERSION) -> Loaded:
    return Loaded(trust=trust, issuer=issuer_key(state.authority))


def node(state: State, *proxies: str, trust: str = VERSION, connected: bool = True) -> Member:
    parts = (AGENT, *proxies)
    return Member(
        connected=connected, parts=frozenset(parts), loaded=dict.fromkeys(parts, loaded(state, trust))
    )


@pytest.fixture
def begun() -> State:
    return State(Authority.create(NOW)).begin(Authority.create(NOW), NOW)


def steps(state: State) -> Iterator[State]:
    while state.rotation is not None:
        yield state
        state = state.advance(NOW)
    yield state


def test_old_then_both_then_new(begun: State) -> None:
    assert begun.rotation is not None
    old, new = begun.rotation.predecessor.roots[0], begun.rotation.successor.roots[0]
    found = [(state.rotation and state.rotation.phase, state.authority.roots) for state in steps(begun)]
    assert found == [
        (Phase.TRUST, (old, new)),
        (Phase.SIGN, (new, old)),
        (Phase.DROP, (new,)),
        (None, (new,)),
    ]
    sequences = [state.sequence for state in steps(begun)]
    assert sequences == sorted(set(sequences))


def test_each_step_is_the_same_after_it_was_stored(begun: State) -> None:
    for state in steps(begun):
        assert State.from_json(state.to_json(), "cluster.local") == state


def test_what_was_stored_before_there_were_rotations_is_read() -> None:
    authority = Authority.create(NOW)
    assert State.from_json(authority.to_pem(), "cluster.local") == State(authority)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"authority":"x"}', b'{"authority":1}', b"\xff"])
def test_damage_is_said(body: bytes) -> None:
    with pytest.raises(AuthorityError):
        State.from_json(body, "cluster.local")


def test_nothing_moves_while_somebody_is_missing(begun: State) -> None:
    old = Loaded(trust=VERSION, issuer=issuer_key(begun.authority))
    for state in steps(begun):
        if state.rotation is None:
            continue
        whole = {"a": node(state, "shop/web-0"), "b": node(state)}
        assert missing(state, VERSION, whole, NOW) == ()
        assert step(state, VERSION, whole, NOW) == state.advance(NOW)
        behind = {**whole, "b": node(state, trust="older")}
        assert step(state, VERSION, behind, NOW) == state
        silent = {**whole, "c": Member(connected=True)}
        (only,) = missing(state, VERSION, silent, NOW)
        assert (only.node, only.why) == ("c", "has not said what it has loaded")
        if state.rotation.phase is not Phase.TRUST:
            stale = Member(connected=True, parts=frozenset({AGENT, "x"}), loaded={AGENT: old, "x": old})
            found = missing(state, VERSION, {"d": stale}, NOW)
            assert [one.part for one in found] == [AGENT, "x"]
            assert {one.why for one in found} == {"has no certificate of the new authority"}


def test_who_is_away_is_waited_for_by_policy(begun: State) -> None:
    away = {"a": node(begun), "b": node(begun, connected=False)}
    later = NOW + dt.timedelta(minutes=11)
    assert missing(begun, VERSION, away, later) == (Missing("b", AGENT, "is away"),)
    first, second = Authority.create(NOW), Authority.create(NOW)
    skipping = State(first).begin(second, NOW, skip=["b"])
    assert missing(skipping, VERSION, away, NOW) == ()
    limited = State(first).begin(second, NOW, timeout=dt.timedelta(minutes=10))
    assert missing(limited, VERSION, away, NOW) == (Missing("b", AGENT, "is away"),)
    assert missing(limited, VERSION, away, later) == ()
    # Whoever is there is waited for, however long: its connections would fail.
    behind = {"a": node(limited, trust="older")}
    assert missing(limited, VERSION, behind, later)


def test_only_one_at_a_time_and_never_to_itself(begun: State) -> None:
    with pytest.raises(AuthorityError, match="being replaced already"):
        begun.begin(Authority.create(NOW), NOW)
    signing = Authority.create(NOW)
    with pytest.raises(AuthorityError, match="signs already"):
        State(signing).begin(signing, NOW)


def test_a_root_that_only_stood_beside_stays(begun: State) -> None:
    """Unless it is said which ones shall be trusted."""
    other, successor = Authority.create(NOW).roots[0], Authority.create(NOW)
    first = State(Authority.create(NOW).trust(other))
    *_, last = steps(first.begin(successor, NOW))
    assert last.authority.roots == (*successor.roots, other)
    *_, last = steps(first.begin(successor, NOW, exact=True))
    assert last.authority.roots == successor.roots
