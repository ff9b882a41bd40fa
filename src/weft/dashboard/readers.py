"""What the dashboard reads the mesh with: callables, with the rights of whoever started it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Wire = dict[str, Any]


class ReadError(Exception):
    """An answer that is none. ``status`` is its HTTP status, 0 when the control plane was not reached."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that the API serves, in its preferred version. ``group`` is empty for Kubernetes' core."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def root(self) -> str:
        """Where its collection is: ``/apis/networking.istio.io/v1``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """The API path of a collection or an object."""
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.root}{middle}/{self.plural}" + (f"/{name}" if name else "")


class Get(Protocol):
    """``GET`` of the API; ``table`` asks for a Kubernetes Table.

    Raises:
        ReadError: it was refused, or nobody answers.
    """

    def __call__(
        self, path: str, query: Mapping[str, str] | None = None, *, table: bool = False
    ) -> Awaitable[Any]:
        """The decoded answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """All of them raise ReadError.

    ``proxy_table``: (``namespace/name``, ``listener``, ``route``, ``cluster``, ``endpoint`` or ``secret``)
    -> ``{"columns": […], "rows": [[…], …]}``, of what its Envoy says it runs.
    ``explain``: a question as ``weft explain --requests`` takes it -> its answer, of the running mesh.
    ``describe``: (``service`` or ``workload``, namespace, name) -> the report of ``weft describe``.
    ``findings``: what ``weft analyze`` finds in the running mesh. ``objects``: all that the caller may read,
    Secrets and roles too; neither is read anew while nothing was changed.
    ``trace``: the id of a trace -> ``{"trace", "rows": […]}``: its spans, each below the one that called it,
    with what their response flags mean (``words``: ``[{"flag", "meaning", "remedy"}]``).
    ``flags``: the same of the text that Envoy writes them with (``UF,URX``).
    """

    get: Get
    kinds: Callable[[], Awaitable[tuple[Kind, ...]]]
    proxy_table: Callable[[str, str], Awaitable[Wire]]
    explain: Callable[[Mapping[str, Any]], Awaitable[Wire]]
    describe: Callable[[str, str, str], Awaitable[Wire]]
    findings: Callable[[], Awaitable[list[Wire]]]
    objects: Callable[[], Awaitable[list[Wire]]]
    trace: Callable[[str], Awaitable[Wire]]
    flags: Callable[[str], list[dict[str, str]]]
