"""Why a service or workload fails or waits: from what its calls came to, to the resource that decides it.

Pure: answers of telemetry and a report of ``weft describe`` in, rows for the page out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from weft.dashboard import figures

Wire = Mapping[str, Any]
Words = Callable[[str], list[dict[str, str]]]

_SLOW_MS: Final = 250
_MOST_OF_IT: Final = 0.6
_FAILING: Final = 0.01
_NAMED: Final = 3
_ENCRYPTS: Final = frozenset({"ISTIO_MUTUAL", "MUTUAL", "SIMPLE"})
# Flags that say how a failure ended, beside the one that says what it was.
_LAST: Final = frozenset({"URX", "DI"})
_BROKEN: Final = frozenset({"UC", "UF", "UR", "UPE"})
_NOWHERE: Final = frozenset({"NC", "NR"})
# Of the same name as a service, and without a say in where its requests go.
_ASIDE: Final = frozenset({"ServiceAccount", "Namespace", "Secret", "ConfigMap"})
_ROUTING: Final = frozenset({"VirtualService", "DestinationRule", "HTTPRoute", "GRPCRoute", "ServiceEntry"})


@dataclass(frozen=True, slots=True)
class Way:
    """A link of a cause: to a ``resource`` (kind, namespace, name), or ``href``."""

    words: str
    href: str = ""
    resource: Wire | None = None


_DECISIONS: Final = Way("Decisions", "/security")


@dataclass(frozen=True, slots=True)
class Cause:
    """``what`` and ``detail`` are sentences; ``tag`` a code or flag; ``count`` how many requests."""

    what: str
    detail: str = ""
    level: str = "bad"
    tag: str = ""
    count: int | None = None
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of something called ``name``.

    ``inbound`` and ``outbound`` are edges that end and begin at it, with what failed as their callers saw it;
    ``total`` its own signals; ``reports`` those of the services that it is or is part of; ``denied`` rows of
    security.denials; ``findings`` of the whole configuration; ``words`` what flags of Envoy mean.
    """

    namespace: str
    name: str
    words: Words
    inbound: Sequence[Wire] = ()
    outbound: Sequence[Wire] = ()
    total: Wire | None = None
    codes: Sequence[Wire] = ()
    reports: Sequence[Wire] = ()
    denied: Sequence[Wire] = ()
    findings: Sequence[Wire] = ()

    def all(self, name: str) -> list[Wire]:
        """What all reports list under a name."""
        return [one for report in self.reports for one in report.get(name) or ()]


def causes(told: Evidence) -> list[Cause]:
    """The most telling first; nothing where nothing is wrong."""
    unreachable = list(_unreachable(told))
    return [
        *unreachable,
        *_flagged(told, unreachable=bool(unreachable)),
        *_denied(told),
        *_callees(told),
        *_answers(told),
        *_slow(told),
    ]


def _unreachable(told: Evidence) -> Iterator[Cause]:
    for report in told.reports:
        endpoints = report.get("endpoints")
        if endpoints and not any(one["health"] == "healthy" for one in endpoints):
            states = Counter(one["health"] or "not running" for one in endpoints)
            yield Cause(
                "No endpoint of it is healthy",
                ", ".join(f"{number} {state}" for state, number in states.most_common()),
                ways=tuple(
                    Way(
                        f"Proxy {one['workload']['name']}",
                        figures.link("proxies", one["workload"]["namespace"], one["workload"]["name"]),
                    )
                    for one in endpoints[:_NAMED]
                ),
            )


def _flagged(told: Evidence, *, unreachable: bool) -> Iterator[Cause]:
    """Failures that a proxy gave a reason for, as callers saw them. ``unreachable``: one is told already."""
    found: Counter[str] = Counter()
    failed: set[str] = set()
    callers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    plain: Counter[str] = Counter()
    for edge in told.inbound:
        for one in edge.get("failures", ()):
            if flags := one["flags"]:
                flag = next((word["flag"] for word in _words(told, flags)), flags)
                found[flag] += one["requests"]
                failed.update({flag} if one["failed"] else ())
                callers[flag][edge["source"]["workload"] or "somebody outside"] += one["requests"]
                plain[flag] += 0 if edge["secured"] or edge["mtls"] is None else one["requests"]
    for flag, number in found.most_common():
        words = told.words(flag)
        who = ", ".join(name for name, _ in callers[flag].most_common(_NAMED))
        asked = f"Callers: {who}."
        if flag == "UH" and unreachable:
            continue
        clash = _clash(told) if flag in _BROKEN and plain[flag] * 2 > number else None
        if clash is not None:
            yield Cause(clash.what, f"{clash.detail} {asked}", "bad", flag, number, clash.ways)
            continue
        meaning = _sentence(words[0]["meaning"]) if words else "A proxy broke it off"
        remedy = f"{_sentence(words[0]['remedy'])}. " if words else ""
        level = "bad" if flag in failed else "fair"
        yield Cause(meaning, remedy + asked, level, flag, number, tuple(_suspects(told, flag)))


