from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.errors import WeftError
from weft.identity.custody import Custody
from weft.identity.join import JoinToken, TokenError
from weft.identity.scope import EVERYTHING, Scope
from weft.identity.tokens import Tokens
from weft.store.interface import Store

PIN = "p" * 43


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(store: Store, clock: Clock) -> Tokens:
    return Tokens(store.private("tokens"), clock)


class TestText:
    @given(
        st.from_regex(r"[a-z0-9]{10}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True),
    )
    def test_what_is_written_is_read(self, name: str, secret: str, pin: str) -> None:
        token = JoinToken(name, secret, pin)
        assert JoinToken.parse(f"  {token}\n") == token

    @given(st.text(max_size=300))
    def test_anything_else_is_refused_and_not_repeated(self, text: str) -> None:
        with pytest.raises(TokenError) as refused:
            JoinToken.parse(text)
        assert refused.value.message.startswith("this is not a join token")
        assert refused.value.message.endswith("weft1.<id>.<secret>.<hash>")

    def test_a_secret_is_not_shown_by_accident(self) -> None:
        assert "s" * 43 not in repr(JoinToken("abcdefghij", "s" * 43, PIN))


class TestUse:
    async def test_the_secret_is_not_stored(self, tokens: Tokens, store: Store) -> None:
        text, _ = await tokens.create(PIN)
        stored = (await store.private("tokens").list())[text.id]
        assert text.secret.encode() not in stored

    async def test_once(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN)
        assert (await tokens.use(text, node="host1")).left == 0
        with pytest.raises(TokenError, match="used once already"):
            await tokens.use(text, node="host1")

    async def test_of_many_at_once_as_many_win_as_may(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN, uses=3)
        outcomes = await asyncio.gather(
            *(tokens.use(text, node=f"host{number}") for number in range(20)), return_exceptions=True
        )
        assert sum(not isinstance(outcome, TokenError) for outcome in outcomes) == 3

    async def test_a_check_counts_nothing(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN)
        await tokens.check(text, node="host1")
        await tokens.check(text, node="host1")
        assert (await tokens.list())[0].left == 1

    async def test_it_expires(self, tokens: Tokens, clock: Clock) -> None:
        text, _ = await tokens.create(PIN, lifetime=dt.timedelta(minutes=10))
        clock.now += dt.timedelta(minutes=10)
        with pytest.raises(TokenError, match="expired on 2026-05-01 at 12:10:00 UTC") as refused:
            await tokens.use(text, node="host1")
        assert "weft token create" in refused.value.hint

    async def test_it_can_be_revoked(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN, uses=5)
        await tokens.revoke(text.id)
        with pytest.raises(TokenError, match="was revoked"):
            await tokens.use(text, node="host1")
        with pytest.raises(TokenError, match="no join token"):
            await tokens.revoke("nothing")

    async def test_unknown_and_wrong_are_one_answer(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN)
        for wrong in (
            JoinToken(text.id, "A" * 43, PIN),
            JoinToken("aaaaaaaaaa", text.secret, PIN),
        ):
            with pytest.raises(TokenError, match=r"^this join token is not known here$"):
                await tokens.use(wrong, node="host1")

    async def test_for_one_node(self, tokens: Tokens) -> None:
        text, _ = await tokens.create(PIN, node="host1")
        with pytest.raises(TokenError, match="is for node 'host1', this is 'host2'"):
            await tokens.use(text, node="host2")
        await tokens.use(text, node="host1")

    async def test_what_expired_long_ago_is_forgotten(self, tokens: Tokens, clock: Clock) -> None:
        old, _ = await tokens.create(PIN)
        clock.now += dt.timedelta(days=8)
        await tokens.create(PIN)
        assert old.id not in {token.id for token in await tokens.list()}

    @pytest.mark.parametrize("options", [{"lifetime": dt.timedelta(days=31)}, {"uses": 0}])
    async def test_limits(self, tokens: Tokens, options: dict[str, dt.timedelta | int]) -> None:
        with pytest.raises(WeftError):
            await tokens.create(PIN, **options)  # type: ignore[arg-type]


class TestScope:
    def test_it_allows_what_it_names(self) -> None:
        scope = Scope.of(["shop/web", "bank"])
        assert scope.allows("shop", "web")
        assert not scope.allows("shop", "db")
        assert scope.allows("bank", "any")
        assert not scope.allows("default", "web")
        assert EVERYTHING.allows("any", "one")
        assert Scope.of(["*/web"]).allows("any", "web")

    @pytest.mark.parametrize("text", ["", "/", "a/", "a/b/c", "sh*p/web", "A/b", "../x"])
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(WeftError):
            Scope.of([text])


async def test_two_control_planes_make_one_authority(store: Store, clock: Clock) -> None:
    table = store.private("authority")
    first, second = await asyncio.gather(Custody(table, clock).open(), Custody(table, clock).open())
    assert first == second
    assert await Custody(table, clock).open() == first
