"""The application: pages, their live streams, the scripts, and the answers that charts are drawn from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from weft.dashboard.door import Door
from weft.dashboard.live import Stream
from weft.dashboard.page import NotFoundError, Page, UnreachableError, Visit
from weft.dashboard.pages import PAGES, QUESTIONS
from weft.dashboard.places import Places
from weft.dashboard.readers import ReadError, Readers
from weft.dashboard.render import Templates

_log = logging.getLogger(__name__)
_MARKS: Final = "changes"
_STATIC: Final = Path(__file__).with_name("static")


def create_dashboard(readers: Readers, *, stop: asyncio.Event, cookie_name: str = "weft") -> Door:
    """The ASGI application. Streams end when ``stop`` is set; ``token`` of the answer lets one browser in."""
    templates = Templates(PAGES)
    routes: list[Route | Mount] = [
        Route(page.path, _page(page, readers, templates, stop), methods=["GET"]) for page in PAGES
    ]
    routes += [
        Route("/data/{question}", _data(readers), methods=["GET"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]

    async def missing(request: Request, _error: Exception) -> Response:
        return await _failure(request, 404, "There is no such page.")

    async def broken(request: Request, _error: Exception) -> Response:
        return await _failure(request, 500, "The dashboard itself failed; its log says why.")

    async def _failure(request: Request, status: int, message: str) -> Response:
        return HTMLResponse(templates.failure(request.url.path, message), status)

    app = Starlette(routes=routes, exception_handlers={404: missing, 500: broken})
    return Door(app, cookie_name=cookie_name)


def _page(
    page: Page, readers: Readers, templates: Templates, stop: asyncio.Event
) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        query = dict(reversed(request.query_params.multi_items()))
        headers = tuple(request.query_params.getlist("header"))

        async def content(whole: bool) -> str:
            path = {name: str(value) for name, value in request.path_params.items()}
            visit = Visit(readers, path, query, headers, await _places(readers), whole)
            variables = await page.read(visit)
            if not whole and visit.unreachable:
                raise UnreachableError(visit.unreachable)
            return templates.render(page, visit, variables, request.url.path, whole=whole)

        if page.live and "text/event-stream" in request.headers.get("accept", ""):
            return Stream(lambda: content(False), stop)
        try:
            return HTMLResponse(await content(True), headers={"vary": "accept"})
        except NotFoundError as error:
            return HTMLResponse(templates.failure(request.url.path, error.what), 404)

    return answer


async def _places(readers: Readers) -> Places:
    """Where resources are shown; nowhere while the kinds are not known, which the page's own gaps tell."""
    try:
        return Places(await readers.kinds())
    except ReadError:
        return Places()


def _data(readers: Readers) -> Callable[[Request], Any]:
    """Telemetry's answers as they are, for what scripts draw."""

    async def answer(request: Request) -> Response:
        question = request.path_params["question"]
        if question not in QUESTIONS:
            return JSONResponse({"message": "there is no such question"}, 404)
        try:
            found = await readers.get(f"/weft/v1/telemetry/{question}", dict(request.query_params))
        except ReadError as error:
            if question == _MARKS and error.status == 403:
                return JSONResponse({"changes": []})  # a chart without marks is still a chart
            return JSONResponse({"message": error.message, "hint": error.hint}, error.status or 502)
        return JSONResponse(found)

    return answer
