"""What a proxy is to be started with, as the control plane tells a node: the rest comes over xDS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

Json = dict[str, Any]

META: Final = "ISTIO_META_"
"""Variables of a proxy that begin with it are its node's metadata, not Envoy's environment (Istio)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStart:
    """``concurrency``: worker threads, 0 for one a core, None for the node's own choice.

    ``environment`` is Envoy's. ``bootstrap`` are objects to be merged into the bootstrap, in their order.
    ``probe``, in Kubernetes' form, tells whether the application is ready, if that has none of its own.
    ``drain_s``: how long requests in flight are waited for at the end; ``listener_drain_s``: for how long a
    listener that goes closes its connections. ``log_flush_ms``, ``log_buffer_kb``: when logs are written.
    """

    concurrency: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    bootstrap: tuple[Json, ...] = ()
    probe: Json | None = None
    drain_s: float | None = None
    listener_drain_s: float | None = None
    log_flush_ms: int | None = None
    log_buffer_kb: int | None = None

    def to_dict(self) -> Json:
        """The JSON form; empty when nothing is said."""
        said = {
            "concurrency": self.concurrency,
            "environment": dict(self.environment) or None,
            "bootstrap": list(self.bootstrap) or None,
            "probe": self.probe,
            "drainSeconds": self.drain_s,
            "listenerDrainSeconds": self.listener_drain_s,
            "logFlushMilliseconds": self.log_flush_ms,
            "logBufferKilobytes": self.log_buffer_kb,
        }
        return {key: value for key, value in said.items() if value is not None}

    @classmethod
    def parse(cls, data: object) -> Self:
        """Read the JSON form; what is no such object says nothing."""
        if not isinstance(data, Mapping):
            return cls()
        concurrency, environment = data.get("concurrency"), data.get("environment")
        return cls(
            concurrency=concurrency if isinstance(concurrency, int) and concurrency >= 0 else None,
            environment=dict(environment) if isinstance(environment, Mapping) else {},
            bootstrap=tuple(part for part in data.get("bootstrap") or () if isinstance(part, dict)),
            probe=probe if isinstance(probe := data.get("probe"), dict) else None,
            drain_s=_number(data.get("drainSeconds")),
            listener_drain_s=_number(data.get("listenerDrainSeconds")),
            log_flush_ms=_whole(data.get("logFlushMilliseconds")),
            log_buffer_kb=_whole(data.get("logBufferKilobytes")),
        )


def _number(value: object) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else None
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def merged(into: Json, part: Mapping[str, Any]) -> Json:
    """``into`` with ``part``: objects are merged, lists appended, all else replaced (Istio: MERGE)."""
    result = dict(into)
    for key, value in part.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = [*old, *value]
        else:
            result[key] = value
    return result
