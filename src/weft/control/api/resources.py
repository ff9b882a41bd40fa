"""``/api`` and ``/apis``: from an HTTP request to objects and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from weft.control.api import discovery, listing, table
from weft.control.api.metadata import Wire, present
from weft.control.api.negotiate import JSON, decode_json, discovery_form, form_of, read_json
from weft.control.api.objects import Objects
from weft.control.api.patch import json_patch, merge_patch, strategic_merge
from weft.control.api.permission import Access, ask_for
from weft.control.api.rules import Ask
from weft.control.api.selectors import Predicate, field_selector, label_selector, only_name
from weft.control.api.status import ApiError, bad_request, no_such_path, success
from weft.control.api.validation import Validation
from weft.control.api.watching import Watch, lines
from weft.control.api.writes import Options, Part, Written
from weft.model.catalog import RBAC, KindRow, by_plural
from weft.store.interface import Store
from weft.units import parse_duration

Converged = Callable[[int, float], Awaitable[Mapping[str, Any]]]
"""Waits until every proxy concerned runs a revision, or so many seconds; a report with ``converged``."""

FORCE_HEADER: Final = "weft-force"
CONVERGENCE_HEADER: Final = "weft-convergence"
_DEFAULT_WAIT_SECONDS: Final = 30.0
_MERGE: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_APPLY_HINT: Final = "server-side apply is not supported: apply without --server-side, or use weft apply"


def reply(body: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), code, headers, media_type=JSON)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path is about. ``name`` None is the collection; ``namespace`` None is all of them."""

    row: KindRow
    version: str
    namespace: str | None
    name: str | None
    part: Part


def _split(group: str, version: str, parts: Sequence[str]) -> Target | None:
    namespace: str | None = None
    # /namespaces/NS/PLURAL, but /namespaces/NAME/status is the namespace itself.
    if len(parts) >= 3 and parts[0] == "namespaces" and parts[2] not in {"status", "finalize"}:
        namespace, parts = parts[1], parts[2:]
    if not 1 <= len(parts) <= 3:
        return None
    row = by_plural(group, version, parts[0])
    name = parts[1] if len(parts) > 1 else None
    if row is None or (namespace is not None) > row.namespaced:
        return None
    if row.namespaced and namespace is None and name is not None:
        return None
    if len(parts) < 3:
        return Target(row, version, namespace, name, Part.WHOLE)
    if parts[2] != "status" or not row.status:
        return None
    return Target(row, version, namespace, name, Part.STATUS)


def options_of(request: Request) -> Options:
    """How a write is to be done, from its query and headers.

    Raises:
        ApiError: 400 for a value that is not known.
    """
    query = request.query_params
    dry_run = query.getlist("dryRun")
    if any(value != "All" for value in dry_run):
        raise bad_request(f"Invalid value: {dry_run!r}: dryRun supports only 'All'")
    validation = query.get("fieldValidation") or Validation.WARN
    if validation not in set(Validation):
        raise bad_request(f"Invalid value: {validation!r}: fieldValidation supports Ignore, Warn, Strict")
    force = request.headers.get(FORCE_HEADER, "") == "true"
    access: Access = request.state.access
    return Options(
        dry_run=bool(dry_run), validation=Validation(validation), force=force, actor=access.subject.name,
        access=access,
    )  # fmt: skip


def wait_seconds(parameters: Mapping[str, str]) -> float | None:
    """How long a write is to wait for convergence, None for not at all.

    Raises:
        ApiError: 400 for another form than ``wait=converged&timeout=10s``.
    """
    wanted = parameters.get("wait", "")
    if not wanted:
        return None
    if wanted != "converged":
        raise bad_request(f"invalid wait {wanted!r}: write wait=converged")
    try:
        return parse_duration(parameters.get("timeout") or f"{_DEFAULT_WAIT_SECONDS}s").total_seconds()
    except ValueError as error:
        raise bad_request(str(error)) from error