def _clash(told: Evidence) -> Cause | None:
    """Callers that speak plain text to what demands mutual TLS."""
    strict = [one for one in told.all("mutualTls") if one["mode"] == "STRICT"]
    if not strict:
        return None
    rules = [
        one for one in told.all("destinationRules") if one["tls"] and one["tls"] not in _ENCRYPTS - {"SIMPLE"}
    ]
    decided = [one["decidedBy"] for one in strict if one.get("decidedBy")]
    why = (
        f"{rules[0]['kind']} {rules[0]['name']} says tls {rules[0]['tls']}."
        if rules
        else "Either they have no sidecar, or their configuration lets them."
    )
    return Cause(
        "Its callers do not speak mutual TLS, and it demands that",
        why,
        ways=(*_refs(rules), *_refs(decided)),
    )


def _suspects(told: Evidence, flag: str) -> Iterator[Way]:
    """Resources that decide about such a failure."""
    routes = [*told.all("virtualServices"), *told.all("routes")]
    if flag in {"FI", "DI", "UT", "UMSDR"}:
        mark = "injects" if flag in {"FI", "DI"} else "timeout"
        yield from _refs(route for route in routes if any(does.startswith(mark) for does in _does(route)))
    elif flag in {"UO", "UH"}:
        yield from _refs(one for one in told.all("destinationRules") if one["policy"])
    elif flag in {"RL", "RLSE", "UAEX"}:
        kind = "AuthorizationPolicy" if flag == "UAEX" else "RateLimit"
        yield from _refs(one for one in told.all("policies") if one["kind"] == kind)
    elif flag in _NOWHERE:
        yield from _refs(routes)
    if flag in {"UH", "UF", "UC"}:
        for one in told.all("endpoints")[:_NAMED]:
            at = one["workload"]
            yield Way(f"Proxy {at['name']}", figures.link("proxies", at["namespace"], at["name"]))


def _does(route: Wire) -> Iterator[str]:
    for rule in route["rules"]:
        yield from rule["does"]


def _denied(told: Evidence) -> Iterator[Cause]:
    for row in told.denied:
        namespace, name, _ = figures.policy(row["policy"])
        who = figures.principal(row["source"]) if row["source"] else "a caller without an identity"
        policy = {"kind": "AuthorizationPolicy", "namespace": namespace, "name": name}
        yield Cause(
            f"{'A dry run would deny' if row['dry'] else 'A policy denies'} requests of {who}",
            f"{', '.join(row['requests'])}{' and others' if row['more'] else ''}. "
            + ("" if name else "No policy allows it: one with the action ALLOW has to."),
            "fair" if row["dry"] else "bad",
            "403",
            row["count"],
            (Way(f"AuthorizationPolicy {name}", resource=policy) if namespace else _DECISIONS,),
        )


def _callees(told: Evidence) -> Iterator[Cause]:
    """What it calls fails."""
    failed: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    asked: Counter[tuple[str, str, str]] = Counter()
    for edge in told.outbound:
        service = edge["service"]
        key = service["namespace"], service["name"], service["host"]
        asked[key] += edge["requests"]
        for one in edge.get("failures", ()):
            failed[key][one["flags"] or one["code"]] += one["requests"]
        if not edge.get("failures") and edge["errors"]:
            failed[key]["5xx"] += edge["errors"]
    for key, reasons in sorted(failed.items(), key=lambda item: -sum(item[1].values())):
        number = sum(reasons.values())
        if number < asked[key] * _FAILING:
            continue
        (tag, _), *_ = reasons.most_common(1)
        words = _words(told, tag)
        meaning = f"{_sentence(words[0]['meaning'])}. " if words else ""
        namespace, name, host = key
        share = figures.share(number / asked[key]) if asked[key] else "all"
        if name:
            way = Way(f"Service {name}", figures.link("services", namespace, name))
            yield Cause(f"It calls {name}, of which {share} fail", meaning, "bad", tag, number, (way,))
        elif host:
            yield Cause(f"It calls {host}, of which {share} fail", meaning, "bad", tag, number)
        else:
            remedy = f"{_sentence(words[0]['remedy'])}." if words else ""
            found = [one for one in told.findings if str(one["origin"]).partition(" ")[0] in _ROUTING]
            ways = tuple(
                Way(f"{one['origin']}: {one['message']}", resource=_origin(one)) for one in found[:_NAMED]
            )
            yield Cause("What it calls leads nowhere", meaning + remedy, "bad", tag, number, ways)


