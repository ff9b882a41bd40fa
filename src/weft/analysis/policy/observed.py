"""Flows as the telemetry store tells them, checked: who called which workload, with what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

ANY: Final = "*"
PARAMETER: Final = "{*}"
_EXAMPLES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request of a flow. ``path`` is what was asked for, without its query."""

    method: str
    host: str
    path: str
    source_ip: str
    remote_ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A flow. ``source`` is a SPIFFE ID or empty; ``path`` a template; ``kind``: ``sidecar`` or ``router``.

    ``partial``: what of it was not all kept: ``addresses``, ``paths``, ``hosts``, ``methods``.
    ``decision``: what became of it then. Times in ms since the epoch.
    """

    source: str
    kind: str
    namespace: str
    workload: str
    instance: str
    account: str
    port: int
    protocol: str
    tls: str
    method: str
    host: str
    path: str
    sni: str
    decision: str
    outcome: str
    first: int
    last: int
    count: int
    kept: int
    examples: tuple[Example, ...]
    partial: frozenset[str]

    @property
    def title(self) -> str:
        """``GET /users/{*}`` or ``TCP``."""
        return f"{self.method} {self.path}".strip() if self.protocol == "http" else "TCP"

    def json(self) -> dict[str, Any]:
        """Who called whom with what, and how often."""
        return {
            "source": self.source or None,
            "destination": {
                "namespace": self.namespace,
                "workload": self.workload,
                "kind": self.kind,
                "port": self.port,
            },
            "protocol": self.protocol,
            "tls": self.tls,
            "method": self.method or None,
            "host": self.host or None,
            "path": self.path or None,
            "count": self.count,
            "kept": self.kept,
            "first": self.first,
            "last": self.last,
            "observed": self.decision,
            "examples": [example.path for example in self.examples if example.path],
        }


def read_flows(rows: Iterable[Any]) -> tuple[Observed, ...]:
    """Flows of their JSON (``/weft/v1/telemetry/flows``).

    Raises:
        ValueError: when a row has another form.
    """
    return tuple(_flow(number, row) for number, row in enumerate(rows))


def uncovered(
    callers: Iterable[tuple[str, str, str, int]], flows: Iterable[Observed]
) -> Iterator[tuple[tuple[str, str], str]]:
    """Who called, as metrics count it (source, namespace, workload, times), and is in no flow.

    Gives namespace and workload with what to say of it.
    """
    told = {(flow.source, flow.namespace, flow.workload) for flow in flows}
    for source, namespace, workload, times in sorted(callers):
        caller = "" if source == "unknown" else source
        if times > 0 and (caller, namespace, workload) not in told:
            who = caller or "somebody without an identity"
            what = f"{who} called {namespace}/{workload} {times} times, and no record tells of it"
            hint = "it would be denied: raise flowSampling in the MeshConfig, and wait"
            yield (namespace, workload), f"{what} ({hint})"


def _flow(number: int, row: Any) -> Observed:
    try:
        addresses = [(str(peer), str(client)) for peer, client in row["addresses"]] or [("", "")]
        examples = tuple(_examples(row, addresses))
        partial = {
            "addresses": bool(row["moreAddresses"]),
            "paths": PARAMETER in row["path"] and int(row["kept"]) > len(row["examples"]),
            "hosts": row["host"] == ANY,
            "methods": row["method"] == ANY,
        }
        return Observed(
            source=str(row["source"]),
            kind=str(row["kind"]),
            namespace=str(row["namespace"]),
            workload=str(row["workload"]),
            instance=str(row["instance"]),
            account=str(row["account"]),
            port=int(row["port"]),
            protocol=str(row["protocol"]),
            tls=str(row["tls"]),
            method=str(row["method"]),
            host=str(row["host"]),
            path=str(row["path"]),
            sni=str(row["sni"]),
            decision=str(row["decision"]),
            outcome=str(row["outcome"]),
            first=int(row["first"]),
            last=int(row["last"]),
            count=int(row["count"]),
            kept=int(row["kept"]),
            examples=examples,
            partial=frozenset(name for name, cut in partial.items() if cut),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"flows[{number}] is no flow: {error!r}") from error


def _examples(row: Mapping[str, Any], addresses: list[tuple[str, str]]) -> Iterator[Example]:
    """Each concrete request from the first address, then the first request from each other address."""
    kept = [
        {"method": str(one["method"]), "host": str(one["host"]), "path": str(one["path"])}
        for one in row["examples"][:_EXAMPLES]
    ] or [{"method": str(row["method"]), "host": str(row["host"]), "path": str(row["path"])}]
    for one in kept:
        yield Example(**one, source_ip=addresses[0][0], remote_ip=addresses[0][1])
    for peer, client in addresses[1:]:
        yield Example(**kept[0], source_ip=peer, remote_ip=client)
