"""What every store does. A new implementation is a new parameter of the ``store`` fixture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from weft.model.resource import Key
from weft.store.interface import (
    Action,
    AlreadyExistsError,
    ConflictError,
    Delete,
    Event,
    GoneError,
    NotFoundError,
    Operation,
    Put,
    Store,
)

REVIEWS = Key("/Service", "default", "reviews")
RATINGS = Key("/Service", "default", "ratings")
ROUTES = Key("networking.istio.io/VirtualService", "shop", "reviews")
PASSWORD = Key("/Secret", "default", "password")


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def put(key: Key, version: int = 1, **options: Any) -> Put:
    return Put(key=key, uid=f"uid-{key.name}", body=body(version=version), **options)


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(5), aclosing(cast(Any, events)) as stream:
        async for event in stream:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_an_empty_store_is_at_revision_zero(store: Store) -> None:
    assert store.revision == 0
    assert await store.list() == []
    assert await store.get(REVIEWS) is None


async def test_create_then_read(store: Store) -> None:
    stored = await store.create(put(REVIEWS, owner="files:mesh", source="mesh.yaml:3:1"))
    assert await store.get(REVIEWS) == stored
    assert (stored.revision, stored.owner, stored.source) == (1, "files:mesh", "mesh.yaml:3:1")
    assert json.loads(stored.body) == {"version": 1}
    assert store.revision == 1


async def test_create_refuses_what_is_there(store: Store) -> None:
    await store.create(put(REVIEWS))
    with pytest.raises(AlreadyExistsError):
        await store.create(put(REVIEWS, 2))
    assert store.revision == 1


async def test_update_needs_an_object(store: Store) -> None:
    with pytest.raises(NotFoundError):
        await store.update(put(REVIEWS))
    with pytest.raises(NotFoundError):
        await store.update(put(REVIEWS, expect=3))


async def test_update_at_its_revision_wins_once(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    second = await store.update(put(REVIEWS, 2, expect=first.revision))
    with pytest.raises(ConflictError) as conflict:
        await store.update(put(REVIEWS, 3, expect=first.revision))
    assert conflict.value.found == second.revision
    assert await store.get(REVIEWS) == second


async def test_racing_updates_let_exactly_one_through(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    results = await asyncio.gather(
        *(store.update(put(REVIEWS, n, expect=first.revision)) for n in range(2, 22)), return_exceptions=True
    )
    assert sum(not isinstance(result, ConflictError) for result in results) == 1
    assert store.revision == 2


async def test_a_put_that_changes_nothing_is_no_change(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    again = await store.update(put(REVIEWS))
    assert again == first
    assert await store.transact([put(REVIEWS)]) == first.revision


async def test_a_new_source_alone_is_no_change_but_is_kept(store: Store) -> None:
    first = await store.create(put(REVIEWS, source="mesh.yaml:1"))
    moved = await store.update(put(REVIEWS, source="mesh.yaml:9"))
    assert (moved.revision, moved.source) == (first.revision, "mesh.yaml:9")
    assert await store.get(REVIEWS) == moved


async def test_a_new_owner_is_a_change(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    assert (await store.update(put(REVIEWS, owner="files:mesh"))).revision == first.revision + 1


async def test_delete(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    with pytest.raises(ConflictError):
        await store.delete(REVIEWS, expect=first.revision + 1)
    gone = await store.delete(REVIEWS)
    assert (gone.body, gone.revision) == (first.body, 2)
    assert await store.get(REVIEWS) is None
    with pytest.raises(NotFoundError):
        await store.delete(REVIEWS)


async def test_list_is_sorted_and_filtered(store: Store) -> None:
    for key in (ROUTES, REVIEWS, RATINGS, Key("/Service", "another", "z")):
        await store.create(put(key))
    services = await store.list("/Service")
    assert [(s.key.namespace, s.key.name) for s in services] == [
        ("another", "z"),
        ("default", "ratings"),
        ("default", "reviews"),
    ]
    assert [s.key for s in await store.list("/Service", "default")] == [RATINGS, REVIEWS]
    assert [s.key for s in await store.list(namespace="shop")] == [ROUTES]
    assert len(await store.list()) == 4


async def test_a_transaction_numbers_its_operations_and_closes_with_the_last(store: Store) -> None:
    revision = await store.transact([put(REVIEWS), put(RATINGS), put(ROUTES)])
    events = await take(store.watch(0), 3)
    assert [(event.revision, event.last) for event in events] == [(1, False), (2, False), (3, True)]
    assert revision == store.revision == 3


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (put(RATINGS, expect=9), NotFoundError),
        (put(REVIEWS, 9, expect=0), AlreadyExistsError),
        (put(REVIEWS, 9, expect=7), ConflictError),
        (Delete(key=RATINGS), NotFoundError),
    ],
    ids=["update", "create", "conflict", "delete"],
)
async def test_a_transaction_that_fails_did_nothing(
    store: Store, last: Operation, error: type[Exception]
) -> None:
    before = await store.create(put(REVIEWS))
    with pytest.raises(error):
        await store.transact([put(REVIEWS, 2), put(ROUTES), last])
    assert await store.list() == [before]
    assert store.revision == 1
    assert (await store.create(put(RATINGS))).revision == 2


async def test_a_transaction_may_build_on_its_own_operations(store: Store) -> None:
    await store.transact([put(REVIEWS, expect=0), put(REVIEWS, 2), Delete(key=REVIEWS), put(REVIEWS, 3)])
    assert [event.action for event in await take(store.watch(0), 4)] == [
        Action.CREATED,
        Action.UPDATED,
        Action.DELETED,
        Action.CREATED,
    ]


async def test_watch_tells_what_happened_and_what_was_before(store: Store) -> None:
    first = await store.create(put(REVIEWS))
    events = asyncio.create_task(take(store.watch(first.revision), 2))
    second = await store.update(put(REVIEWS, 2))
    gone = await store.delete(REVIEWS)
    updated, deleted = await events
    assert (updated.action, updated.stored, updated.previous) == (Action.UPDATED, second, first)
    assert (deleted.action, deleted.stored, deleted.previous) == (Action.DELETED, gone, second)


async def test_watch_resumes_in_the_middle_of_a_transaction(store: Store) -> None:
    await store.transact([put(REVIEWS), put(RATINGS), put(ROUTES)])
    assert [event.stored.key for event in await take(store.watch(1), 2)] == [RATINGS, ROUTES]


async def test_many_watchers_see_the_same(store: Store) -> None:
    watchers = [asyncio.create_task(take(store.watch(0), 50)) for _ in range(20)]
    for n in range(50):
        await store.transact([put(REVIEWS, n)])
    seen = await asyncio.gather(*watchers)
    assert all(events == seen[0] for events in seen)
    assert [event.revision for event in seen[0]] == list(range(1, 51))


async def test_watch_from_before_compaction_is_gone(store: Store) -> None:
    for n in range(5):
        await store.transact([put(REVIEWS, n)])
    await store.compact(3)
    with pytest.raises(GoneError) as gone:
        await take(store.watch(2), 1)
    assert gone.value.oldest == 3
    assert [event.revision for event in await take(store.watch(3), 2)] == [4, 5]


async def test_a_watcher_that_fell_behind_compaction_is_told(store: Store) -> None:
    await store.create(put(REVIEWS))
    events = aiter(store.watch(0))
    assert (await anext(events)).revision == 1
    for n in range(2, 5):
        await store.transact([put(REVIEWS, n)])
    await store.compact(4)
    with pytest.raises(GoneError):
        await anext(events)


async def test_history_is_newest_first_and_leaves_out_what_is_not_recorded(store: Store) -> None:
    await store.transact([put(REVIEWS), put(RATINGS)], actor="alice")
    await store.transact([put(REVIEWS, 2, record=False)], actor="node")
    await store.delete(REVIEWS, actor="bob")
    changes = await store.history()
    assert [(c.key, c.revision, c.transaction, c.actor, c.action) for c in changes] == [
        (REVIEWS, 4, 4, "bob", Action.DELETED),
        (RATINGS, 2, 2, "alice", Action.CREATED),
        (REVIEWS, 1, 2, "alice", Action.CREATED),
    ]
    assert [c.body for c in changes] == [None, body(version=1), body(version=1)]
    assert [c.revision for c in await store.history(REVIEWS)] == [4, 1]
    assert [c.revision for c in await store.history(limit=1)] == [4]


async def test_history_keeps_only_fingerprints_of_secrets(store: Store) -> None:
    def secret(value: str) -> Put:
        applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"data": value})}
        text = body(metadata={"name": "password", "annotations": applied}, data={"password": value})
        return Put(key=PASSWORD, uid="u", body=text)

    for value in ("aHVudGVyMg==", "b3RoZXI=", "aHVudGVyMg=="):
        await store.transact([secret(value)])
    third, second, first = [json.loads(c.body or b"") for c in await store.history(PASSWORD)]
    assert first["data"] == third["data"] != second["data"]
    assert first["metadata"]["annotations"] == {}
    assert "aHVudGVyMg" not in json.dumps([first, second, third])
    live = await store.get(PASSWORD)
    assert live is not None
    assert json.loads(live.body)["data"] == {"password": "aHVudGVyMg=="}


async def test_private_tables_are_apart(store: Store) -> None:
    tokens, slots = store.private("tokens"), store.private("slots")
    await tokens.put("a1", b"one")
    await tokens.put("a2", b"two")
    await tokens.put("b1", b"three")
    assert await tokens.get("a1") == b"one"
    assert await slots.get("a1") is None
    assert await tokens.list("a") == {"a1": b"one", "a2": b"two"}
    assert await tokens.delete("a1") is True
    assert await tokens.delete("a1") is False
    assert store.revision == 0


async def test_private_swap_is_atomic(store: Store) -> None:
    uses = store.private("tokens")
    await uses.put("t", b"3")

    async def use() -> bool:
        while left := int(await uses.get("t") or 0):
            if await uses.swap("t", str(left).encode(), str(left - 1).encode()):
                return True
        return False

    assert sum(await asyncio.gather(*(use() for _ in range(10)))) == 3
    assert await uses.swap("new", None, b"x") is True
    assert await uses.swap("new", None, b"y") is False
    assert await uses.swap("new", b"x", None) is True
    assert await uses.get("new") is None
