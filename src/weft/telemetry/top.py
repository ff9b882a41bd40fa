"""Requests added up as they come: for each caller, method and path how many, how well, how fast. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.telemetry.taps import failed
from weft.telemetry.templates import Templates

KEPT: Final = 1_000
_TEXTS: Final = 40
_OTHERS: Final = ("", "*", "*", "*")


@dataclass(slots=True)
class Line:
    """``count`` and ``errors`` are of requests that records stand for. Durations in ms."""

    caller: str
    workload: str
    method: str
    path: str
    count: float = 0.0
    errors: float = 0.0
    best: int = 0
    worst: int = 0
    last: int = 0
    newest: int = 0

    @property
    def success(self) -> float:
        """Share that went well."""
        return 1 - self.errors / self.count if self.count else 1.0

    def to_dict(self, seconds: float) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "caller": self.caller, "workload": self.workload, "method": self.method, "path": self.path,
            "count": round(self.count), "rps": self.count / seconds if seconds else None,
            "success": self.success, "best": self.best, "worst": self.worst, "last": self.last,
            "lastSeen": self.newest,
        }  # fmt: skip


class Top:
    """``paths``: whether paths become templates, as ``/users/{*}``. Bounded: what is too many is one line."""

    def __init__(self, *, paths: bool = True, most: int = KEPT) -> None:
        self._templates: dict[str, Templates] = {}
        self._paths = paths
        self._most = most
        self._lines: dict[tuple[str, str, str, str], Line] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """One more, with its ``weight``."""
        workload = f"{record['namespace']}/{record['workload']}"
        method = record["method"] or record["protocol"].upper()
        key = (str(record["source"]), workload, method, self._path(record, workload))
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= self._most:
                key = _OTHERS
            line = self._lines.setdefault(key, Line(*key))
        duration, weight = int(record["duration"]), float(record.get("weight", 1.0))
        line.best = min(line.best, duration) if line.count else duration
        line.worst = max(line.worst, duration)
        line.last, line.newest = duration, max(line.newest, int(record["time"]))
        line.count += weight
        line.errors += weight if failed(record) else 0.0

    def _path(self, record: Mapping[str, Any], workload: str) -> str:
        path = str(record["path"])
        if not self._paths or not path:
            return path
        known = self._templates.get(workload)
        if known is None:
            known = self._templates[workload] = Templates(_TEXTS)
        return known.learn(path)

    def lines(self, by: str = "count") -> list[Line]:
        """The largest first, by ``count``, ``errors``, ``worst`` or ``last``."""
        return sorted(self._lines.values(), key=lambda line: (-getattr(line, by), line.workload, line.path))
