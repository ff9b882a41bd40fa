"""The dashboard's readers of one mesh, through its API, with the rights of whoever started it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from weft.client import ApiClient, RefusedError
from weft.client.api import TABLE
from weft.dashboard.readers import Kind, ReadError, Readers, Wire
from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.analysis.analyze import Survey
    from weft.analysis.describe.picture import Picture
    from weft.analysis.explain.live import Running

_T = TypeVar("_T")

_DUMP: Final = "/config_dump?include_eds"
_RBAC: Final = "rbac.authorization.k8s.io"
_ENTRIES: Final = Kind("networking.istio.io", "v1", "WorkloadEntry", "workloadentries", True)
_KEPT_S: Final = 60.0
_BLIND_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """All of a mesh at a revision. ``until`` is a time of the monotonic clock."""

    revision: int | None
    until: float
    objects: list[Wire]
    survey: Survey
    picture: Picture


class MeshReaders:
    """What is worked out of the whole mesh (objects, descriptions, findings) is kept until a change, so that
    open pages neither load the control plane nor fill the audit log with readings of Secrets.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._seen: _Seen | None = None
        self._looking = asyncio.Lock()

    def readers(self) -> Readers:
        """For the dashboard."""
        return Readers(
            get=self._get,
            kinds=self._kinds,
            proxy_table=self._proxy_table,
            explain=self._explain,
            describe=self._describe,
            findings=self._findings,
            objects=self._objects,
            trace=self._trace,
            flags=_flags,
        )

    async def _get(self, path: str, query: Mapping[str, str] | None = None, *, table: bool = False) -> Any:
        headers = {"accept": TABLE} if table else None
        return await _answered(self._client.raw("GET", path, query=query, headers=headers))

    async def _kinds(self) -> tuple[Kind, ...]:
        found = await _answered(self._client.resources())
        return tuple(Kind(one.group, one.version, one.kind, one.plural, one.namespaced) for one in found)

    async def _ask_proxy(self, name: str, path: str) -> Any:
        asked = {"method": "GET", "path": path}
        place = f"/weft/v1/proxies/{quote(name, safe='/')}/admin"
        reply = await _answered(self._client.raw("POST", place, asked))
        if reply["status"] != 200:
            raise ReadError(502, f"the Envoy of {name} answered {reply['status']}")
        text = str(reply["body"])
        if not text.startswith(("{", "[")):
            return text
        try:
            return json.loads(text)
        except ValueError as error:
            raise ReadError(502, f"the Envoy of {name} answered what cannot be read") from error

    async def _proxy_table(self, name: str, kind: str) -> Wire:
        from weft.analysis import dump_tables

        dump = await self._ask_proxy(name, _DUMP)
        if kind == "endpoint":
            live = await self._ask_proxy(name, "/clusters?format=json")
            table = await asyncio.to_thread(dump_tables.endpoints, dump, dump_tables.Filter(), live)
        else:
            table = await asyncio.to_thread(dump_tables.TABLES[kind], dump, dump_tables.Filter())
        return {"columns": list(table.columns), "rows": [list(row) for row in table.rows]}

    async def _explain(self, question: Mapping[str, Any]) -> Wire:
        from weft.analysis.explain.live import OUTSIDE, bearer_of, identity_of
        from weft.analysis.explain.mesh import unanswered
        from weft.analysis.explain.request import read_request

        try:
            read = read_request(question)
        except ValueError as error:
            return unanswered(question, error)
        begun = await self._running(await self._dump(read.sender.proxies), read.sender.name)
        shown = (
            await self._ask_proxy(f"{begun.name.namespace}/{begun.name.name}", "/certs") if begun.name else {}
        )
        journey = await asyncio.to_thread(begun.begin, read, question, identity_of(shown))
        entries = await self._list(_ENTRIES) if journey.arrivals else []
        known: dict[str, Running] = {}
        for arrival in journey.arrivals:
            name = bearer_of(arrival, entries)
            if name is None:
                journey.unjudged(arrival, OUTSIDE)
                continue
            try:
                if name not in known:
                    known[name] = await self._running(await self._ask_proxy(name, _DUMP), name)
            except ReadError as error:
                journey.unjudged(arrival, f"{name} has no proxy that can be asked: {error.message}")
            else:
                await asyncio.to_thread(known[name].arrive, journey, arrival, name)
        return journey.json()

    async def _running(self, dump: Any, name: str) -> Running:
        from weft.analysis.explain.live import Running

        try:
            return await asyncio.to_thread(Running, dump)
        except ValueError as error:
            raise ReadError(502, f"what {name} runs cannot be read: {error}") from error

    async def _dump(self, names: Iterable[str]) -> Mapping[str, Any]:
        """The configuration of the first of these proxies that there is."""
        refusal: ReadError | None = None
        for name in names:
            try:
                dump = await self._ask_proxy(name, _DUMP)
            except ReadError as error:
                if error.status != 404:
                    raise
                refusal = refusal or error
            else:
                return dump if isinstance(dump, dict) else {}
        assert refusal is not None
        raise refusal

    async def _describe(self, kind: str, namespace: str, name: str) -> Wire:
        from weft.analysis.describe.picture import Asked
        from weft.analysis.describe.service import service
        from weft.analysis.describe.workload import workload
        from weft.analysis.objects import Object

        picture = (await self._look()).picture

        def report() -> Wire:
            found = picture.find(Asked(kind, name, namespace))
            return service(picture, found) if isinstance(found, Object) else workload(picture, found)

        try:
            return await asyncio.to_thread(report)
        except WeftError as error:
            raise ReadError(404, error.message, error.hint) from error

    async def _findings(self) -> list[Wire]:
        from weft.analysis.analyze import worst
        from weft.errors import Severity

        found = (one for one, _ in (await self._look()).survey.found)
        return [dict(one.as_json()) for one in worst(found, Severity.WARNING)]

    async def _trace(self, name: str) -> Wire:
        from weft.telemetry.waterfall import waterfall

        found = await self._get("/weft/v1/telemetry/trace", {"id": name})
        rows = [{**row.to_dict(), "words": _flags(row.flags)} for row in waterfall(found["spans"])]
        return {"trace": found["trace"], "rows": rows}

    async def _objects(self) -> list[Wire]:
        return (await self._look()).objects

    async def _look(self) -> _Seen:
        """The mesh as it is now; looked at again when something was changed, or after a minute."""
        async with self._looking:
            revision = await self._revision()
            old = self._seen
            if old is None or time.monotonic() > old.until or revision is None or revision != old.revision:
                objects, proxies, vips = await self._every_object(), await self._proxies(), await self._vips()
                survey, picture = await asyncio.to_thread(partial(_paint, objects, proxies, vips))
                kept = _KEPT_S if revision is not None else _BLIND_S
                old = self._seen = _Seen(revision, time.monotonic() + kept, objects, survey, picture)
            return old

    async def _revision(self) -> int | None:
        """The newest revision; None for whoever may not know it."""
        try:
            return int((await self._get("/weft/v1/convergence/0"))["latest"])
        except ReadError as error:
            if error.status != 403:
                raise
            return None

    async def _every_object(self) -> list[Wire]:
        """Every object that the caller may read."""
        lists = await asyncio.gather(*(self._list(one) for one in await self._kinds()))
        return [one for found in lists for one in found]

    async def _list(self, kind: Kind) -> list[Wire]:
        try:
            listed = await self._get(kind.path())
        except ReadError as error:
            if error.status != 403:
                raise
            return []
        # A list says once what its items are.
        head = {"apiVersion": listed["apiVersion"], "kind": kind.kind}
        return [{**head, **item} for item in listed["items"]]

    async def _proxies(self) -> list[Wire]:
        try:
            found: list[Wire] = (await self._get("/weft/v1/proxies"))["proxies"]
        except ReadError as error:
            if error.status not in {403, 404}:
                raise
            return []
        return found

    async def _vips(self) -> dict[tuple[str, str], str]:
        """Virtual addresses, which only the table of Services shows."""
        try:
            table = await self._get("/api/v1/services", table=True)
        except ReadError as error:
            if error.status != 403:
                raise
            return {}
        place = [column["name"] for column in table["columnDefinitions"]].index("Cluster-IP")
        found = {}
        for row in table["rows"]:
            metadata, address = row["object"]["metadata"], str(row["cells"][place])
            if "." in address or ":" in address:
                found[metadata.get("namespace", ""), metadata["name"]] = address
        return found


def _flags(text: str) -> list[dict[str, str]]:
    """What flags of a response mean, and what helps."""
    from weft.analysis.response_flags import flags_in

    return [{"flag": flag.short, "meaning": flag.meaning, "remedy": flag.remedy} for flag in flags_in(text)]


def _paint(
    objects: list[Wire], proxies: list[Wire], vips: dict[tuple[str, str], str]
) -> tuple[Survey, Picture]:
    from weft.analysis.analyze import Input, survey
    from weft.analysis.describe.picture import Picture

    # Roles are no configuration of the mesh.
    about = [one for one in objects if not str(one["apiVersion"]).startswith(_RBAC)]
    found = survey(Input(live=about, running=True))
    return found, Picture(found, proxies, vips)


async def _answered(asking: Awaitable[_T]) -> _T:
    """The answer.

    Raises:
        ReadError: a refusal of the API, or it is not reached (status 0).
    """
    try:
        return await asking
    except RefusedError as refusal:
        raise ReadError(refusal.code, refusal.message, refusal.hint) from refusal
    except WeftError as error:
        raise ReadError(0, error.message, error.hint) from error
