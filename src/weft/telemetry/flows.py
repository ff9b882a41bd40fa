"""Flows: who called which workload, with what, and what came of it. One entry each, counted, bounded.

A flow is told by the proxy that decided about it: the called workload's sidecar, or a gateway. Of the
destination it may say only what the identity in its own certificate allows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Self

from weft.names import ClusterName
from weft.telemetry.limits import Limits, Losses
from weft.telemetry.otlp import Report
from weft.telemetry.templates import Templates

HOUR_MS: Final = 3_600_000
MANY: Final = "*"

_DENIED: Final = "rbac_access_denied"
# Envoy's words (response code details) for what other filters than RBAC turned away.
_OTHERS: Final = (
    ("ext_authz_", "ext_authz"),
    ("jwt_authn_access_denied", "jwt"),
    ("Jwt", "jwt"),
)
_WHOLE: Final = 1_000_000
_ERROR, _FAULT = 400, 500
_ADDRESSES: Final = 8
# Of the oldest, so many make room at once.
_EVICTED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowKey:
    """What tells two flows apart.

    ``source``: the caller's SPIFFE ID, empty for plaintext. Who was called: ``kind`` (sidecar or router),
    ``namespace``, ``workload``, ``revision``, ``account``. ``port``: the workload's own, or a gateway's.
    ``protocol``: ``http`` or ``tcp``. ``path`` is a template; ``host`` and ``method`` are ``*`` where there
    are too many. ``decision``: ``allow`` or ``deny``; ``policy``: which decided, as the proxy names it.
    ``outcome``: ``ok``, ``refused`` (4xx) or ``failed``. ``shadow``: what a dry run came to.
    ``tls``: ``mtls``, ``tls`` (without a certificate of the caller's) or ``none``.
    """

    source: str
    kind: str
    namespace: str
    workload: str
    revision: str
    account: str
    service: str
    port: int
    protocol: str
    tls: str = "none"
    method: str = ""
    host: str = ""
    path: str = ""
    sni: str = ""
    decision: str = "allow"
    policy: str = ""
    outcome: str = "ok"
    shadow: str = ""
    shadow_policy: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Of the form that ``asdict`` gives; further fields are left out."""
        return cls(**{each.name: data[each.name] for each in fields(cls) if each.name in data})


@dataclass(slots=True)
class Flow:
    """``count``: requests it stands for; ``kept``: those that were told. Both since ``first``. Times in ms.

    ``examples``: concrete ``path``, ``host``, ``code``, ``requestId``, ``time``. ``addresses``: pairs of the
    connected peer and of the client in front of it; ``more_addresses``: there were others. ``instance``: the
    one of the workload's that was called last.
    """

    key: FlowKey
    first: int
    last: int
    count: int = 0
    kept: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[list[str]] = field(default_factory=list)
    more_addresses: bool = False
    instance: str = ""

    def absorb(self, other: Flow) -> None:
        """Add what another entry of the same flow holds."""
        self.instance = other.instance if other.last > self.last else self.instance
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.count, self.kept = self.count + other.count, self.kept + other.kept
        known = {example["path"] for example in self.examples}
        self.examples += [example for example in other.examples if example["path"] not in known]
        self.addresses += [pair for pair in other.addresses if pair not in self.addresses]
        self.more_addresses = self.more_addresses or other.more_addresses

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **asdict(self.key),
            "first": self.first,
            "last": self.last,
            "count": self.count,
            "kept": self.kept,
            "examples": self.examples,
            "addresses": self.addresses,
            "moreAddresses": self.more_addresses,
            "instance": self.instance,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(
            FlowKey.from_dict(data),
            data["first"],
            data["last"],
            data["count"],
            data["kept"],
            list(data["examples"]),
            [list(pair) for pair in data["addresses"]],
            bool(data["moreAddresses"]),
            str(data.get("instance", "")),
        )


class _Words:
    """Texts of one kind; ``MANY`` for all that come after too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def learn(self, text: str) -> str:
        if text in self._known or len(self._known) < self._most:
            self._known.add(text)
            return text
        return MANY


class _Learned:
    """What is known of one workload. Refused requests are learned apart: a scan must widen no template."""

    def __init__(self, most: int) -> None:
        self.paths = {True: Templates(most), False: Templates(most)}
        self.hosts = {True: _Words(most), False: _Words(most)}
        self.methods = {True: _Words(most), False: _Words(most)}


class FlowTable:
    """The flows of now. ``pending`` counts wait to be written: ``take`` them."""

    def __init__(self, limits: Limits, losses: Losses) -> None:
        self._limits = limits
        self._losses = losses
        self._flows: dict[FlowKey, Flow] = {}
        self._owned: Counter[tuple[str, str]] = Counter()
        self._learned: dict[tuple[str, str], _Learned] = {}
        self._pending: defaultdict[tuple[FlowKey, int], list[int]] = defaultdict(lambda: [0, 0])
        self._evicted: list[FlowKey] = []

    def __len__(self) -> int:
        return len(self._flows)

    def load(self, flows: Iterable[Flow]) -> None:
        """Begin with what was kept."""
        for flow in flows:
            key = self._templated(flow.key, learn=True)
            if key in self._flows:
                self._flows[key].absorb(flow)
            else:
                flow.key = key
                self._flows[key] = flow
                self._owned[_owner(key)] += 1

    def add(self, report: Report) -> None:
        """Count one request or connection."""
        key = self._key(report)
        weight = _weight(report.fields.get("share", ""), always=key.outcome != "ok" or key.decision == "deny")
        flow = self._flows.get(key)
        if flow is None:
            if self._owned[_owner(key)] >= self._limits.flows_of_one:
                self._make_room(_owner(key))
            elif len(self._flows) >= self._limits.flows:
                self._make_room()
            flow = self._flows[key] = Flow(key, report.time_ms, report.time_ms)
            self._owned[_owner(key)] += 1
        flow.first = min(flow.first, report.time_ms)
        flow.last = max(flow.last, report.time_ms)
        flow.instance = report.reporter.instance
        flow.count += weight
        flow.kept += 1
        self._exemplify(flow, report)
        pending = self._pending[key, report.time_ms // HOUR_MS]
        pending[0] += weight
        pending[1] += 1

    def take(self) -> tuple[list[tuple[Flow, int, int, int]], list[FlowKey]]:
        """What is to be written: (flow, hour, count, kept), and the flows that are forgotten."""
        pending, self._pending = self._pending, defaultdict(lambda: [0, 0])
        evicted, self._evicted = self._evicted, []
        changed = [
            (self._flows[key], hour, count, kept)
            for (key, hour), (count, kept) in pending.items()
            if key in self._flows
        ]
        return changed, evicted

    def forget(self, before_ms: int) -> None:
        """Drop flows that were last seen before."""
        for key in [key for key, flow in self._flows.items() if flow.last < before_ms]:
            self._drop(key)

    def flows(self, counts: Mapping[FlowKey, tuple[int, int]] | None, since_ms: int) -> list[Flow]:
        """Those seen since then, busiest first. ``counts`` (count, kept) of that time; None: of all time."""
        found: dict[FlowKey, Flow] = {}
        for key, flow in self._flows.items():
            if flow.last < since_ms:
                continue
            count, kept = flow.count, flow.kept
            if counts is not None:
                count, kept = counts.get(key, (count, kept))
            now = self._templated(key, learn=False)
            copy = replace(
                flow,
                key=now,
                count=count,
                kept=kept,
                examples=list(flow.examples),
                addresses=list(flow.addresses),
            )
            if now in found:
                found[now].absorb(copy)
            else:
                found[now] = copy
        return sorted(found.values(), key=lambda flow: -flow.count)

    def template(self, namespace: str, workload: str, path: str, *, good: bool) -> str:
        """A path as flows have it. ``good``: of a request that was served."""
        return self._of(namespace, workload).paths[good].of(path) if path else ""

    def _of(self, namespace: str, workload: str) -> _Learned:
        known = self._learned.get((namespace, workload))
        if known is None:
            known = self._learned[namespace, workload] = _Learned(self._limits.texts)
        return known

    def _templated(self, key: FlowKey, *, learn: bool) -> FlowKey:
        """The key as it is made now, after more was learned."""
        if not key.path:
            return key
        good = key.outcome == "ok" and key.decision == "allow"
        templates = self._of(key.namespace, key.workload).paths[good]
        path = templates.learn(key.path) if learn else templates.of(key.path)
        return key if path == key.path else FlowKey(**{**asdict(key), "path": path})

    def _key(self, report: Report) -> FlowKey:
        said, who = report.fields, report.reporter
        decision, policy = decided(said)
        shadow, shadow_policy = tried(said)
        http = "method" in said
        outcome = _outcome(said, http)
        good = outcome == "ok" and decision == "allow"
        learned = self._of(who.identity.namespace, who.workload)
        cluster = ClusterName.parse(said.get("cluster", ""))
        inbound = cluster is not None and cluster.direction == "inbound"
        return FlowKey(
            source=said.get("source", ""),
            kind=who.kind,
            namespace=who.identity.namespace,
            workload=who.workload,
            revision=said.get("revision", ""),
            account=who.identity.service_account,
            service=said.get("service", ""),
            port=cluster.port if cluster is not None and inbound else _number(said.get("port", "")),
            protocol="http" if http else "tcp",
            tls="mtls" if said.get("source") else "tls" if said.get("tls") else "none",
            method=learned.methods[good].learn(said["method"]) if http else "",
            host=learned.hosts[good].learn(said.get("host", "").lower()) if http else "",
            path=learned.paths[good].learn(said["path"]) if http and "path" in said else "",
            sni="" if inbound else learned.hosts[good].learn(said.get("sni", "").lower()),
            decision=decision,
            policy=policy,
            outcome=outcome,
            shadow=shadow,
            shadow_policy=shadow_policy,
        )

    def _exemplify(self, flow: Flow, report: Report) -> None:
        said = report.fields
        path = said.get("path", "")
        if len(flow.examples) < self._limits.examples and all(
            path != example["path"] for example in flow.examples
        ):
            flow.examples.append(
                {
                    "path": path,
                    "host": said.get("host", ""),
                    "method": said.get("method", ""),
                    "code": _number(said.get("code", "")),
                    "requestId": said.get("request_id", ""),
                    "time": report.time_ms,
                }
            )
        pair = [said.get("source_ip", ""), said.get("remote_ip", "")]
        if pair not in flow.addresses:
            if len(flow.addresses) < _ADDRESSES:
                flow.addresses.append(pair)
            else:
                flow.more_addresses = True

    def _make_room(self, owner: tuple[str, str] | None = None) -> None:
        """Forget the twentieth of the flows, of all or of one identity's, that was seen longest ago."""
        known = (flow for flow in self._flows.values() if owner in {None, _owner(flow.key)})
        oldest = sorted(known, key=lambda flow: flow.last)
        for flow in oldest[: max(1, len(oldest) // _EVICTED)]:
            self._drop(flow.key)
            self._losses.flows_evicted += 1

    def _drop(self, key: FlowKey) -> None:
        del self._flows[key]
        self._owned[_owner(key)] -= 1
        self._evicted.append(key)


def _owner(key: FlowKey) -> tuple[str, str]:
    """The identity that tells of it, without its trust domain: the part that a certificate proves."""
    return key.namespace, key.account


def decided(said: Mapping[str, str]) -> tuple[str, str]:
    """``allow`` or ``deny``, and the policy that decided; empty when none did."""
    details = said.get("details", "")
    if details.startswith(_DENIED):
        policy = details.partition("_policy[")[2].removesuffix("]")
        return "deny", "" if policy == "none" else policy
    for words, name in _OTHERS:
        if details.startswith(words):
            return "deny", name
    return "allow", said.get("policy", "")


def tried(said: Mapping[str, str]) -> tuple[str, str]:
    """What policies that are tried out would have come to, and which of them; empty without any."""
    for name in ("deny", "allow"):
        if said.get(f"dry_run_{name}") == "denied":
            return "deny", said.get(f"dry_run_{name}_policy", "")
    if "dry_run_allow" in said or "dry_run_deny" in said:
        return "allow", said.get("dry_run_allow_policy", "")
    return "", ""


def _outcome(said: Mapping[str, str], http: bool) -> str:
    if not http:
        return "failed" if said.get("flags") else "ok"
    code = _number(said.get("code", ""))
    if code >= _FAULT or code == 0 or _number(said.get("grpc", "")) > 0:
        return "failed"
    return "refused" if code >= _ERROR else "ok"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _weight(share: str, *, always: bool) -> int:
    """How many requests one that was told stands for."""
    told = min(_WHOLE, _number(share)) or _WHOLE
    return 1 if always else round(_WHOLE / told)
