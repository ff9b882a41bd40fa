"""The audit log: one JSON object a line, appended, never changed; readable by its owner alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any


class AuditLog:
    """Appends to a file (0600). Each line is one write, so that a crash leaves no half of two lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, event: str, about: Mapping[str, Any]) -> None:
        """Record what happened. Times are written in ISO 8601, UTC."""
        line = json.dumps({"event": event, **about}, default=_text, separators=(",", ":"))
        os.write(self._descriptor, line.encode() + b"\n")

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