def _answers(told: Evidence) -> Iterator[Cause]:
    """Failures without a reason of a proxy's: answers of the application."""
    own: Counter[str] = Counter()
    for edge in told.inbound:
        for one in edge.get("failures", ()):
            if not one["flags"] and one["failed"]:
                own[f"gRPC {one['grpc']}" if one["grpc"] else one["code"]] += one["requests"]
    if not told.inbound:
        own.update({row["key"]: row["errors"] for row in told.codes if row["errors"]})
    by_others = any(edge["errors"] or edge.get("failures") for edge in told.outbound)
    for code, number in own.most_common(_NAMED):
        if not number:
            continue
        why = (
            "Most likely because of what it calls, as said above."
            if by_others
            else "No proxy had a hand in it: the log of the application says why."
        )
        yield Cause(
            f"Its application answers {code}",
            why,
            "fair" if by_others else "bad",
            code,
            number,
            (_traces(told, errors="1"),),
        )


def _slow(told: Evidence) -> Iterator[Cause]:
    """What most of a long answer is spent with."""
    total = told.total
    if not total or not total["p95"] or total["p95"] < _SLOW_MS:
        return
    slowest = [
        edge
        for edge in told.outbound
        if edge["service"]["name"] and (edge["p95"] or 0) > total["p95"] * _MOST_OF_IT
    ]
    for edge in sorted(slowest, key=lambda one: -one["p95"])[:_NAMED]:
        service = edge["service"]
        way = Way(
            f"Service {service['name']}", figures.link("services", service["namespace"], service["name"])
        )
        yield Cause(
            f"It waits for {service['name']}",
            f"p95 of that {figures.milliseconds(edge['p95'])}, its own {figures.milliseconds(total['p95'])}",
            "fair",
            ways=(way,),
        )
    delays = [route for route in told.all("virtualServices") if "injects delays" in _does(route)]
    if delays:
        yield Cause("A route delays its requests on purpose", "", "fair", "DI", ways=tuple(_refs(delays)))
    elif not slowest:
        yield Cause(
            "It is slow of its own",
            f"p95 {figures.milliseconds(total['p95'])}, and nothing that it calls takes as long",
            "fair",
            ways=(_traces(told, sort="slowest"),),
        )


def related(changes: Iterable[Wire], told: Evidence) -> list[Wire]:
    """Changes of what decides about it, and of itself; the newest first."""
    known = {
        (one["kind"], one["namespace"], one["name"])
        for list_of in ("virtualServices", "routes", "destinationRules", "policies")
        for one in told.all(list_of)
    }
    deciders = [one["decidedBy"] for one in told.all("mutualTls") if one.get("decidedBy")]
    known |= {(one["kind"], one["namespace"], one["name"]) for one in deciders}
    itself = told.namespace, told.name
    return [
        one
        for one in changes
        if (one["kind"], one["namespace"], one["name"]) in known
        or (one["kind"] not in _ASIDE and (one["namespace"], one["name"]) == itself)
    ]


def _words(told: Evidence, flags: str) -> list[dict[str, str]]:
    """What flags mean, those first that say what it was."""
    return sorted(told.words(flags), key=lambda one: one["flag"] in _LAST)


def _traces(told: Evidence, **query: str) -> Way:
    words = "Failed traces" if "errors" in query else "Slowest traces"
    return Way(words, figures.link("traces", service=f"{told.namespace}/{told.name}", **query))


def _refs(found: Iterable[Wire]) -> Iterator[Way]:
    seen: set[tuple[str, str, str]] = set()
    for one in found:
        key = one["kind"], one["namespace"], one["name"]
        if one["kind"] and key not in seen:
            seen.add(key)
            yield Way(f"{one['kind']} {one['name']}", resource=one)


def _origin(finding: Wire) -> Wire:
    kind, _, rest = str(finding["origin"]).partition(" ")
    namespace, slash, name = rest.partition("/")
    return {"kind": kind, "namespace": namespace if slash else "", "name": name or namespace}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
