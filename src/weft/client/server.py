"""Where the API answers, and with what one goes there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Server:
    """A Unix socket, or an ``https://`` address with its credentials: PEM files, PEM texts, or a token."""

    url: str = ""
    socket_path: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    ca_data: bytes = field(default=b"", repr=False)
    certificate_data: bytes = field(default=b"", repr=False)
    key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return str(self.socket_path or self.url)
