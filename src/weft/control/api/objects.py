"""The one way a change takes into the store: validated, admitted, owned, numbered, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from weft.control.api import builtin
from weft.control.api.escalation import check_built_in, check_escalation
from weft.control.api.metadata import (
    Stamp,
    Wire,
    arrive,
    born,
    changed,
    decode,
    encode,
    in_history,
    key_of,
    with_status,
)
from weft.control.api.permission import ask_for
from weft.control.api.roles import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Roles
from weft.control.api.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    modified,
    not_found,
)
from weft.control.api.validation import Checked, Validation, check
from weft.control.api.writes import Admit, Committed, Options, Part, Proposal, Write, Written, admit_all
from weft.errors import Problem, Severity
from weft.model.catalog import GATEWAY_API, KindRow, by_id
from weft.names import GATEWAY_CONTROLLER, ROOT_NAMESPACE
from weft.store.interface import (
    AlreadyExistsError,
    ConflictError,
    Delete,
    NotFoundError,
    Put,
    Store,
    Stored,
)

FIRST_NAMESPACES: Final = ("default", ROOT_NAMESPACE)
FIRST_CLASSES: Final = [
    {"metadata": {"name": name}, "spec": {"controllerName": GATEWAY_CONTROLLER}} for name in ("weft", "istio")
]
_ATTEMPTS: Final = 8


class Objects:
    """Reads and writes of resources over a store."""

    def __init__(
        self,
        store: Store,
        admit: Admit = admit_all,
        committed: Committed = lambda writes, options, revision: None,
        undone: Callable[[Options], None] = lambda options: None,
        judged: Callable[[bool], None] = lambda well: None,
    ) -> None:
        self.store = store
        self.roles = Roles(store)
        self._admit = admit
        self._committed = committed
        self._undone = undone
        self._judged = judged

    async def check(
        self, row: KindRow, wire: Wire, validation: Validation, before: Wire | None = None
    ) -> Checked:
        """As ``validation.check``; how it ends is counted.

        Raises:
            ApiError: 422 with all that is wrong.
        """
        try:
            checked = await check(row, wire, validation, before)
        except ApiError:
            self._judged(False)
            raise
        self._judged(True)
        return checked

    async def start(self) -> None:
        """Make the namespaces, GatewayClasses and roles that are always there."""
        writes = await self.namespaces(FIRST_NAMESPACES)
        writes += await self._missing(row_of_kind(f"{GATEWAY_API}/GatewayClass"), FIRST_CLASSES)
        for kind, bodies in ((CLUSTER_ROLE, builtin.roles()), (CLUSTER_ROLE_BINDING, builtin.bindings())):
            writes += await self._missing(row_of_kind(kind), bodies)
            writes += await self._renewed(row_of_kind(kind), bodies)
        await self._store_all(writes, Options(actor="weft"))

    async def read(self, row: KindRow, namespace: str, name: str) -> Stored:
        """One object.

        Raises:
            ApiError: 404.
        """
        stored = await self.store.get(key_of(row, namespace, name))
        if stored is None:
            raise not_found(row, name)
        return stored

    async def create(self, row: KindRow, namespace: str, body: Any, options: Options) -> Written:
        """Store a new object; a namespace that is missing comes into being with it.

        Raises:
            ApiError: 400, 409 AlreadyExists, 422.
        """
        wire = arrive(row, body, namespace, None)
        generated = not wire["metadata"].get("name")
        for attempt in range(_ATTEMPTS):
            wire_born = born(row, wire, Stamp.now())
            checked = await self.check(row, wire_born, options.validation)
            name = wire_born["metadata"].get("name", "")
            write = Write(
                operation=Put(
                    key=key_of(row, namespace, name), uid=checked.wire["metadata"]["uid"],
                    body=encode(checked.wire), owner=options.owner, expect=0,
                    record=in_history(row, checked.wire),
                ),
                resource=checked.resource, before=None,
            )  # fmt: skip
            writes = [*(await self.new_namespaces([namespace] if row.namespaced else [], options)), write]
            try:
                warnings = await self.commit(writes, options)
            except AlreadyExistsError as error:
                again = error.key.kind == "/Namespace" and row.kind != "Namespace"
                if (again or generated) and attempt + 1 < _ATTEMPTS:
                    continue
                raise already_exists(row, name) from error
            return await self._written(write, options, (*checked.warnings, *map(str, warnings)))
        raise AssertionError("the last attempt returns or raises")

    async def replace(
        self, row: KindRow, namespace: str, name: str, body: Any, options: Options, part: Part = Part.WHOLE
    ) -> Written:
        """Replace an object or its status.

        Raises:
            ApiError: 400, 404, 409 when it changed or has an owner, 422.
        """
        wanted = _wanted_revision(body)

        def successor(_: Wire) -> Any:
            return body

        return await self._change(row, namespace, name, successor, wanted, options, part)

    async def patch(
        self, row: KindRow, namespace: str, name: str, apply: Callable[[Wire], Any], options: Options,
        part: Part = Part.WHOLE,
    ) -> Written:  # fmt: skip
        """Change an object by a function of its present state (with ``resourceVersion``).

        Raises:
            ApiError: as ``replace``.
        """
        return await self._change(row, namespace, name, apply, None, options, part)

    async def _change(
        self, row: KindRow, namespace: str, name: str, apply: Callable[[Wire], Any], wanted: int | None,
        options: Options, part: Part,
    ) -> Written:  # fmt: skip
        if part is Part.STATUS and not row.status:
            raise ApiError(404, "the server could not find the requested resource")
        for attempt in range(_ATTEMPTS):
            before = await self.read(row, namespace, name)
            if wanted is not None and wanted != before.revision:
                raise modified(row, name)
            old = decode(before)
            shown = {**old, "metadata": {**old["metadata"], "resourceVersion": str(before.revision)}}
            body = apply(shown)
            # A patch may itself demand a revision, by setting resourceVersion.
            if (said := _wanted_revision(body)) is not None and said != before.revision:
                raise modified(row, name)
            new = arrive(row, body, namespace, name)
            if new["metadata"].get("uid", before.uid) != before.uid:
                raise conflict(row, name, f"its uid is {before.uid}, the one sent is another object's")
            write, warnings = await self._successor(row, before, old, new, options, part)
            try:
                more = await self.commit([write], options)
            except (ConflictError, NotFoundError) as error:
                if attempt + 1 == _ATTEMPTS or wanted is not None:
                    raise modified(row, name) from error
                continue
            return await self._written(write, options, (*warnings, *map(str, more)))
        raise AssertionError("the last attempt returns or raises")

    async def _successor(
        self, row: KindRow, before: Stored, old: Wire, new: Wire, options: Options, part: Part
    ) -> tuple[Write, tuple[str, ...]]:
        if part is Part.STATUS:
            checked = await self.check(row, with_status(old, new), options.validation)
            owner, record = before.owner, False
        else:
            checked = await self.check(row, changed(row, old, new), options.validation, old)
            owner, record = own(row, before, options), in_history(row, checked.wire)
        metadata = checked.wire["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            delete = Delete(key=before.key, expect=before.revision, record=record)
            return Write(operation=delete, resource=None, before=before), checked.warnings
        # The same object keeps its very bytes: then the store makes no revision and wakes nobody.
        body_bytes = before.body if checked.wire == old else encode(checked.wire)
        put = Put(
            key=before.key, uid=before.uid, body=body_bytes, owner=owner, source=before.source,
            expect=before.revision, record=record,
        )  # fmt: skip
        return Write(operation=put, resource=checked.resource, before=before), checked.warnings

    async def delete(
        self, row: KindRow, namespace: str, name: str, options: Options, *,
        uid: str | None = None, revision: int | None = None,
    ) -> Stored | None:  # fmt: skip
        """Delete an object; with a namespace, everything in it. None when it is gone, else what waits.

        An object with finalizers only gets its ``deletionTimestamp``; removing the last one deletes it.

        Raises:
            ApiError: 403 for a namespace that must stay, 404, 409.
        """
        for attempt in range(_ATTEMPTS):
            before = await self.read(row, namespace, name)
            if uid is not None and uid != before.uid:
                raise conflict(row, name, f"the precondition wants uid {uid}, it is {before.uid}")
            if revision is not None and revision != before.revision:
                raise modified(row, name)
            writes = await self.removals(row, before, options)
            try:
                await self.commit(writes, options)
            except (ConflictError, NotFoundError) as error:
                if attempt + 1 == _ATTEMPTS:
                    raise modified(row, name) from error
                continue
            return await self.store.get(before.key) if isinstance(writes[-1].operation, Put) else None
        raise AssertionError("the last attempt returns or raises")

    async def removals(self, row: KindRow, before: Stored, options: Options) -> list[Write]:
        """The writes that delete an object, the object's own last: a namespace takes along what is in it.

        Raises:
            ApiError: 403 for a namespace that must stay, 409 for what belongs to somebody else.
        """
        writes: list[Write] = []
        if before.key.kind == "/Namespace":
            name = before.key.name
            if name in FIRST_NAMESPACES:
                raise ApiError(403, f'namespaces "{name}" is forbidden: this namespace may not be deleted')
            contents = [(row_of(inside), inside) for inside in await self.store.list(namespace=name)]
            writes += [self.removal(known, inside, options) for known, inside in contents if known]
        return [*writes, self.removal(row, before, options)]

    def removal(self, row: KindRow, before: Stored, options: Options) -> Write:
        """The write that deletes an object, or that marks it while it has finalizers.

        Raises:
            ApiError: 409 when somebody else owns it.
        """
        own(row, before, options)
        wire = decode(before)
        record = in_history(row, wire)
        if not wire["metadata"].get("finalizers"):
            delete = Delete(key=before.key, expect=before.revision, record=record)
            return Write(operation=delete, resource=None, before=before)
        metadata = {"deletionTimestamp": Stamp.now().time, **wire["metadata"]}
        put = Put(
            key=before.key, uid=before.uid, body=encode({**wire, "metadata": metadata}), owner=before.owner,
            source=before.source, expect=before.revision, record=False,
        )  # fmt: skip
        return Write(operation=put, resource=None, before=before)

    async def new_namespaces(self, names: Sequence[str], options: Options) -> list[Write]:
        """As ``namespaces``, for somebody who may make them.

        Raises:
            ApiError: 404 for a namespace that is missing, as in Kubernetes.
        """
        writes = await self.namespaces(names)
        row = row_of_kind("/Namespace")
        access = options.access
        if writes and access is not None and not await access.may(ask_for(row, "create", None)):
            raise not_found(row, writes[0].operation.key.name)
        return writes

    async def namespaces(self, names: Sequence[str]) -> list[Write]:
        """The writes that make those namespaces which are missing."""
        bodies = [{"metadata": {"name": name}} for name in dict.fromkeys(names)]
        return await self._missing(row_of_kind("/Namespace"), bodies)

    async def _missing(self, row: KindRow, bodies: Sequence[Wire]) -> list[Write]:
        writes: list[Write] = []
        for body in bodies:
            name = body["metadata"]["name"]
            key = key_of(row, "", name)
            if await self.store.get(key) is None:
                wire = arrive(row, body, "", name)
                checked = await self.check(row, born(row, wire, Stamp.now()), Validation.STRICT)
                put = Put(key=key, uid=checked.wire["metadata"]["uid"], body=encode(checked.wire), expect=0)
                writes.append(Write(operation=put, resource=checked.resource, before=None))
        return writes

    async def _renewed(self, row: KindRow, bodies: Sequence[Wire]) -> list[Write]:
        """The writes that bring built-in objects of an earlier version up to date."""
        writes: list[Write] = []
        for body in bodies:
            before = await self.store.get(key_of(row, "", body["metadata"]["name"]))
            if before is None:
                continue
            old = decode(before)
            checked = await check(row, changed(row, old, arrive(row, body, "", None)), Validation.STRICT, old)
            if checked.wire != old:
                put = Put(key=before.key, uid=before.uid, body=encode(checked.wire), expect=before.revision)
                writes.append(Write(operation=put, resource=checked.resource, before=before))
        return writes

    async def commit(self, writes: Sequence[Write], options: Options) -> tuple[Problem, ...]:
        """Admit and store; what admission warns of.

        Raises:
            ApiError: 403 for roles that the writer may not give, 422 when admission refuses.
            StoreError: when the state is no longer the one that the writes were made for.
            WeftError: when it could not be recorded who did it; then nothing was done.
        """
        if not writes:
            return ()
        check_built_in(writes)
        if options.access is not None:
            await check_escalation(writes, options.access)
        return await self._store_all(writes, options)

    async def _store_all(self, writes: Sequence[Write], options: Options) -> tuple[Problem, ...]:
        if not writes:
            return ()
        problems = await self._admit(
            [
                Proposal(key=write.operation.key, resource=write.resource, before=write.before)
                for write in writes
            ]
        )
        errors = [problem for problem in problems if problem.severity is Severity.ERROR]
        if errors:
            key = writes[-1].operation.key
            raise invalid(row_of_kind(key.kind), key.name, errors)
        if not options.dry_run:
            await self._transact(writes, options)
        return tuple(problems)

    async def _transact(self, writes: Sequence[Write], options: Options) -> None:
        told = False

        def witness(revision: int) -> None:
            nonlocal told
            self._committed(writes, options, revision)
            told = True

        operations = [write.operation for write in writes]
        try:
            await self.store.transact(operations, actor=options.actor, witness=witness)
        except Exception:
            if told:
                self._undone(options)
            raise

    async def _written(self, write: Write, options: Options, warnings: tuple[str, ...]) -> Written:
        operation = write.operation
        if not options.dry_run:
            stored = await self.store.get(operation.key)
            if stored is not None:
                return Written(stored=stored, warnings=warnings)
        revision = write.before.revision if write.before else 0
        if isinstance(operation, Put):
            would = Stored(
                key=operation.key, uid=operation.uid, revision=revision, body=operation.body,
                owner=operation.owner, source=operation.source,
            )  # fmt: skip
        elif write.before is not None:
            would = write.before
        else:
            raise AssertionError("a deletion has a state before")
        return Written(stored=would, warnings=warnings)


def row_of_kind(kind: str) -> KindRow:
    """The row of a catalog id.

    Raises:
        LookupError: when the catalog has no such kind.
    """
    row = by_id(kind)
    if row is None:
        raise LookupError(f"the catalog has no kind {kind}")
    return row


def row_of(stored: Stored) -> KindRow | None:
    """The row of a stored object; None for a kind that this version does not know."""
    return by_id(stored.key.kind)


def own(row: KindRow, before: Stored, options: Options) -> str | None:
    """Who owns the object after a write.

    Raises:
        ApiError: 409 when it belongs to somebody else and the write does not force.
    """
    if before.owner == options.owner:
        return before.owner
    if before.owner is None or options.force:
        return options.owner
    place = f" ({before.source})" if before.source else ""
    raise conflict(
        row, before.key.name,
        f"it belongs to {before.owner}{place}: change it there, or force to detach it from there",
    )  # fmt: skip


def _wanted_revision(body: Any) -> int | None:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    said = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if said in (None, "", "0"):
        return None
    if not isinstance(said, str) or not said.isdigit():
        raise bad_request(f"metadata.resourceVersion: invalid value {said!r}")
    return int(said)
