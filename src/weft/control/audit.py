"""The audit log: one JSON object a line, appended, never changed; readable by its owner alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weft.control.api.writes import Write
from weft.store.interface import Put


class AuditLog:
    """Appends to a file (0600). Each line is one write, so that a crash leaves no half of two lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, event: str, about: Mapping[str, Any]) -> None:
        """Record what happened. Times are written in ISO 8601, UTC."""
        line = json.dumps({"event": event, **about}, default=_text, separators=(",", ":"))
        os.write(self._descriptor, line.encode() + b"\n")

    def changes(self, writes: Sequence[Write], actor: str, revision: int) -> None:
        """Record who changed what through the API, a line for each object; never what is in it."""
        for write in writes:
            key, before = write.operation.key, write.before
            if isinstance(write.operation, Put):
                now = write.operation
                if before is not None and (before.body, before.owner) == (now.body, now.owner):
                    continue
                verb = "update" if before is not None else "create"
            else:
                verb = "delete"
            what = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
            about = {"time": datetime.now(UTC), "actor": actor, "verb": verb, **what, "revision": revision}
            self.write("change", about)

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
