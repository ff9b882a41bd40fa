"""What a proxy is to be started with, as the control plane tells a node: the rest comes over xDS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStart:
    """``concurrency``: worker threads, 0 for one a core, None for the node's own choice.

    ``environment`` is Envoy's. ``bootstrap`` are objects to be merged into the bootstrap, in their order.
    ``probe``, in Kubernetes' form, tells whether the application is ready, if that has none of its own.
    """

    concurrency: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    bootstrap: tuple[Json, ...] = ()
    probe: Json | None = None

    def to_dict(self) -> Json:
        """The JSON form; empty when nothing is said."""
        said = {
            "concurrency": self.concurrency,
            "environment": dict(self.environment) or None,
            "bootstrap": list(self.bootstrap) or None,
            "probe": self.probe,
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
        )


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
