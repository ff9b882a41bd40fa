"""The keys of issuers of tokens, fetched ahead and kept fresh, so that no request waits for them.

Each source has a task of its own. What was good once stays when its server fails, over a restart as well,
but not for ever: an issuer that was not reached for a week may have withdrawn its keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from weft.compile.key_sets import KeySet, KeySets, KeySource, sources
from weft.compile.world import World
from weft.control.key_server import FetchError, KeyServer, Reach
from weft.model.request_authentication import RequestAuthentication
from weft.store.interface import Private

_log = logging.getLogger(__name__)

REFRESH: Final = timedelta(minutes=20)
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 300.0
_STALE_S: Final = timedelta(days=7).total_seconds()
# Many control planes and many sources must not ask all at the same moment.
_JITTER: Final = 0.1
_UNCLEAR: Final = "weft itself failed: its log says more"


class KeyFetcher:
    """Keeps the keys that a world's policies need. Give it every world (``heard``) and let ``run`` run.

    Args:
        table: the last good keys, which outlive this process.
        changed: called with all that is known whenever that differs.
        counted: called after each attempt, with whether it went well.
        retry: seconds until the first attempt after one that failed; then twice as long, and so on.
    """

    def __init__(
        self,
        server: KeyServer,
        table: Private,
        changed: Callable[[KeySets], None],
        *,
        counted: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        refresh: timedelta = REFRESH,
        retry: float = _FIRST_RETRY_S,
    ) -> None:
        self._server = server
        self._table = table
        self._changed = changed
        self._counted = counted
        self._clock = clock
        self._refresh, self._retry = refresh.total_seconds(), retry
        self._known: dict[KeySource, KeySet] = {}
        self._fetched: dict[KeySource, float] = {}
        self._wanted: dict[KeySource, timedelta] = {}
        self._told: KeySets = {}
        self._policies: object = None
        self._hurry: dict[KeySource, asyncio.Event] = {}
        self._wake = asyncio.Event()

    async def load(self) -> KeySets:
        """Read what was good before; all of it, until a world says what is needed."""
        now = self._clock()
        for name, value in (await self._table.list()).items():
            row = json.loads(value)
            if now - row["fetched"] >= _STALE_S:
                await self._table.delete(name)
                continue
            source = KeySource(row["uri"], row["discover"])
            self._known[source], self._fetched[source] = KeySet(row["keys"]), row["fetched"]
        self._told = dict(self._known)
        return self._told

    def heard(self, world: World) -> None:
        """A new world: other policies, or other addresses that may be dialled."""
        reach = Reach(world.settings.key_networks, world.settings.key_plaintext)
        if reach != self._server.reach:
            self._server.reach = reach
            for event in self._hurry.values():
                event.set()
        policies = world.all(RequestAuthentication)
        if policies is not self._policies:
            self._policies = policies
            self._wanted = sources(policies.values())
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        tasks: dict[KeySource, asyncio.Task[None]] = {}
        async with self._server, asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for source in tasks.keys() - self._wanted.keys():
                    tasks.pop(source).cancel()
                    del self._hurry[source]
                    self._known.pop(source, None)
                for source in self._wanted.keys() - tasks.keys():
                    self._hurry[source] = asyncio.Event()
                    tasks[source] = group.create_task(self._keep(source), name=f"keys: {source.uri}")
                self._tell()

    async def _keep(self, source: KeySource) -> None:
        hurry, failures = self._hurry[source], 0
        while True:
            failure = await self._attempt(source)
            failures = failures + 1 if failure else 0
            wait = self._refresh
            if failures:
                wait = min(self._retry * 2 ** min(failures - 1, 16), _LAST_RETRY_S, self._refresh)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), wait * random.uniform(1 - _JITTER, 1 + _JITTER))
            hurry.clear()

    async def _attempt(self, source: KeySource) -> str:
        """Fetch once, and tell what came of it; why it failed, if it did."""
        before = self._known.get(source, KeySet())
        try:
            text, failure = await self._server.fetch(source, self._wanted[source]), ""
            self._fetched[source] = self._clock()
            await self._save(source, text)
        except FetchError as error:
            text, failure = before.text, str(error)
        except Exception:
            # One issuer must not cost the others theirs, nor end the control plane.
            _log.exception("the keys at %s", source.uri)
            text, failure = before.text, _UNCLEAR
        self._counted(not failure)
        if text and self._clock() - self._fetched.get(source, 0) >= _STALE_S:
            text = ""
        known = KeySet(text, failure)
        if known != before:
            if failure:
                _log.warning("the keys at %s: %s", source.uri, failure)
            else:
                _log.info("the keys at %s are %s", source.uri, "others now" if before.text else "known")
            self._known[source] = known
            self._tell()
        return failure

    async def _save(self, source: KeySource, text: str) -> None:
        fetched = self._fetched[source]
        row = {"uri": source.uri, "discover": source.discover, "keys": text, "fetched": fetched}
        await self._table.put(f"{int(source.discover)} {source.uri}", json.dumps(row).encode())

    def _tell(self) -> None:
        told = {source: self._known[source] for source in sorted(self._wanted) if source in self._known}
        if told != self._told:
            self._told = told
            self._changed(told)
