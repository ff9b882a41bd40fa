"""What a person means by a name: a service or a workload that the telemetry store was told of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from weft.errors import UsageError, WeftError, did_you_mean


class NobodyError(WeftError):
    """Nobody bears a name."""


_KINDS: Final = {
    **dict.fromkeys(("service", "services", "svc"), "service"),
    **dict.fromkeys(
        (
            "workload", "workloads", "wl", "deployment", "deployments", "deploy", "statefulset",
            "statefulsets", "sts", "daemonset", "daemonsets", "ds", "pod", "pods", "po", "gateway", "gw",
        ),
        "workload",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A name as it was written. Empty: it was not said."""

    kind: str = ""
    namespace: str = ""
    name: str
    whole: str

    @classmethod
    def of(cls, text: str, namespace: str = "") -> Self:
        """Read ``reviews``, ``svc/reviews``, ``shop/reviews``, ``reviews.shop``, or a host.

        Raises:
            UsageError: it is none of these, or names another namespace than ``namespace``.
        """
        kind, parts = "", text.split("/")
        if len(parts) > 1 and parts[0].lower() in _KINDS:
            kind, parts = _KINDS[parts[0].lower()], parts[1:]
        space, rest = (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
        if len(parts) > 2 or not rest or (len(parts) == 2 and not space):
            raise UsageError(f"{text!r} is no name", hint="write NAME, NAMESPACE/NAME or svc/NAME")
        if namespace and space and space != namespace:
            raise UsageError(
                f"{text} is in the namespace {space}, and -n says {namespace}", hint="leave -n out"
            )
        return cls(kind=kind, namespace=space or namespace, name=rest, whole=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``kind``: ``service`` or ``workload``."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def of(self) -> str:
        """As questions have it."""
        return f"{self.kind}:{self.namespace}/{self.name}"


def find(asked: Asked, known: Mapping[str, Any]) -> Target:
    """The one that is meant, of those in the answer to the question ``workloads``; services go first.

    Raises:
        NobodyError: there is none.
        WeftError: there are several.
    """
    found: list[Target] = []
    for kind, rows, field in (
        ("service", known["services"], "name"),
        ("workload", known["workloads"], "workload"),
    ):
        if asked.kind in {"", kind} and not found:
            found = [
                Target(kind=kind, namespace=row["namespace"], name=row[field])
                for row in rows
                if _is(asked, row, field)
            ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(map(str, found)))
        raise WeftError(f"{asked.whole!r} may be {names}", hint="say which: NAMESPACE/NAME, or -n NAMESPACE")
    near = {row["name"] for row in known["services"]} | {row["workload"] for row in known["workloads"]}
    what = asked.kind or "service or workload"
    where = f" in {asked.namespace}" if asked.namespace else ""
    raise NobodyError(
        f"no {what} {asked.name!r} was heard of{where}",
        hint=did_you_mean(asked.name, near - {""})
        or "only what had a sidecar or was called by one is known: weft stat lists it, weft proxy status too",
    )


def behind(known: Mapping[str, Any], service: Target) -> tuple[Target, ...]:
    """The workloads that answer for a service, by the answer to the question ``workloads``."""
    return tuple(
        Target(kind="workload", namespace=service.namespace, name=str(name))
        for row in known["services"]
        if (row["namespace"], row["name"]) == (service.namespace, service.name)
        for name in sorted(row["workloads"])
    )


def _is(asked: Asked, row: Mapping[str, Any], field: str) -> bool:
    if asked.namespace and row["namespace"] != asked.namespace:
        return False
    name, namespace = str(row[field]), str(row["namespace"])
    hosts = {name, f"{name}.{namespace}", f"{name}.{namespace}.svc", str(row.get("host") or name)}
    return asked.name in hosts
