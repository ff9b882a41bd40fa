"""What is particular to the files: modes, encryption, one holder, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from weft.errors import WeftError
from weft.model.resource import Key
from weft.store.feed import Feed
from weft.store.interface import Event, Put
from weft.store.sqlite import SqliteStore

SECRET = Key("/Secret", "default", "password")
PLAIN = b"correct horse battery staple"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def open_and_close(directory: Path) -> None:
    async with SqliteStore.open(directory):
        pass


async def fill(directory: Path) -> None:
    async with SqliteStore.open(directory) as store:
        body = json.dumps({"data": {"password": PLAIN.decode()}}).encode()
        await store.transact([Put(key=SECRET, uid="u", body=body)])
        await store.transact([Put(key=SECRET, uid="u", body=body.replace(b"horse", b"mule"))])
        await store.private("ca").put("key", PLAIN)


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store") as store:
        await store.private("x").put("a", b"b")
        assert mode(tmp_path / "store") == 0o700
        files = {path.name: mode(path) for path in (tmp_path / "store").iterdir()}
    assert {"store.db", "store.db-wal", "store.key"} <= set(files)
    assert set(files.values()) == {0o600}


async def test_secrets_and_private_values_are_nowhere_on_disk(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        body = json.dumps({"data": {"password": PLAIN.decode()}}).encode()
        await store.transact([Put(key=SECRET, uid="u", body=body)])
        await store.private("ca").put("key", PLAIN)
        while_open = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    closed = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"password" in while_open  # the object's name: the search does look at the right bytes
    assert PLAIN not in while_open
    assert PLAIN not in closed


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with SqliteStore.open(tmp_path) as store:
        found = await store.get(SECRET)
        assert found is not None
        assert found.revision == store.revision == 2
        assert b"mule" in found.body
        assert await store.private("ca").get("key") == PLAIN
        events = [await anext(aiter(store.watch(since))) for since in (0, 1)]
        assert [event.revision for event in events] == [1, 2]
        assert events[1].previous is not None
        assert PLAIN in events[1].previous.body


async def test_another_key_opens_nothing(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "store.key").write_bytes(bytes(32))
    with pytest.raises(WeftError, match="not written with this store's key"):
        await open_and_close(tmp_path)


async def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "store.key").chmod(0o640)
    with pytest.raises(WeftError, match="can be read by others") as refused:
        await open_and_close(tmp_path)
    assert "chmod 600" in refused.value.hint


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path):
        with pytest.raises(WeftError, match="another control plane"):
            await open_and_close(tmp_path)
    async with SqliteStore.open(tmp_path) as again:
        assert again.revision == 0


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("hello, I am no database, but long enough for a header\n" * 20)
    with pytest.raises(WeftError, match=r"store\.db"):
        await open_and_close(tmp_path)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        pass
    with pytest.raises(WeftError, match="closed"):
        await store.private("x").get("y")


async def test_closing_ends_the_watchers(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        seen = asyncio.create_task(_all(store))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(seen, 5) == []


async def _all(store: SqliteStore) -> list[Event]:
    return [event async for event in store.watch(0)]


async def test_a_slow_watcher_reads_on_from_the_disk(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, keep=10) as store:
        events = aiter(store.watch(0))
        await store.transact([_numbered(0)])
        assert (await anext(events)).revision == 1
        for n in range(1, 100):
            await store.transact([_numbered(n)])
        assert [(await anext(events)).revision for _ in range(99)] == list(range(2, 101))


def _numbered(n: int) -> Put:
    return Put(key=Key("/ConfigMap", "default", "n"), uid="u", body=json.dumps({"n": n}).encode())


async def test_the_log_is_trimmed_by_itself(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        for start in range(0, 12_000, 500):
            await store.transact([_numbered(n) for n in range(start, start + 500)])
        with pytest.raises(WeftError, match="are gone"):
            await anext(aiter(store.watch(0)))
        assert (await anext(aiter(store.watch(2_000)))).revision == 2_001


async def test_a_feed_hands_out_nothing_twice_around_its_floor() -> None:
    log: list[Any] = []

    async def older(after: int, until: int) -> list[Any]:
        return [event for event in log if after < event.revision <= until]

    feed = Feed(0, older, keep=2)
    for n in range(1, 20):
        log.append(_event(n))
        feed.publish([log[-1]])
    stream = aiter(feed.read(0))
    assert [(await anext(stream)).revision for _ in range(19)] == list(range(1, 20))


def _event(revision: int) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(revision=revision)


CRASHER = """
import asyncio, json, sys
from pathlib import Path
from weft.model.resource import Key
from weft.store.interface import Put
from weft.store.sqlite import SqliteStore

async def main():
    async with SqliteStore.open(Path(sys.argv[1])) as store:
        n = 0
        while True:
            n += 1
            body = json.dumps({"n": n}).encode()
            pair = [Put(key=Key("/ConfigMap", "default", name), uid="u", body=body) for name in "ab"]
            print(await store.transact(pair), n, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_promised_and_tears_no_transaction(tmp_path: Path) -> None:
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CRASHER, str(tmp_path), stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(30):
            for _ in range(40):
                line = await process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            promised = [line, *(await process.stdout.read()).splitlines()]
            await process.wait()
        complete = [entry.split() for entry in promised if len(entry.split()) == 2]
        async with SqliteStore.open(tmp_path) as store:
            a, b = await store.list("/ConfigMap")
            assert a.body == b.body
            assert json.loads(a.body)["n"] >= int(complete[-1][1])
            assert store.revision == b.revision >= int(complete[-1][0])
            events = []
            async for event in store.watch(0):
                events.append(event)
                if event.revision == store.revision:
                    break
            assert [event.revision for event in events] == list(range(1, store.revision + 1))
        await _empty(tmp_path)


async def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
