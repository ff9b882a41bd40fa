"""The running instances: one WorkloadEntry each, held by a node's session and a lease in memory.

A heartbeat writes nothing. After a restart of the control plane every known instance has a whole lease to
come back in, so that a restart never empties the endpoints.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from weft.card import Card
from weft.control.entry import (
    ENTRY_KIND,
    GROUP_KIND,
    NAMESPACE_KIND,
    SERVICE_KIND,
    Times,
    entry_body,
    from_group,
    namespace_body,
    node_of,
    owner_of,
    service_body,
)
from weft.identity.nodes import Node
from weft.identity.server import Issuer, Refused, SignRequest
from weft.instance import Instance
from weft.model.resource import Key
from weft.store.interface import (
    AlreadyExistsError,
    Delete,
    NotFoundError,
    Operation,
    Put,
    Store,
    Stored,
    StoreError,
)

log = logging.getLogger(__name__)

LEASE_S: Final = 15.0
_DRAIN_S: Final = 10.0

Acknowledged = Callable[[Key, int], Awaitable[None]]


@dataclass(slots=True)
class _Claim:
    """Which node runs an instance. ``until`` (monotonic seconds) is None while its session stands."""

    node: str
    instance: Instance | None
    until: float | None


class Registry:
    """Who runs where. One for a control plane; ``restore`` first, then let ``keep`` run as a task.

    Args:
        acknowledged: returns when no proxy has an instance (its entry's key) in its endpoints any more, as
            of a revision of the store.
        now: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        acknowledged: Acknowledged,
        *,
        lease_s: float = LEASE_S,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.lease_s = lease_s
        self._store = store
        self._issuer = issuer
        self._acknowledged = acknowledged
        self._now = now
        self._clock = clock
        self._claims: dict[str, _Claim] = {}
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()

    async def restore(self) -> None:
        """Take over what an earlier control plane knew; each instance gets a whole lease.

        Before the ports are open; call ``opened`` then.
        """
        until = self._now() + self.lease_s
        for stored in await self._store.list(ENTRY_KIND):
            node = node_of(stored)
            if node:
                self._claims.setdefault(_id(stored.key), _Claim(node, None, until))
        self._wake.set()

    def opened(self) -> None:
        """Nodes can come back from now on: what nobody has claimed yet has its lease from here."""
        until = self._now() + self.lease_s
        for claim in self._claims.values():
            if claim.until is not None:
                claim.until = until
        self._wake.set()

    def instances(self, node: str) -> tuple[str, ...]:
        """The ids that a node holds."""
        return tuple(sorted(known for known, claim in self._claims.items() if claim.node == node))

    def get(self, namespace: str, name: str) -> Instance | None:
        """An instance that has registered since this control plane started; others are in the store."""
        claim = self._claims.get(f"{namespace}/{name}")
        return claim.instance if claim else None

    def card(self, node: str, request: SignRequest) -> str:
        """What the certificate of an instance says of it, for its node; empty for others'.

        Of what was registered, whatever the request says: a certificate and the endpoints of its bearer
        have one word.
        """
        claim = self._claims.get(f"{request.namespace}/{request.workload}")
        if claim is None or claim.node != node or claim.instance is None:
            return ""
        instance = claim.instance
        return card_of(instance) if instance.service_account == request.service_account else ""

    async def register(self, node: Node, instance: Instance) -> Instance:
        """Make an instance known, or renew its claim; what its group's template added is in the result.

        The same registration again writes nothing.

        Raises:
            Refused: 403 for an identity outside the node's scope, 404 without its group, 409 when another
                node, or somebody by hand, has the name.
        """
        async with self._lock:
            instance, put = await self._admit(node, instance)
            await self._transact(put, node.name)
            self._claims[instance.id] = _Claim(node.name, instance, None)
            return instance

    async def _admit(self, node: Node, instance: Instance) -> tuple[Instance, list[Operation]]:
        """The instance with what its group adds, and what has to be written; nothing if it is known."""
        claim = self._claims.get(instance.id)
        if claim is not None and claim.node != node.name:
            raise _taken(instance.id, claim.node, "stop the other one first, or use another --name")
        if instance.group:
            instance = await self._filled(instance)
        self._issuer.entitled(node, instance.namespace, instance.service_account)
        key = Key(ENTRY_KIND, instance.namespace, instance.name)
        stored = await self._store.get(key)
        if stored is not None and node_of(stored) != node.name:
            raise _taken(instance.id, node_of(stored), "delete that WorkloadEntry, or use another --name")
        await self._settle(instance.namespace)
        await self._offer(instance)
        return instance, self._entry(key, stored, node.name, instance)

    async def replay(
        self, node: Node, instances: Iterable[Instance], gone: Iterable[str] = ()
    ) -> dict[str, Instance | Refused]:
        """A node's state, at the start of its session.

        What has ``gone`` is removed. What is not named has a lease: an agent that was started anew may not
        have found all of its workloads yet, and they serve on meanwhile. All come back in one step: a sidecar
        must not be told that its neighbours are missing because it was registered before them.
        """
        outcome: dict[str, Instance | Refused] = {}
        for instance_id in gone:
            await self.deregister(node.name, instance_id)
        async with self._lock:
            puts: list[Operation] = []
            for instance in instances:
                try:
                    outcome[instance.id], put = await self._admit(node, instance)
                    puts += put
                except Refused as refusal:
                    outcome[instance.id] = refusal
            await self._transact(puts, node.name)
            for instance_id, result in outcome.items():
                if not isinstance(result, Refused):
                    self._claims[instance_id] = _Claim(node.name, result, None)
        until = self._now() + self.lease_s
        for instance_id in set(self.instances(node.name)) - outcome.keys():
            self._claims[instance_id].until = until
        self._wake.set()
        return outcome

    async def update(self, node: str, instance_id: str, *, ready: bool, message: str = "") -> None:
        """Whether an instance may get traffic. Only endpoints change by it.

        Raises:
            Refused: 404 when this node has registered no such instance.
        """
        async with self._lock:
            instance = self._own(node, instance_id)
            await self._rewrite(node, replace(instance, ready=ready, message=message))

    async def drain(self, node: str, instance_id: str) -> bool:
        """Take an instance out of all endpoints; True when every proxy has acknowledged that.

        Raises:
            Refused: 404 when this node has registered no such instance.
        """
        async with self._lock:
            instance = self._own(node, instance_id)
            revision = await self._rewrite(node, replace(instance, draining=True))
        key = Key(ENTRY_KIND, instance.namespace, instance.name)
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._acknowledged(key, revision)
        except TimeoutError:
            log.warning("%s drains although not every proxy has acknowledged it", instance_id)
            return False
        return True

    async def deregister(self, node: str, instance_id: str) -> None:
        """Forget an instance. One of another node, or none, is left alone."""
        async with self._lock:
            claim = self._claims.get(instance_id)
            if claim is not None and claim.node == node:
                await self._remove(instance_id)

    def detach(self, node: str, heard: float) -> None:
        """The node's session is lost: its claims last for one lease from when it was ``heard`` last."""
        for claim in self._claims.values():
            if claim.node == node:
                claim.until = heard + self.lease_s
        self._wake.set()

    async def expel(self, node: str) -> None:
        """Remove what a node holds, now: it was turned out."""
        async with self._lock:
            if held := self.instances(node):
                await self._remove(*held)

    async def keep(self) -> None:
        """Let leases lapse, for ever. Run it as a task."""
        while True:
            self._wake.clear()
            lapses = [claim.until for claim in self._claims.values() if claim.until is not None]
            try:
                async with asyncio.timeout(max(0.0, min(lapses) - self._now()) if lapses else None):
                    await self._wake.wait()
            except TimeoutError:
                await self.lapse()

    async def lapse(self) -> None:
        """Remove what has outlived its lease."""
        async with self._lock:
            now = self._now()
            over = [
                known
                for known, claim in self._claims.items()
                if claim.until is not None and claim.until <= now
            ]
            if not over:
                return
            for instance_id in over:
                node = self._claims[instance_id].node
                log.warning("%s lapsed: node %s was not heard of for %g s", instance_id, node, self.lease_s)
            try:
                await self._remove(*over)
            except StoreError as error:
                log.error("%s stay for another lease: %s", ", ".join(over), error)
                for instance_id in over:
                    self._claims[instance_id].until = now + self.lease_s

    def _own(self, node: str, instance_id: str) -> Instance:
        claim = self._claims.get(instance_id)
        if claim is None or claim.node != node or claim.instance is None:
            raise Refused(
                f"node {node!r} has not registered {instance_id}", status=404, hint="register first"
            )
        return claim.instance

    async def _filled(self, instance: Instance) -> Instance:
        group = await self._store.get(Key(GROUP_KIND, instance.namespace, instance.group))
        if group is None:
            raise Refused(
                f"there is no WorkloadGroup {instance.namespace}/{instance.group}",
                status=404,
                hint="apply it first, or run without --group",
            )
        return from_group(instance, json.loads(group.body))

    async def _settle(self, namespace: str) -> None:
        """Make the namespace that an instance lives in, unless there is one."""
        key = Key(NAMESPACE_KIND, "", namespace)
        if await self._store.get(key) is not None:
            return
        times = Times.new(self._clock())
        put = Put(key=key, uid=times.uid, body=namespace_body(namespace, times), expect=0)
        try:
            await self._store.create(put, actor="registration")
        except AlreadyExistsError:
            log.debug("somebody else made %s at the same time", key)

    async def _offer(self, instance: Instance) -> None:
        """Make the Service that the instance is to be known by, unless there is one."""
        if not instance.service or not instance.ports:
            return
        key = Key(SERVICE_KIND, instance.namespace, instance.service)
        if await self._store.get(key) is not None:
            return
        times = Times.new(self._clock())
        put = Put(key=key, uid=times.uid, body=service_body(instance, times), expect=0)
        try:
            await self._store.create(put, actor="registration")
        except AlreadyExistsError:
            log.debug("somebody else made the Service %s at the same time", key)

    async def _rewrite(self, node: str, instance: Instance) -> int:
        key = Key(ENTRY_KIND, instance.namespace, instance.name)
        revision = await self._write(key, await self._store.get(key), node, instance)
        self._claims[instance.id].instance = instance
        return revision

    async def _write(self, key: Key, stored: Stored | None, node: str, instance: Instance) -> int:
        """The entry's revision after it; nothing is written when nothing changes."""
        revision = await self._transact(self._entry(key, stored, node, instance), node)
        return revision if revision is not None else stored.revision if stored else 0

    def _entry(self, key: Key, stored: Stored | None, node: str, instance: Instance) -> list[Operation]:
        old: dict[str, Any] | None = json.loads(stored.body) if stored else None
        times = Times.of(old) if old else Times.new(self._clock())
        body = entry_body(instance, node, times, old, self._clock())
        owner = owner_of(node)
        if stored is not None and old == body and stored.owner == owner:
            return []
        encoded = json.dumps(body, separators=(",", ":")).encode()
        return [Put(key=key, uid=times.uid, body=encoded, owner=owner, record=False)]

    async def _transact(self, operations: list[Operation], node: str) -> int | None:
        return await self._store.transact(operations, actor=owner_of(node)) if operations else None

    async def _remove(self, *instance_ids: str) -> None:
        """All at once, so that nobody sees a node half gone; what is not stored any more is no error."""
        held = [_key(instance_id) for instance_id in instance_ids]
        deletes: list[Operation] = [
            Delete(key=key, record=False) for key in held if await self._store.get(key) is not None
        ]
        try:
            await self._transact(deletes, self._claims[instance_ids[0]].node)
        except NotFoundError:
            return await self._remove(*instance_ids)  # somebody deleted one meanwhile
        for instance_id in instance_ids:
            del self._claims[instance_id]
        return None


def card_of(instance: Instance) -> str:
    """What an instance's certificate says of it beside its identity."""
    return str(Card.of(instance.name, instance.labels))


def _key(instance_id: str) -> Key:
    namespace, _, name = instance_id.partition("/")
    return Key(ENTRY_KIND, namespace, name)


def _id(key: Key) -> str:
    return f"{key.namespace}/{key.name}"


def _taken(instance_id: str, node: str, hint: str) -> Refused:
    holder = f"node {node!r} runs it" if node else "it was written by hand"
    return Refused(f"{instance_id} is taken: {holder}", status=409, hint=hint)
