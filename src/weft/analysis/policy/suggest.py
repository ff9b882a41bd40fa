"""The least that allows what was seen: an ALLOW policy for each workload that was called.

Callers are named exactly; paths are templates where they have parameters. What was written is then judged:
a flow that it would refuse widens it, with a comment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from weft.analysis.explain.proxies import Bearer
from weft.analysis.policy.judge import Judge, Read, replaced
from weft.analysis.policy.observed import ANY, PARAMETER, Observed
from weft.model.attributes import path as complaint
from weft.model.parse import Part, parse_object
from weft.names import GATEWAY_NAME_LABEL, ROOT_NAMESPACE, WORKLOAD_LABEL
from weft.yaml import Document

_PREFIX: Final = "weft-seen-"
_API: Final = "security.istio.io/v1"
_KIND: Final = "AuthorizationPolicy"
_NAME_LABELS: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app", WORKLOAD_LABEL)
_MOST: Final = 48
_SCHEME: Final = "spiffe://"

Wire = dict[str, Any]
Operation = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Methods, paths, ports, hosts."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A policy, and what is said of it: ``notes`` of the whole, ``counts`` of each rule."""

    policy: Wire
    notes: tuple[str, ...]
    counts: tuple[str, ...] = ()


@dataclass(slots=True)
class _Target:
    """A workload and what it was seen to be called with. ``wide``: prefixes, by the paths they replace."""

    bearer: Bearer
    flows: list[Observed] = field(default_factory=list)
    refused: int = 0
    wide: dict[str, str] = field(default_factory=dict)


def suggest(
    flows: Iterable[Observed], read: Read, *, close: Sequence[str] = (), root: str = ROOT_NAMESPACE
) -> tuple[tuple[Suggestion, ...], tuple[str, ...]]:
    """Policies for what was seen and let pass, and what could not be said by any.

    ``close``: namespaces whose other workloads nobody may call. ``root`` is never one of them: a policy
    there is for the whole mesh.
    """
    judge = Judge(read)
    targets: dict[tuple[str, str, str], _Target] = {}
    lacking: dict[str, None] = {}
    for flow in flows:
        bearer = judge.bearer(flow)
        if bearer is None:
            lacking[f"no workload {flow.workload} is in {flow.namespace} now: {flow.count} requests"] = None
            continue
        if _chosen(bearer, flow) is None:
            lacking[f"{flow.namespace}/{flow.workload} bears no label that a policy could choose it by"] = (
                None
            )
            continue
        target = targets.setdefault((flow.namespace, flow.workload, flow.kind), _Target(bearer))
        if flow.decision == "allow":
            target.flows.append(flow)
        else:
            target.refused += flow.count
    shut = [_shut(namespace) for namespace in dict.fromkeys(close) if namespace != root]
    made = [_suggestion(target) for target in targets.values() if target.flows]
    if _widened(targets.values(), replaced(read, _read([*shut, *made])), judge):
        made = [_suggestion(target) for target in targets.values() if target.flows]
        after = Judge(replaced(read, _read([*shut, *made])))
        for target in targets.values():
            for flow in target.flows:
                if _loses(flow, judge, after):
                    lacking[f"{flow.namespace}/{flow.workload}: {flow.title} would be refused"] = None
    made.sort(key=lambda one: (one.policy["metadata"]["namespace"], one.policy["metadata"]["name"]))
    return (*shut, *made), tuple(lacking)


def _widened(targets: Iterable[_Target], read: Read, now: Judge) -> bool:
    """Have paths that the templates do not fit said as prefixes; whether there are such."""
    after = Judge(read)
    found = False
    for target in targets:
        for flow in target.flows:
            if flow.protocol == "http" and _loses(flow, now, after):
                target.wide[flow.path] = _prefix(flow)
                found = True
    return found


def _loses(flow: Observed, now: Judge, after: Judge) -> bool:
    """Whether a request that is let pass now would not surely be."""
    return any(
        old.allowed and not new.allowed for old, new in zip(now.decide(flow), after.decide(flow), strict=True)
    )


def _prefix(flow: Observed) -> str:
    """What all that was seen of the flow begins with, up to a slash."""
    paths = [flow.path.partition(PARAMETER)[0].partition("{**}")[0], *(one.path for one in flow.examples)]
    common = paths[0]
    for path in paths[1:]:
        while not path.startswith(common):
            common = common[:-1]
    common = common.partition("*")[0].partition("{")[0]
    return common[: common.rfind("/") + 1] + "*"


def _read(suggestions: Iterable[Suggestion]) -> Read:
    read = []
    for one in suggestions:
        resource, problems = parse_object(one.policy)
        assert resource is not None, [str(problem) for problem in problems]
        read.append((Part(Document("suggested", 0, one.policy, {}), one.policy), resource))
    return tuple(read)


def _shut(namespace: str) -> Suggestion:
    policy = {
        "apiVersion": _API,
        "kind": _KIND,
        "metadata": {"name": f"{_PREFIX}nothing-else", "namespace": namespace},
        "spec": {},
    }
    return Suggestion(
        policy,
        (
            f"Nobody may call workloads of {namespace} that no other policy names.",
            "Leave this one out while workloads are not yet seen with all their callers.",
        ),
    )


