"""Watching requests as they happen: proxies tell of them for as long as somebody looks, and no longer.

``GET /weft/v1/tap?namespace=NS&of=NAME&…`` raises, through the nodes, the share of requests that the chosen
proxies tell of, streams what the telemetry process then gets of them, and puts the share back at the end. A
node holds it for a lease only, so it is put back too when this process, or the node's session, is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from weft.control.api.permission import Access
from weft.control.api.resources import reply
from weft.control.api.rules import Ask
from weft.control.api.status import ApiError
from weft.control.proxies import Proxies
from weft.ir.proxy import ProxyIdentity
from weft.model.catalog import WEFT
from weft.names import canonical_name
from weft.telemetry.inquiry import TelemetryError
from weft.telemetry.taps import Wanted

_log = logging.getLogger(__name__)

Hold = Callable[[str, int, float], Awaitable[object]]
"""Have a workload's proxy (``namespace/name``) tell of so many millionths of its requests for some seconds.

Raises:
    LookupError, TimeoutError: its node cannot be asked.
"""
Question = Callable[[str, Mapping[str, str]], Awaitable[dict[str, Any]]]
Selector = Callable[[str, str], Mapping[str, str] | None]
"""The labels that a Service (namespace, name) chooses by; None when there is none."""

WHOLE: Final = 1_000_000
LEASE_S: Final = 15.0
RENEW_S: Final = 5.0
_LEAST: Final = 1_000
_PROXIES: Final = 500
_AT_ONCE: Final = 16
_POLL: Final = "1s"
_PAUSE_S: Final = 0.1
_MEASURE_S: Final = 1.0
# Of all that are watched together; told of, wanted or not.
_RECORDS_PER_SECOND: Final = 2_000


class Tapping:
    """``hold`` reaches nodes, ``ask`` the telemetry process, ``stop`` ends every watch."""

    def __init__(
        self, proxies: Proxies, hold: Hold, ask: Question, selector: Selector, stop: asyncio.Event
    ) -> None:
        self._proxies = proxies
        self._hold = hold
        self._ask = ask
        self._selector = selector
        self._stop = stop
        # Of each proxy, the shares that those who watch it want.
        self._wanted: dict[str, dict[object, int]] = {}
        self._watches = 0

    def routes(self) -> list[Route]:
        """For the API's application."""
        return [Route("/weft/v1/tap", self._serve, methods=["GET"])]

    async def _serve(self, request: Request) -> Response:
        access: Access = request.state.access
        asked = dict(request.query_params.items())
        namespace, of = asked.get("namespace", ""), asked.get("of", "")
        ask = Ask(verb="create", group=WEFT, resource="proxies", subresource="tap", namespace=namespace)
        try:
            await access.require(ask)
            Wanted.of(asked)
        except ApiError as refusal:
            return reply(refusal.body(), refusal.code)
        except ValueError as error:
            return _status(400, str(error))
        chosen = self._choose(namespace, of)
        if not chosen:
            about = f" of {of}" if of else ""
            where = f" in {namespace}" if namespace else ""
            return _status(404, f"no proxy{about}{where} is connected that tells of the requests it receives")
        if len(chosen) > _PROXIES:
            return _status(400, f"that are {len(chosen)} proxies, and {_PROXIES} the most: name a workload")
        if self._watches >= _AT_ONCE:
            return _status(429, f"{_AT_ONCE} are watching already")
        # Whom somebody calls with what is as secret as a log of it.
        access.seen(access, ask)
        events = "text/event-stream" in request.headers.get("accept", "")
        lines = self._lines(namespace, of, Wanted.chosen(asked), access, ask)
        kind = "text/event-stream" if events else "application/x-ndjson"
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return _Stream(_framed(lines, events), media_type=kind, headers=headers)

    def _choose(self, namespace: str, of: str) -> dict[str, str]:
        """Proxies, with their accounts, by the name of a service, workload, app, replica or gateway."""
        selector = self._selector(namespace, of) if of and namespace else None
        return {
            f"{one.name.namespace}/{one.name.name}": one.service_account
            for one in (stream.peer.identity for stream in self._proxies.connections())
            if (not namespace or one.name.namespace == namespace) and (not of or _is(one, of, selector))
        }

    async def _lines(
        self, namespace: str, of: str, wanted: Mapping[str, str], access: Access, ask: Ask
    ) -> AsyncGenerator[dict[str, Any]]:
        """What goes over the wire: ``{"started": …}``, then ``{"record": …}`` and ``{"status": …}``."""
        loop = asyncio.get_running_loop()
        watch, share = object(), WHOLE
        held: dict[str, str] = {}
        self._watches += 1
        try:
            number = (await self._ask("tap", {}))["next"]
            failures = await self._renew(watch, held, self._choose(namespace, of), share)
            renewed = loop.time()
            yield {"started": {"proxies": sorted(held), "failed": failures}}
            measured, seen = renewed, 0
            while not self._stop.is_set():
                asked = {"after": str(number), "wait": _POLL, "proxies": ",".join(sorted(held)), **wanted}
                answer = await self._ask("tap", asked)
                # One that begins anew counts anew.
                number = answer["next"]
                # Each thread of a proxy sends a batch of its own.
                for record in sorted(answer["records"], key=lambda one: one["time"]):
                    if held.get(f"{record['namespace']}/{record['instance']}") != record["account"]:
                        continue  # which replica it is, a proxy says itself; its account is proven
                    yield {"record": {**record, "weight": WHOLE / self._share(record, share)}}
                seen += answer["seen"]
                fitting, now = share, loop.time()
                if now - measured >= _MEASURE_S:
                    fitting, measured, seen = _fitting(share, seen / (now - measured)), now, 0
                if fitting != share or now - renewed >= RENEW_S:
                    if not await access.still_may(ask):
                        return
                    share, renewed = fitting, now
                    await self._renew(watch, held, self._choose(namespace, of), share)
                yield {"status": {"share": share / WHOLE, "seen": answer["seen"], "missed": answer["missed"]}}
                await asyncio.sleep(_PAUSE_S)
        except TelemetryError as error:
            yield {"error": {"message": error.message, "hint": error.hint}}
        finally:
            self._watches -= 1
            # The one who watched is gone, and with it the task that this runs in.
            await asyncio.shield(self._release(watch, held))

    def _share(self, record: Mapping[str, Any], own: int) -> int:
        """The share that its proxy was told: the largest that somebody wants."""
        wanted = self._wanted.get(f"{record['namespace']}/{record['instance']}", {})
        return max(wanted.values(), default=own)

    async def _renew(
        self, watch: object, held: dict[str, str], chosen: Mapping[str, str], share: int
    ) -> dict[str, str]:
        """Hold the share for a lease more, of new replicas too; which proxies were not reached, and why."""
        held.update(chosen)
        for proxy in held:
            self._wanted.setdefault(proxy, {})[watch] = share
        reasons = await asyncio.gather(*map(self._apply, sorted(held)))
        return {proxy: why for proxy, why in zip(sorted(held), reasons, strict=True) if why}

    async def _release(self, watch: object, held: Iterable[str]) -> None:
        for proxy in held:
            shares = self._wanted.get(proxy, {})
            shares.pop(watch, None)
            if not shares:
                self._wanted.pop(proxy, None)
        await asyncio.gather(*map(self._apply, held))

    async def _apply(self, proxy: str) -> str:
        """Have the proxy tell of what most who watch it want; why it does not."""
        share = max(self._wanted.get(proxy, {}).values(), default=0)
        try:
            await self._hold(proxy, share, LEASE_S)
        except LookupError as error:
            return str(error.args[0])
        except TimeoutError:
            return "its node does not answer, or is older than this control plane"
        return ""


