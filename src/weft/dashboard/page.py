"""What a page is, and what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weft.dashboard.places import Places
from weft.dashboard.readers import ReadError, Readers

EVERY_S: Final = 5.0
"""Proxies tell what they did every 5 s."""


class NotFoundError(Exception):
    """There is no such page: ``what`` there is none of, for people."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class UnreachableError(Exception):
    """Nobody answers for the mesh now."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be read, in the place of what would have been: the page shows the rest, and why."""

    message: str
    hint: str = ""
    status: int = 0

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Visit:
    """One reading of a page: ``path`` are its path's parameters, ``query`` the first of each of its URL's,
    ``places`` the addresses of resources. ``waited``: somebody waits for the page; what is slow may lack.
    """

    readers: Readers
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: tuple[str, ...] = ()
    places: Places = field(default_factory=Places)
    waited: bool = False
    gaps: list[Gap] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The namespace that was chosen; empty for all."""
        return self.query.get("namespace", "")

    @property
    def unreachable(self) -> str:
        """Why nothing can be read; empty when the mesh answers, be it with refusals."""
        return next((gap.message for gap in self.gaps if gap.status == 0), "")

    async def ask(self, question: str, **parameters: str) -> Any:
        """An answer of telemetry, of the chosen namespace unless ``namespace`` says otherwise; or a Gap."""
        wanted = {"namespace": self.namespace, **parameters}
        query = {name: value for name, value in wanted.items() if value}
        return await self.get(f"/weft/v1/telemetry/{question}", query)

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, table: bool = False) -> Any:
        """An answer of the API, or a Gap."""
        return await self.attempt(self.readers.get(path, query, table=table))

    async def attempt(self, reading: Awaitable[Any]) -> Any:
        """What it gives, or a Gap with the reason why it does not."""
        try:
            return await reading
        except ReadError as error:
            gap = Gap(error.message, error.hint, error.status)
            if gap not in self.gaps:
                self.gaps.append(gap)
            return gap


async def together(*readings: Awaitable[Any]) -> tuple[Any, ...]:
    """Answers of several readings that do not wait for each other; the first exception ends all of them."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_awaited(one)) for one in readings]
    return tuple(task.result() for task in running)


async def _awaited(reading: Awaitable[Any]) -> Any:
    return await reading


Read = Callable[[Visit], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A row of ``PAGES``.

    ``path`` is a path as Starlette reads it. ``nav`` is its word in the navigation, ``icon`` the name of the
    symbol before it (static/icons.svg) and ``key`` what goes to it after ``g``, all empty for a page that is
    reached from others; ``below`` is the path of the page whose place in the navigation it marks.
    ``scripts`` are modules of static/ that it needs; ``live`` says whether it is read again by itself.
    """

    path: str
    title: str
    template: str
    read: Read
    nav: str = ""
    icon: str = ""
    key: str = ""
    below: str = ""
    scripts: tuple[str, ...] = ()
    live: bool = True
