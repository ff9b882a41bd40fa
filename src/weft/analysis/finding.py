"""What an analysis says."""

from __future__ import annotations

from dataclasses import dataclass

from weft.analysis.codes import CODES, RANK
from weft.errors import Origin, Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``origin`` is ``VirtualService default/reviews``; ``where`` is its place."""

    code: str
    level: Severity
    message: str
    origin: str = ""
    where: Origin | None = None
    namespace: str = ""

    @property
    def reference(self) -> str:
        """``f.yaml:12``; empty where there is no file."""
        if self.where is None:
            return ""
        return f"{self.where.file}:{self.where.line}" if self.where.line else self.where.file

    @property
    def rank(self) -> tuple[int, str, str, Origin, str]:
        """Sort key: the worst first, then by code, resource and place."""
        return (RANK[self.level], self.code, self.origin, self.where or Origin(""), self.message)

    @property
    def url(self) -> str:
        """Where the code is explained."""
        return CODES[self.code].url if self.code in CODES else ""

    def as_json(self) -> dict[str, str]:
        """As ``istioctl analyze -o json`` prints it."""
        return {
            "code": self.code,
            "level": self.level.value,
            "message": self.message,
            "origin": self.origin,
            "reference": self.reference,
            "documentationUrl": self.url,
        }
