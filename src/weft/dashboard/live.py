"""Server-sent events: the content of a page, whenever it became different."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from starlette.responses import StreamingResponse

from weft.dashboard.page import EVERY_S, NotFoundError, UnreachableError

_log = logging.getLogger(__name__)


class Stream(StreamingResponse):
    """``content`` makes the HTML of ``<main>``. Events: ``page`` with HTML as a JSON string, when it differs
    from what was sent last; ``tick`` with the time in ms after every reading; ``lost`` with words instead of
    both while the mesh does not answer (``UnreachableError``), so that what is known stays on the screen;
    ``gone`` when there is no such thing any more. It ends with the client, or when ``stop`` is set.
    """

    def __init__(self, content: Callable[[], Awaitable[str]], stop: asyncio.Event) -> None:
        super().__init__(_events(content, stop), media_type="text/event-stream")


async def _events(content: Callable[[], Awaitable[str]], stop: asyncio.Event) -> AsyncGenerator[str]:
    sent = b""
    yield "retry: 2000\n\n"
    while not stop.is_set():
        try:
            html = await content()
        except NotFoundError:
            yield "event: gone\ndata: 0\n\n"
            return
        except UnreachableError as error:
            yield f"event: lost\ndata: {json.dumps(str(error))}\n\n"
        else:
            mark = hashlib.sha256(html.encode()).digest()
            if mark != sent:
                sent = mark
                yield f"event: page\ndata: {json.dumps(html)}\n\n"
            yield f"event: tick\ndata: {time.time() * 1000:.0f}\n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await stop.wait()
