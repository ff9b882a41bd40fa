"""What can be wrong, where, and what to do about it.

Inside, a finding is a value (``Problem``); at the edges it is an exception (``WeftError``) whose
class decides the exit code of a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Severity(StrEnum):
    """How bad a problem is; an error keeps its resource from being accepted."""

    ERROR = "Error"
    WARNING = "Warning"
    INFO = "Info"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A place in a file. ``line`` and ``column`` count from 1; 0 means that they are not known."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: ``code`` names its class, ``hint`` says what to write instead.

    ``path`` is the field's path from the resource's root, as ``spec.http[0].retries``; ``resource`` is
    ``VirtualService default/reviews`` where no place in a file is known yet.
    """

    code: str
    message: str
    where: Origin | None = None
    hint: str = ""
    path: str = ""
    severity: Severity = Severity.ERROR
    resource: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else f"{self.resource}: " if self.resource else ""
        field = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{field}{self.message}{hint}"


class WeftError(Exception):
    """A failure that a user can act on. ``hint`` is the remedy, one line, imperative."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)


class UsageError(WeftError):
    """The command line does not make sense."""

    exit_code = 2


class InternalError(WeftError):
    """weft itself failed."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest known word, else the empty string."""
    near = get_close_matches(word, sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