class Resources:
    """The handlers. ``stop`` ends the watches."""

    def __init__(
        self, objects: Objects, converged: Converged, stop: asyncio.Event, cells: table.Cells = table.NO_CELLS
    ) -> None:
        self._objects = objects
        self._cells = cells
        self._converged = converged
        self._stop = stop

    @property
    def _store(self) -> Store:
        return self._objects.store

    async def core(self, request: Request) -> Response:
        """``/api`` and below."""
        parts = _parts(request)
        if not parts:
            await _only_get(request)
            form = discovery_form(request.headers.get("accept", ""))
            return _discovered(discovery.api_versions(), discovery.aggregated([""], form or ""), form)
        if parts[0] != "v1":
            raise no_such_path()
        return await self._below(request, "", "v1", parts[1:])

    async def named(self, request: Request) -> Response:
        """``/apis`` and below."""
        parts = _parts(request)
        if len(parts) > 2:
            return await self._below(request, parts[0], parts[1], parts[2:])
        await _only_get(request)
        if not parts:
            form = discovery_form(request.headers.get("accept", ""))
            every = discovery.aggregated(list(discovery.groups()), form or "")
            return _discovered(discovery.api_groups(), every, form)
        if len(parts) == 1:
            return _found(discovery.api_group(parts[0]))
        return await self._below(request, parts[0], parts[1], [])

    async def _below(self, request: Request, group: str, version: str, parts: Sequence[str]) -> Response:
        if not parts:
            await _only_get(request)
            return _found(discovery.api_resources(group, version))
        if (group, version) == ("", "v1") and parts[-1] == "events":
            return await self._no_events(request, parts)
        target = _split(group, version, parts)
        if target is None:
            raise no_such_path()
        handler = {
            "GET": self._get,
            "POST": self._create,
            "PUT": self._replace,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }.get(request.method)
        if handler is None:
            raise _not_allowed()
        return await handler(request, target)

    async def _no_events(self, request: Request, parts: Sequence[str]) -> Response:
        watch = request.query_params.get("watch") in {"true", "1"}
        place = parts[1] if len(parts) == 3 else ""
        access: Access = request.state.access
        await access.require(Ask(verb="watch" if watch else "list", resource="events", namespace=place))
        if watch:
            return StreamingResponse(self._silence(), media_type=JSON)
        form = form_of(request.headers.get("accept", ""))
        metadata = {"resourceVersion": str(self._store.revision)}
        if form == "Table":
            return reply(table.empty(metadata))
        return reply({"apiVersion": "v1", "kind": "EventList", "metadata": metadata, "items": []})

    async def _silence(self) -> AsyncIterator[bytes]:
        await self._stop.wait()
        yield b""

    async def _get(self, request: Request, target: Target) -> Response:
        query = request.query_params
        form = form_of(request.headers.get("accept", ""))
        include = query.get("includeObject", "Metadata")
        render = table.renderer(target.row, form, include, self._cells)
        if target.name is not None:
            await _allow(request, target, "get")
            stored = await self._objects.read(target.row, target.namespace or "", target.name)
            return reply(render(present(stored, target.row, target.version), True))
        selects = _selection(query)
        if query.get("watch") in {"true", "1"}:
            ask = await _allow(request, target, "watch")
            access: Access = request.state.access
            watch = self._watch(query, target, selects, render)
            watch = replace(watch, allowed=partial(access.still_may, ask))
            return StreamingResponse(lines(self._store, watch, self._stop), media_type=JSON)
        await _allow(request, target, "list")
        wires, metadata = await listing.page(
            self._store, target.row, target.version, target.namespace, selects, query
        )
        listed = table.render_list(target.row, target.version, wires, metadata, form, include, self._cells)
        return reply(listed)

    def _watch(
        self, query: Mapping[str, str], target: Target, selects: Predicate, render: table.Render
    ) -> Watch:
        since = listing.number(query, "resourceVersion")
        initial = query.get("sendInitialEvents") == "true"
        bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        if initial and not bookmarks:
            raise bad_request("sendInitialEvents needs allowWatchBookmarks=true")
        if not initial:
            listing.check_revision({"resourceVersion": str(since or "")}, self._store.revision)
        seconds = listing.number(query, "timeoutSeconds")
        return Watch(
            row=target.row, version=target.version, namespace=target.namespace, selects=selects,
            since=None if initial or not since else since, render=render, bookmarks=bookmarks,
            mark_initial=initial, seconds=seconds,
        )  # fmt: skip

    async def _create(self, request: Request, target: Target) -> Response:
        if target.name is not None or (target.row.namespaced and target.namespace is None):
            raise _not_allowed()
        await _allow(request, target, "create")
        options = options_of(request)
        body = read_json(await request.body(), request.headers.get("content-type", ""))
        written = await self._objects.create(target.row, target.namespace or "", body, options)
        return await self._answer(request, target, written, 201)

    async def _replace(self, request: Request, target: Target) -> Response:
        if target.name is None:
            raise _not_allowed()
        await _allow(request, target, "update")
        options = options_of(request)
        body = read_json(await request.body(), request.headers.get("content-type", ""))
        written = await self._objects.replace(
            target.row, target.namespace or "", target.name, body, options, target.part
        )
        return await self._answer(request, target, written, 200)

    async def _patch(self, request: Request, target: Target) -> Response:
        if target.name is None:
            raise _not_allowed()
        await _allow(request, target, "patch")
        options = options_of(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await request.body()
        apply = _patcher(kind, body, target.row)
        written = await self._objects.patch(
            target.row, target.namespace or "", target.name, apply, options, target.part
        )
        return await self._answer(request, target, written, 200)

    async def _answer(self, request: Request, target: Target, written: Written, code: int) -> Response:
        seconds = wait_seconds(request.query_params)
        headers: dict[str, str] = {}
        if seconds is not None and not request.query_params.get("dryRun"):
            report = await self._converged(written.stored.revision, seconds)
            headers[CONVERGENCE_HEADER] = msgspec.json.encode(report).decode()
        form = form_of(request.headers.get("accept", ""))
        include = request.query_params.get("includeObject", "Metadata")
        render = table.renderer(target.row, form, include, self._cells)
        response = reply(render(present(written.stored, target.row, target.version), True), code, headers)
        for warning in written.warnings:
            response.headers.append("warning", warning_value(warning))
        return response

    async def _delete(self, request: Request, target: Target) -> Response:
        row = target.row
        raw = await request.body()
        body = read_json(raw, request.headers.get("content-type", "")) if raw else {}
        if not isinstance(body, dict):
            raise bad_request("the body is no DeleteOptions")
        verb = "delete" if target.name is not None else "deletecollection"
        await _allow(request, target, verb)
        options = options_of(request)
        if body.get("dryRun"):
            options = replace(options, dry_run=True)
        if target.part is Part.STATUS or (target.name is None and row.namespaced and not target.namespace):
            raise _not_allowed()
        if target.name is None:
            return await self._delete_all(request, target, options)
        wanted = body.get("preconditions") or {}
        stored = await self._objects.read(row, target.namespace or "", target.name)
        waiting = await self._objects.delete(
            row, target.namespace or "", target.name, options, uid=wanted.get("uid"),
            revision=int(wanted["resourceVersion"]) if wanted.get("resourceVersion") else None,
        )  # fmt: skip
        if waiting is not None:
            return reply(present(waiting, row, target.version))
        return reply(success(row, target.name, stored.uid))

    async def _delete_all(self, request: Request, target: Target, options: Options) -> Response:
        selects = _selection(request.query_params)
        row = target.row
        wires, metadata = await listing.page(
            self._store, row, target.version, target.namespace, selects, request.query_params
        )
        for wire in wires:
            await self._objects.delete(
                row, target.namespace or "", wire["metadata"]["name"], options, uid=wire["metadata"]["uid"]
            )
        return reply(listing.as_list(row, target.version, wires, metadata))


def warning_value(text: str) -> str:
    """A ``Warning`` header (RFC 7234, code 299), on one line and in ASCII."""
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    escaped = line.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _patcher(kind: str, body: bytes, row: KindRow) -> Callable[[Wire], Any]:
    if kind == _APPLY:
        raise ApiError(415, _APPLY_HINT)
    if kind not in {_MERGE, _JSON_PATCH, _STRATEGIC}:
        known = f"{_JSON_PATCH}, {_MERGE}, {_STRATEGIC}"
        raise ApiError(415, f"the body is {kind or 'of no type'}: accepted media types include: {known}")
    patch = decode_json(body)
    if kind == _JSON_PATCH:
        return lambda wire: json_patch(wire, patch)
    if not isinstance(patch, dict):
        raise bad_request("the patch is no object")
    if kind == _MERGE:
        return lambda wire: merge_patch(wire, patch)
    if row.group not in {"", "discovery.k8s.io", RBAC}:
        strategic_merge(f"{row.group}/{row.kind}", {}, {})  # refuses
    return lambda wire: strategic_merge(row.kind, wire, patch)


def _selection(query: Mapping[str, str]) -> Predicate:
    labels = label_selector(query.get("labelSelector", ""))
    fields = field_selector(query.get("fieldSelector", ""))
    return lambda wire: labels(wire) and fields(wire)


def _parts(request: Request) -> list[str]:
    return [part for part in request.path_params.get("rest", "").split("/") if part]


async def _only_get(request: Request) -> None:
    """What is no resource is read, by whom a rule about its path allows it."""
    if request.method not in {"GET", "HEAD"}:
        raise _not_allowed()
    access: Access = request.state.access
    await access.require(Ask(verb="get", path=request.url.path))


def _not_allowed() -> ApiError:
    return ApiError(405, "the server does not allow this method on the requested resource")


async def _allow(request: Request, target: Target, verb: str) -> Ask:
    """Ask the roles. A collection that is narrowed to one name counts as that object, as in Kubernetes."""
    name = target.name
    if name is None and verb in {"list", "watch", "deletecollection"}:
        name = only_name(request.query_params.get("fieldSelector", ""))
    access: Access = request.state.access
    ask = ask_for(target.row, verb, target.namespace, name or "", target.part)
    await access.require(ask)
    if target.row.id == "/Secret" and verb in {"get", "list", "watch"}:
        access.seen(access, ask)
    return ask


def _found(body: Mapping[str, Any] | None) -> Response:
    if body is None:
        raise no_such_path()
    return reply(body)


def _discovered(plain: Any, whole: Any, form: str | None) -> Response:
    if form is None:
        return reply(plain)
    response = reply(whole)
    response.headers["content-type"] = (
        f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"
    )
    return response
