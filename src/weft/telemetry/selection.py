"""Which calls a question is about (``of``, ``direction``, ``namespace``), and what groups them (``by``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.telemetry.calls import SOURCE, End, own, peer, service
from weft.telemetry.series import OTHER, SeriesKey
from weft.telemetry.windows import BadQuestionError, Parameters

INBOUND, OUTBOUND = "inbound", "outbound"


def choice(asked: Parameters, name: str, choices: tuple[str, ...]) -> str:
    """A parameter that is one of these words, the first if it is not given.

    Raises:
        BadQuestionError: it is none of them.
    """
    found = asked.get(name) or choices[0]
    if found not in choices:
        raise BadQuestionError(f"{name}: {found[:40]!r} is none of {', '.join(filter(None, choices))}")
    return found


def destination(key: SeriesKey) -> End:
    """Who was called."""
    return peer(key) if key.side == SOURCE else own(key)


def source(key: SeriesKey) -> End:
    """Who called."""
    return own(key) if key.side == SOURCE else peer(key)


def is_gateway(key: SeriesKey) -> bool:
    """Whether a gateway tells of what it passes on."""
    return key.side == SOURCE and key.kind == "gateway"


@dataclass(frozen=True, slots=True)
class Selection:
    """``kind``: ``service``, ``workload`` or empty for both, of ``name``; all without a name.

    ``callers``: what callers got counts, instead of what came.
    """

    kind: str = ""
    of_namespace: str = ""
    name: str = ""
    direction: str = INBOUND
    namespace: str = ""
    callers: bool = False

    @classmethod
    def read(cls, asked: Parameters) -> Selection:
        """Out of the parameters of a question.

        Raises:
            BadQuestionError: one cannot be read.
        """
        text = asked.get("of", "")
        kind, colon, rest = text.partition(":")
        if not colon:
            kind, rest = "", text
        namespace, slash, name = rest.partition("/")
        if kind not in {"", "service", "workload"} or (text and not (slash and namespace and name)):
            raise BadQuestionError(
                f"of: {text[:80]!r} is no workload or service: write NAMESPACE/NAME, service:NAMESPACE/NAME"
                " or workload:NAMESPACE/NAME"
            )
        direction = choice(asked, "direction", (INBOUND, OUTBOUND))
        callers = choice(asked, "seen", ("", SOURCE)) == SOURCE
        return cls(kind, namespace, name, direction, asked.get("namespace", ""), callers)

    @property
    def everything(self) -> bool:
        """Whether each call of the mesh is meant."""
        return not (self.name or self.namespace or self.callers) and self.direction == INBOUND

    def wants(self, key: SeriesKey) -> bool:
        """Whether a series may be about these calls."""
        if self.direction == OUTBOUND:
            return (
                key.side == SOURCE
                and self.namespace in {"", key.namespace}
                and (not self.name or (self.kind != "service" and self._is(key.namespace, key.workload)))
            )
        end = destination(key)
        if self.namespace and self.namespace not in {end.namespace, key.service_namespace}:
            return is_gateway(key) and key.namespace == self.namespace and self._through(key)
        if not self.name:
            return True
        if self.kind != "workload" and self._is(key.service_namespace, key.service_name):
            return True
        return (self.kind != "service" and self._is(end.namespace, end.workload)) or self._through(key)

    def counts(self, key: SeriesKey, *, once: bool) -> bool:
        """Whether a series that is wanted counts; ``once``: it is the one that counts for its calls.

        What leaves a workload counts as it tells it, as does what comes to a gateway.
        """
        if self.callers:
            return key.side == SOURCE
        return self.direction == OUTBOUND or once or (bool(self.name) and self._through(key))

    def _through(self, key: SeriesKey) -> bool:
        return (
            bool(self.name)
            and self.kind != "service"
            and is_gateway(key)
            and self._is(key.namespace, key.workload)
        )

    def _is(self, namespace: str, name: str) -> bool:
        return (namespace, name) == (self.of_namespace, self.name)


Grouping = Callable[[SeriesKey, Selection], tuple[str, Mapping[str, Any]]]
"""What a series is counted under: the key of the row, and what else the row says."""


def _by_service(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    called = service(key)
    name = f"{called.namespace}/{called.name}" if called.name else called.host
    return name, {"service": called.to_dict(), "namespace": called.namespace}


def _by_workload(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    end = destination(key)
    name = f"{end.namespace}/{end.workload}" if end.workload not in {"", OTHER} else end.workload
    return name, {"namespace": end.namespace, "workload": end.workload, "version": end.version}


def _by_version(key: SeriesKey, asked: Selection) -> tuple[str, Mapping[str, Any]]:
    end = destination(key)
    name = end.version if asked.name else f"{end.namespace}/{end.app}@{end.version}"
    return name, {"namespace": end.namespace, "app": end.app, "version": end.version}


def _by_caller(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    end = source(key)
    known = end.workload not in {"", OTHER}
    name = f"{end.namespace}/{end.workload}" if known else end.principal
    return name, {"source": end.to_dict()}


def _by_code(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    return f"grpc {key.grpc}" if key.grpc else key.code, {}


def _by_flags(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    return key.flags, {}


def _by_protocol(key: SeriesKey, _: Selection) -> tuple[str, Mapping[str, Any]]:
    return key.protocol, {}


GROUPINGS: Final[Mapping[str, Grouping]] = {
    "workload": _by_workload,
    "service": _by_service,
    "version": _by_version,
    "caller": _by_caller,
    "code": _by_code,
    "flags": _by_flags,
    "protocol": _by_protocol,
}