def _is(one: ProxyIdentity, of: str, selector: Mapping[str, str] | None) -> bool:
    labels = dict(one.labels)
    if selector:
        return selector.items() <= labels.items()
    name = one.name.name
    stem, _, number = name.rpartition("-")
    names = {name, canonical_name(labels, name), labels.get("app", name)}
    return of in names or (number.isdecimal() and of == stem)


def _fitting(share: int, rate: float) -> int:
    """A share with which fewer than the bound are told of: with this one, ``rate`` came in a second."""
    if rate > _RECORDS_PER_SECOND:
        return max(_LEAST, int(share * _RECORDS_PER_SECOND / (2 * rate)))
    if rate < _RECORDS_PER_SECOND / 8 and share < WHOLE:
        return min(WHOLE, 2 * share)
    return share


class _Stream(StreamingResponse):
    """One whose source is closed with it, also when the client goes while something is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()  # type: ignore[attr-defined]


async def _framed(lines: AsyncGenerator[dict[str, Any]], events: bool) -> AsyncGenerator[bytes]:
    """As lines of JSON, or as server-sent events for a browser."""
    async with aclosing(lines):
        async for line in lines:
            body = msgspec.json.encode(line)
            yield b"data: " + body + b"\n\n" if events else body + b"\n"


def _status(code: int, message: str) -> Response:
    """A refusal in the form of the rest of the API."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return JSONResponse(body, status_code=code)