def _chosen(bearer: Bearer, flow: Observed) -> Wire | None:
    """How the policy chooses the workload; None when its labels do not say who it is."""
    labels = dict(bearer.labels)
    if flow.kind == "router" and (gateway := labels.get(GATEWAY_NAME_LABEL)):
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
        return {"targetRefs": [target]}
    for name in _NAME_LABELS:
        if labels.get(name) and (labels[name] == flow.workload or name == WORKLOAD_LABEL):
            return {"selector": {"matchLabels": {name: labels[name]}}}
    return None


def _suggestion(target: _Target) -> Suggestion:
    first = target.flows[0]
    # A rule that says anything of requests fits no connection of which none are seen: one rule for each.
    by_source: defaultdict[tuple[str, str], list[Observed]] = defaultdict(list)
    for flow in target.flows:
        by_source[flow.source, flow.protocol].append(flow)
    merged: defaultdict[tuple[Operation, ...], list[str]] = defaultdict(list)
    counts: defaultdict[tuple[Operation, ...], int] = defaultdict(int)
    newest: defaultdict[tuple[Operation, ...], int] = defaultdict(int)
    missed: defaultdict[tuple[Operation, ...], list[str]] = defaultdict(list)
    for (source, _), flows in sorted(by_source.items()):
        key = tuple(_operations(flows, target.wide, gateway=first.kind == "router"))
        merged[key].append(source)
        counts[key] += sum(flow.count for flow in flows)
        newest[key] = max(newest[key], *(flow.last for flow in flows))
        missed[key] += _only_refused(flows)
    written: list[Wire] = []
    said: list[str] = []
    for key, sources in merged.items():
        rule: Wire = {}
        if callers := _sources(sources, gateway=first.kind == "router"):
            rule["from"] = callers
        rule["to"] = [{"operation": _operation(one)} for one in key if any(one)]
        if not rule["to"]:
            del rule["to"]
        written.append(rule)
        words = f"{_times(counts[key])}, last {_day(newest[key])}"
        if missed[key]:
            words += f"; never answered well: {', '.join(dict.fromkeys(missed[key]))}"
        said.append(words)
    notes = [f"Seen at {first.workload} in {first.namespace}."]
    if target.refused:
        notes.append(f"{target.refused} requests that were refused then stay so.")
    notes += [
        f"{path} is said as {wide}: no template stands for all that was seen"
        for path, wide in target.wide.items()
    ]
    policy = {
        "apiVersion": _API,
        "kind": _KIND,
        "metadata": {"name": _name(first), "namespace": first.namespace},
        "spec": {**(_chosen(target.bearer, first) or {}), "action": "ALLOW", "rules": written},
    }
    return Suggestion(policy, tuple(notes), tuple(said))


def _operations(flows: Sequence[Observed], wide: dict[str, str], *, gateway: bool) -> list[Operation]:
    """What one caller did, as few operations as say exactly that: paths of the same methods go together."""
    methods: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    found: set[Operation] = set()
    for flow in flows:
        port = "" if gateway else str(flow.port)
        if flow.protocol != "http":
            found.add(((), (), (port,) if port else (), ()))
            continue
        host = flow.host if gateway and flow.host != ANY and "*" not in flow.host else ""
        methods[_path(flow, wide), port, host].add(flow.method)
    together: defaultdict[tuple[tuple[str, ...], str, str], set[str]] = defaultdict(set)
    for (path, port, host), used in methods.items():
        together[() if ANY in used else tuple(sorted(used)), port, host].add(path)
    for (used_methods, port, host), paths in together.items():
        found.add(
            (
                used_methods,
                () if "" in paths else tuple(sorted(paths)),
                (port,) if port else (),
                (host,) if host else (),
            )
        )
    return sorted(found)


def _path(flow: Observed, wide: dict[str, str]) -> str:
    """How a policy says the path; empty for any."""
    path = wide.get(flow.path, flow.path)
    if not path.startswith("/") or complaint(path):
        path = _prefix(flow)
    return "" if path in {ANY, "/*"} else path


def _operation(one: Operation) -> Wire:
    methods, paths, ports, hosts = one
    named = (("hosts", hosts), ("methods", methods), ("paths", paths), ("ports", ports))
    return {name: list(values) for name, values in named if values}


def _sources(sources: Sequence[str], *, gateway: bool) -> list[Wire]:
    """``from``: exact principals, and those who showed no certificate; at a gateway that is anybody."""
    named = sorted(source.removeprefix(_SCHEME) for source in sources if source)
    if gateway and "" in sources:
        return []
    made: list[Wire] = [{"source": {"principals": named}}] if named else []
    if "" in sources:
        made.append({"source": {"notPrincipals": ["*"]}})
    return made


def _only_refused(flows: Sequence[Observed]) -> list[str]:
    """What was let pass and never answered well: perhaps a scan, and nothing to allow."""
    good = {(flow.method, flow.path) for flow in flows if flow.outcome == "ok"}
    return [flow.title for flow in flows if flow.protocol == "http" and (flow.method, flow.path) not in good]


def _name(flow: Observed) -> str:
    kept = "".join(char if char.isalnum() or char == "-" else "-" for char in flow.workload.lower())
    gateway = "gateway-" if flow.kind == "router" else ""
    return f"{_PREFIX}{gateway}{kept[:_MOST].strip('-')}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
