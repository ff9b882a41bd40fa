"""A directory as the source: its files are applied, followed, and own what they made.

The owner of its objects is ``files:DIR``. A file that is broken keeps the state that it had when it was
last good; an object that no file names any more is deleted; what belongs to others is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weft.control.api.apply import REFUSED, Applied, Applier, Item
from weft.control.api.objects import Objects
from weft.control.api.status import ApiError
from weft.control.api.validation import Validation
from weft.control.api.writes import Options
from weft.errors import Origin, Problem, Severity, UsageError, WeftError
from weft.model.files import SUFFIXES, read_file
from weft.model.local import localize
from weft.model.parse import Part, parse, unwrap
from weft.yaml import SYNTAX

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5

Stamp = tuple[int, int, int]
Report = Callable[["Synced"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """One application of the directory: the revision after it and everything that is wrong in the files.

    ``changed`` counts objects; ``kept`` are the broken files whose last good state still holds.
    """

    revision: int
    changed: int
    problems: tuple[Problem, ...]
    kept: tuple[str, ...] = ()


def owner_of(directory: Path) -> str:
    """``files:DIR``."""
    return f"files:{directory}"


def snapshot(directory: Path) -> dict[str, Stamp]:
    """Every file of the directory with what changes when it changes. Hidden files and folders are left out.

    Raises:
        WeftError: when it is no directory that can be read.
    """
    if not directory.is_dir():
        raise WeftError(f"{directory} is not a directory", hint="give --config a directory with *.yaml files")
    return dict(_stamps(directory))


def _stamps(directory: Path) -> Iterator[tuple[str, Stamp]]:
    for path in sorted(directory.rglob("*")):
        if path.suffix not in SUFFIXES or _hidden(path.relative_to(directory)):
            continue
        with contextlib.suppress(FileNotFoundError):  # it went while we looked
            found = path.stat()
            yield str(path), (found.st_mtime_ns, found.st_size, found.st_ino)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Directory:
    """Applies one directory. Holds the last good state of each file."""

    def __init__(self, objects: Objects, directory: Path) -> None:
        self._applier = Applier(objects, _nobody_waits)
        self._directory = directory
        self._owner = owner_of(directory)
        self._good: dict[str, tuple[Part, ...]] = {}
        self._seen: Mapping[str, Stamp] = {}

    async def sync(self) -> Synced | None:
        """Apply what changed since the last time; None when nothing did.

        Raises:
            WeftError: when the directory cannot be read.
        """
        stamps = await asyncio.to_thread(snapshot, self._directory)
        if self._seen == stamps and self._seen:
            return None
        changed = [path for path, stamp in stamps.items() if self._seen.get(path) != stamp]
        problems: list[Problem] = []
        kept: list[str] = []
        good = {path: parts for path, parts in self._good.items() if path in stamps}
        for path in changed:
            parts, wrong = await asyncio.to_thread(_read, path)
            problems += wrong
            if any(problem.severity is Severity.ERROR for problem in wrong):
                kept.append(path)
            else:
                good[path] = parts
        synced = await self._apply(good, stamps, problems, kept)
        self._good, self._seen = good, stamps
        return synced

    async def _apply(
        self,
        good: dict[str, tuple[Part, ...]],
        stamps: Mapping[str, Stamp],
        problems: list[Problem],
        kept: list[str],
    ) -> Synced:
        parts = [part for path in sorted(good) for part in good[path]]
        items = [Item(wire=localize(part), source=str(part.where())) for part in parts]
        # A broken file that was never good (the control plane restarted): what it made must not be pruned.
        never_good = any(path not in good for path in kept)
        options = Options(owner=self._owner, actor=self._owner, validation=Validation.STRICT)
        try:
            applied = await self._applier.apply(items, options, prune=not never_good, yielding=True)
        except ApiError as error:
            problems.append(Problem(REFUSED, error.message, Origin(str(self._directory))))
            return Synced(revision=0, changed=0, problems=tuple(problems), kept=tuple(kept))
        problems += [_placed(parts, found.index, found.problem) for found in applied.found]
        return Synced(
            revision=applied.revision, changed=_changes(applied), problems=tuple(problems), kept=tuple(kept)
        )


def _read(path: str) -> tuple[tuple[Part, ...], tuple[Problem, ...]]:
    try:
        documents, problems = read_file(path)
    except UsageError as error:
        return (), (Problem(SYNTAX, error.message, Origin(path), error.hint),)
    parts: list[Part] = []
    found = list(problems)
    for document in documents:
        inner, wrong = unwrap(document)
        parts += inner
        found += wrong
        for part in inner:
            found += parse(part)[1]
    return tuple(parts), tuple(found)


def _placed(parts: list[Part], index: int, problem: Problem) -> Problem:
    if index < 0:
        return problem
    return replace(problem, where=parts[index].where())


def _changes(applied: Applied) -> int:
    if applied.refused:
        return 0
    return sum(outcome.action != "unchanged" for outcome in applied.outcomes)


async def _nobody_waits(_: int, __: float) -> Mapping[str, object]:
    return {}


async def follow(
    objects: Objects, directory: Path, *, stop: asyncio.Event, report: Report | None = None
) -> None:
    """Apply the directory now and whenever it changes, until ``stop``.

    Raises:
        WeftError: when the directory cannot be read at the start; later that is a problem to report.
    """
    source = Directory(objects, directory.absolute())
    first = await source.sync()
    _tell(first, report)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_SECONDS)
            return
        try:
            _tell(await source.sync(), report)
        except WeftError as error:
            log.error("%s", error.message)


def _tell(synced: Synced | None, report: Report | None) -> None:
    if synced is None:
        return
    for problem in synced.problems:
        log.log(logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING, "%s", problem)
    for path in synced.kept:
        log.error("%s is broken: its last good state is kept", path)
    if report is not None:
        report(synced)
