"""``POST /weft/v1/apply``: many objects, one transaction, kubectl's three-way merge.

Request: ``{"objects": [wire…], "namespace": "default", "dryRun": false, "force": false, "strict": true,
"delete": false}``; ``?wait=converged&timeout=10s`` waits. Answer: ``{"revision", "results": [{"apiVersion",
"kind", "resource", "namespace", "name", "action": "created|configured|unchanged|deleted", "before",
"after"}], "warnings": [problem…], "convergence"}``. When anything is wrong nothing is done: 422 with a
``Status`` whose ``problems`` are ``{"index", "path", "code", "message", "hint", "severity"}`` (``index`` of
the object).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from weft.control.api.metadata import (
    LAST_APPLIED,
    Stamp,
    Wire,
    arrive,
    born,
    changed,
    decode,
    encode,
    in_history,
    key_of,
    present,
    same,
)
from weft.control.api.negotiate import decode_json, read_json
from weft.control.api.objects import Objects, own, row_of
from weft.control.api.patch import three_way
from weft.control.api.permission import Access, ask_for, forbidden
from weft.control.api.resources import Converged, reply, wait_seconds
from weft.control.api.status import ApiError, bad_request, resource_name
from weft.control.api.validation import Validation
from weft.control.api.writes import Options, Write
from weft.errors import Problem, Severity
from weft.model.catalog import KindRow, by_kind
from weft.model.resource import Key
from weft.store.interface import AlreadyExistsError, ConflictError, NotFoundError, Put, Stored

SKIPPED: Final = "WEFT0021"  # a kind that is not weft's
TWICE: Final = "WEFT0022"  # one object, two documents
FOREIGN: Final = "WEFT0023"  # an object of somebody else's
REFUSED: Final = "WEFT0024"  # whatever else the API says no to

_ATTEMPTS: Final = 8
_YIELD_EVERY: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object to apply. ``source`` is its place in a file, for what an owner applies."""

    wire: Wire
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A problem of the object at ``index`` (-1: of the whole)."""

    index: int
    problem: Problem

    def wire(self) -> dict[str, Any]:
        """As JSON."""
        problem = self.problem
        return {
            "index": self.index, "path": problem.path, "code": problem.code, "message": problem.message,
            "hint": problem.hint, "severity": problem.severity.value,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became, or would become, of one object."""

    row: KindRow
    namespace: str
    name: str
    action: str
    before: Wire | None
    after: Wire | None

    def wire(self, *, whole: bool) -> dict[str, Any]:
        """As JSON; ``whole`` with the states before and after."""
        body = {
            "apiVersion": self.row.api_version,
            "kind": self.row.kind, "resource": resource_name(self.row), "singular": self.row.singular,
            "group": self.row.group, "namespace": self.namespace, "name": self.name, "action": self.action,
        }  # fmt: skip
        return body | ({"before": self.before, "after": self.after} if whole else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The outcome of a whole application; with errors among ``found``, nothing was done."""

    revision: int
    outcomes: tuple[Outcome, ...] = ()
    found: tuple[Found, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether there are errors."""
        return any(entry.problem.severity is Severity.ERROR for entry in self.found)


@dataclass(slots=True)
class _Plan:
    writes: list[Write]
    outcomes: list[Outcome]
    found: list[Found]
    namespaces: list[str]


class Applier:
    """Applies sets of objects."""

    def __init__(self, objects: Objects, converged: Converged) -> None:
        self._objects = objects
        self._converged = converged

    async def apply(
        self, items: Sequence[Item], options: Options, *, namespace: str = "default", prune: bool = False,
        yielding: bool = False,
    ) -> Applied:  # fmt: skip
        """Apply all or nothing. ``prune`` deletes what the owner has and does not name any more.

        ``yielding`` leaves objects that belong to others alone, with a warning, instead of failing.
        """
        for attempt in range(_ATTEMPTS):
            plan = await self._plan(items, options, namespace, yielding=yielding)
            if prune:
                await self._prune(plan, options)
            result = Applied(
                revision=self._objects.store.revision,
                outcomes=tuple(plan.outcomes),
                found=tuple(plan.found),
            )
            if result.refused or not plan.writes:
                return result
            writes = [*(await self._objects.new_namespaces(plan.namespaces, options)), *plan.writes]
            try:
                warnings = await self._objects.commit(writes, options)
            except (ConflictError, NotFoundError, AlreadyExistsError) as error:
                if attempt + 1 == _ATTEMPTS:
                    raise ApiError(409, f"{error.message}: somebody else writes it all the time") from error
                continue
            places = {_called(item, namespace): index for index, item in enumerate(items)}
            more = [Found(index=places.get(problem.resource, -1), problem=problem) for problem in warnings]
            return Applied(
                revision=self._objects.store.revision,
                outcomes=result.outcomes,
                found=(*result.found, *more),
            )
        raise AssertionError("the last attempt returns or raises")

    async def _plan(
        self, items: Sequence[Item], options: Options, namespace: str, *, yielding: bool
    ) -> _Plan:
        plan = _Plan([], [], [], [])
        seen: dict[Key, int] = {}
        created = {
            str((item.wire.get("metadata") or {}).get("name"))
            for item in items
            if item.wire.get("kind") == "Namespace" and isinstance(item.wire.get("metadata"), Mapping)
        }
        for index, item in enumerate(items):
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # thousands of objects must not hold up the proxies' streams
            try:
                await self._plan_one(plan, seen, index, item, options, namespace, yielding=yielding)
            except ApiError as error:
                if error.code == 403:
                    raise
                plan.found += _problems_of(index, error)
        plan.namespaces = [name for name in plan.namespaces if name not in created]
        return plan

    async def _plan_one(
        self, plan: _Plan, seen: dict[Key, int], index: int, item: Item, options: Options, namespace: str, *,
        yielding: bool,
    ) -> None:  # fmt: skip
        row = by_kind(str(item.wire.get("apiVersion", "")), str(item.wire.get("kind", "")))
        if row is None:
            what = f"{item.wire.get('apiVersion')} {item.wire.get('kind')}"
            problem = Problem(
                SKIPPED, f"{what} is no kind of weft's: skipped", path="kind", severity=Severity.WARNING
            )
            plan.found.append(Found(index=index, problem=problem))
            return
        metadata = item.wire.get("metadata")
        said = metadata.get("namespace") if isinstance(metadata, dict) else None
        place = (said or namespace) if row.namespaced else ""
        wire = arrive(row, item.wire, place, None)
        name = wire["metadata"].get("name", "")
        key = key_of(row, place, name)
        if name and key in seen:
            problem = Problem(TWICE, f"{key} is given twice", hint="remove one of them", path="metadata.name")
            plan.found.append(Found(index=index, problem=problem))
            return
        seen[key] = index
        before = await self._objects.store.get(key)
        await _may_apply(row, key, options, known=before is not None)
        if before is None:
            checked = await self._objects.check(row, born(row, _noted(wire), Stamp.now()), options.validation)
            owner, uid, expect, old = options.owner, checked.wire["metadata"]["uid"], 0, None
            key = key_of(row, place, checked.wire["metadata"]["name"])
            if row.namespaced:
                plan.namespaces.append(place)
        else:
            old = decode(before)
            theirs = before.owner not in (None, options.owner) or (
                before.owner is None and not same(old, _merged(row, old, wire))
            )
            if yielding and theirs:
                owner_name = before.owner or "the API"
                plan.found.append(Found(index=index, problem=_foreign(key, owner_name)))
                return
            owner = own(row, before, options)
            checked = await self._objects.check(row, _merged(row, old, wire), options.validation, old)
            uid, expect = before.uid, before.revision
        plan.found += [Found(index=index, problem=problem) for problem in checked.problems]
        # The same object keeps its very bytes: then the store makes no revision and wakes nobody.
        body = before.body if before is not None and old == checked.wire else encode(checked.wire)
        put = Put(
            key=key, uid=uid, body=body, owner=owner, source=item.source, expect=expect,
            record=in_history(row, checked.wire),
        )  # fmt: skip
        plan.writes.append(Write(operation=put, resource=checked.resource, before=before))
        unchanged = old is not None and same(old, checked.wire)
        action = "created" if before is None else ("unchanged" if unchanged else "configured")
        plan.outcomes.append(
            Outcome(
                row=row, namespace=place, name=key.name, action=action,
                before=present(before, row) if before else None, after=checked.wire,
            )
        )  # fmt: skip

    async def _prune(self, plan: _Plan, options: Options) -> None:
        kept = {write.operation.key for write in plan.writes}
        for stored in await self._objects.store.list():
            row = row_of(stored)
            if stored.owner == options.owner and stored.key not in kept and row is not None:
                plan.writes.append(self._objects.removal(row, stored, options))
                plan.outcomes.append(_removed(row, stored))

    async def delete(self, items: Sequence[Item], options: Options, *, namespace: str = "default") -> Applied:
        """Delete what the objects name, a namespace with all that is in it; all or nothing.

        What is not there is no error.
        """
        for attempt in range(_ATTEMPTS):
            plan = _Plan([], [], [], [])
            for index, item in enumerate(items):
                try:
                    await self._plan_removal(plan, item, options, namespace)
                except ApiError as error:
                    if error.code == 403:
                        raise
                    plan.found += _problems_of(index, error)
            result = Applied(
                revision=self._objects.store.revision,
                outcomes=tuple(plan.outcomes),
                found=tuple(plan.found),
            )
            if result.refused:
                return result
            try:
                await self._objects.commit(plan.writes, options)
            except (ConflictError, NotFoundError) as error:
                if attempt + 1 == _ATTEMPTS:
                    raise ApiError(409, f"{error.message}: somebody else writes it all the time") from error
                continue
            return replace(result, revision=self._objects.store.revision)
        raise AssertionError("the last attempt returns or raises")

    async def _plan_removal(self, plan: _Plan, item: Item, options: Options, namespace: str) -> None:
        row = by_kind(str(item.wire.get("apiVersion", "")), str(item.wire.get("kind", "")))
        metadata = item.wire.get("metadata")
        if row is None or not isinstance(metadata, dict) or not metadata.get("name"):
            return
        place = (metadata.get("namespace") or namespace) if row.namespaced else ""
        if options.access is not None:
            await options.access.require(ask_for(row, "delete", place, str(metadata["name"])))
        stored = await self._objects.store.get(key_of(row, place, str(metadata["name"])))
        if stored is None:
            return
        planned = {write.operation.key for write in plan.writes}
        writes = await self._objects.removals(row, stored, options)
        plan.writes += [write for write in writes if write.operation.key not in planned]
        plan.outcomes.append(_removed(row, stored))

    async def handle(self, request: Request) -> Response:
        """The endpoint."""
        if request.method != "POST":
            raise ApiError(405, "send POST")
        access: Access = request.state.access
        body = read_json(await request.body(), request.headers.get("content-type", ""))
        if not isinstance(body, dict) or not isinstance(body.get("objects"), list):
            raise bad_request('the body is {"objects": [...]}')
        if not all(isinstance(wire, dict) for wire in body["objects"]):
            raise bad_request("every one of objects is an object")
        seconds = wait_seconds(request.query_params)
        options = Options(
            dry_run=body.get("dryRun") is True, force=body.get("force") is True,
            actor=access.subject.name, access=access,
            validation=Validation.STRICT if body.get("strict", True) else Validation.WARN,
        )  # fmt: skip
        namespace = str(body.get("namespace") or "default")
        items = [Item(wire=wire) for wire in body["objects"]]
        do = self.delete if body.get("delete") is True else self.apply
        applied = await do(items, options, namespace=namespace)
        problems = [entry.wire() for entry in applied.found]
        if applied.refused:
            error = ApiError(422, "nothing was applied", details={})
            return reply({**error.body(), "problems": problems}, 422)
        answer: dict[str, Any] = {
            "revision": applied.revision,
            "results": [outcome.wire(whole=body.get("whole") is True) for outcome in applied.outcomes],
            "warnings": problems,
        }
        if seconds is not None and not options.dry_run:
            answer["convergence"] = await self._converged(applied.revision, seconds)
        return reply(answer)


async def _may_apply(row: KindRow, key: Key, options: Options, *, known: bool) -> None:
    """Applying is creating, or reading and patching. Who may do neither does not learn what is there.

    Raises:
        ApiError: 403.
    """
    if (access := options.access) is None:
        return
    create = ask_for(row, "create", key.namespace, key.name)
    get, patch = (ask_for(row, verb, key.namespace, key.name) for verb in ("get", "patch"))
    for ask in (get, patch) if known else (create,):
        if not await access.may(ask):
            shown = patch if not (await access.may(create) or await access.may(patch)) else ask
            access.denied(access, shown)
            raise forbidden(access.subject, shown)


def _removed(row: KindRow, stored: Stored) -> Outcome:
    return Outcome(
        row=row, namespace=stored.key.namespace, name=stored.key.name, action="deleted",
        before=present(stored, row), after=None,
    )  # fmt: skip


def _noted(wire: Wire) -> Wire:
    """The object with kubectl's note of what was applied, so that both may be used in turn."""
    metadata = dict(wire["metadata"])
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LAST_APPLIED}
    plain = {**wire, "metadata": {**metadata, "annotations": annotations}}
    note = encode(plain).decode() + "\n"
    return {**plain, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: note}}}


def _merged(row: KindRow, old: Wire, wire: Wire) -> Wire:
    note = (old["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    last = decode_json(note.encode()) if isinstance(note, str) else {}
    merged = three_way(last, old, _noted(wire))
    return changed(row, old, merged)


def _foreign(key: Key, owner: str) -> Problem:
    return Problem(
        FOREIGN, f"{key} exists and belongs to {owner}: left alone", severity=Severity.WARNING,
        hint="delete it, and the file takes over", path="metadata.name",
    )  # fmt: skip


def _called(item: Item, namespace: str) -> str:
    """How problems name the object of an item: ``VirtualService default/x``."""
    metadata = item.wire.get("metadata") or {}
    return f"{item.wire.get('kind')} {metadata.get('namespace') or namespace}/{metadata.get('name')}"


def _problems_of(index: int, error: ApiError) -> list[Found]:
    causes = error.details.get("causes")
    if not causes:
        return [Found(index=index, problem=Problem(REFUSED, error.message))]
    return [
        Found(
            index=index,
            problem=Problem(str(cause.get("code", "")), cause["message"], path=cause["field"]),
        )
        for cause in causes
    ]
