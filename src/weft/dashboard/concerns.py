"""What needs a look: rows of the overview, each with the page that says more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from weft.dashboard import figures
from weft.dashboard.certificates import ending
from weft.dashboard.decisions import denials
from weft.dashboard.departures import Departure
from weft.dashboard.onset import changes_before

_WORST: Final = ("NACK", "STALE")
_FINDINGS: Final = 6
_DENIALS: Final = 3


def _concern(
    level: str, what: str, detail: str, href: str = "", *, reference: Mapping[str, Any] | None = None,
    time_ms: object = None, changes: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    return {
        "level": level, "what": what, "detail": detail, "href": href, "reference": reference, "time": time_ms,
        "changes": list(changes),
    }  # fmt: skip


_HEADS: Final = {
    "success": "{name}: more requests fail",
    "refused": "{name}: more requests are refused",
    "latency": "{name}: slower than before",
    "traffic": "{name}: requests stay away",
}


def of_departures(
    departed: Sequence[Departure], begun: Sequence[float | None], changes: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Services that do otherwise than before; ``begun``: when the first of them began to, in ms."""
    dates = [*begun, *(None for _ in departed[len(begun) :])]
    for one, since in zip(departed, dates, strict=True):
        show = {
            "success": figures.share,
            "refused": figures.share,
            "latency": figures.milliseconds,
            "traffic": figures.count,
        }[one.what]
        word = {"success": "success", "refused": "4xx", "latency": "p95", "traffic": "requests"}[one.what]
        head = _HEADS[one.what] if one.news else "{name}: requests fail"
        before = f"; {show(one.before)} in the hour before" if one.before is not None else ""
        if one.what == "traffic":
            before = f"; about {show(one.before)} were usual in the hour before"
        yield _concern(
            "bad" if one.what == "success" else "fair",
            head.format(name=one.name or "What leads nowhere"),
            f"{word} {show(one.now)} in the last 2 minutes{before}",
            figures.link("services", one.namespace, one.name) if one.namespace else "/graph",
            time_ms=since,
            changes=changes_before(changes, since) if since is not None else (),
        )


def of_denials(flows: list[Any]) -> Iterator[dict[str, Any]]:
    """Callers that were denied by a policy in effect."""
    rows = [row for row in denials(flows) if not row["dry"]]
    for row in rows[:_DENIALS]:
        namespace, name, _ = figures.policy(row["policy"])
        who = figures.principal(row["source"]) if row["source"] else "a caller without an identity"
        by = f"the policy {name}" if name else "its policies, none of which allows it"
        policy = {"kind": "AuthorizationPolicy", "namespace": namespace, "name": name}
        yield _concern(
            "fair",
            f"{row['workload']} denies {who}",
            f"by {by}: {', '.join(row['requests'])}",
            "/security",
            reference=policy if namespace else None,
            time_ms=row["last"],
        )


def of_proxies(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Proxies that do not run what they were sent."""
    for row in rows:
        for kind, status in row["types"].items():
            if status["status"] in _WORST:
                refused = status["status"] == "NACK"
                yield _concern(
                    "bad" if refused else "fair",
                    f"{row['name']} {'refuses' if refused else 'has not yet confirmed'} its {kind.upper()}",
                    status["error"] or "sent, and not acknowledged so far",
                    figures.link("proxies", row["namespace"], row["name"]),
                    time_ms=(status["sentAt"] or 0) * 1000 or None,
                )


def of_certificates(authority: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Certificates that end, what the authority warns of, and nodes that are away."""
    now = time.time() * 1000
    for one in ending(authority, now):
        over = (figures.instant(one["notAfter"]) or 0) < now
        yield _concern(
            "bad" if over else "fair",
            f"the certificate of {one['part']} {'is over' if over else 'ends within the hour'}",
            f"on the node {one['node']}",
            "/security",
            time_ms=one["notAfter"],
        )
    for warning in authority["warnings"]:
        yield _concern("fair", "the authority", str(warning), "/security")
    for node in authority["nodes"]:
        if not node["connected"]:
            yield _concern("fair", f"the node {node['name']} is not connected", "", "/security")


def of_findings(findings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is wrong with the configuration, errors first."""
    ordered = sorted(findings, key=lambda one: one["level"] != "Error")
    for one in ordered[:_FINDINGS]:
        kind, _, rest = str(one["origin"]).partition(" ")
        namespace, slash, name = rest.partition("/")
        yield _concern(
            "bad" if one["level"] == "Error" else "fair",
            one["origin"] or one["code"],
            one["message"],
            "/configuration",
            reference={"kind": kind, "namespace": namespace if slash else "", "name": name or namespace},
        )
    if len(ordered) > _FINDINGS:
        more = len(ordered) - _FINDINGS
        what = f"{more} more {'finding' if more == 1 else 'findings'} about the configuration"
        yield _concern("fair", what, "", "/configuration")
