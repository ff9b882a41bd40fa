"""What a change would have done to the traffic that was seen: the same flows, judged before and after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from weft.analysis.policy.judge import Decision, Judge, Read
from weft.analysis.policy.observed import Observed

KINDS: Final = ("denied", "allowed", "unknown", "dryRun")


@dataclass(frozen=True, slots=True)
class Change:
    """A flow of which something else is decided. ``kind``: ``allowed``, ``denied``, ``unknown``, ``dryRun``.

    ``unknown``: the change may matter to it, but that depends on what was not recorded. ``paths``: of the
    examples that it is about; ``whole``: those are all.
    """

    kind: str
    flow: Observed
    before: Decision
    after: Decision
    paths: tuple[str, ...]
    whole: bool

    def json(self) -> dict[str, Any]:
        """As it is printed."""
        shown = {"change": self.kind, **self.flow.json(), "examples": list(self.paths), "whole": self.whole}
        if self.kind == "dryRun":
            return shown | {
                "dryRun": {"decision": self.after.dry_run, "policy": self.after.dry_run_policy},
                "before": {"decision": self.before.dry_run, "policy": self.before.dry_run_policy},
            }
        return shown | {"before": self.before.json(), "after": self.after.json()}


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome: ``changes`` by kind, most frequent first, out of ``looked_at`` flows."""

    looked_at: int
    requests: int
    changes: tuple[Change, ...]

    def of(self, kind: str) -> tuple[Change, ...]:
        """Those of a kind."""
        return tuple(change for change in self.changes if change.kind == kind)

    def json(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "flows": self.looked_at,
            "requests": self.requests,
            **{kind: [change.json() for change in self.of(kind)] for kind in KINDS},
        }


def replay(flows: Iterable[Observed], before: Read, after: Read) -> Replay:
    """Judge each flow in both meshes. Neither need ever have run."""
    now, then = Judge(before), Judge(after)
    changes: list[Change] = []
    known = tuple(flows)
    for flow in known:
        rows = list(zip(now.examples(flow), now.decide(flow), then.decide(flow), strict=True))
        for kind in KINDS:
            fitting = [row for row in rows if _kind(row[1], row[2]) == kind]
            if fitting:
                _, old, new = fitting[0]
                paths = tuple(
                    dict.fromkeys(one.path for one, _, _ in fitting if one.path and one in flow.examples)
                )
                changes.append(Change(kind, flow, old, new, paths, len(fitting) == len(rows)))
    changes.sort(key=lambda change: -change.flow.count)
    return Replay(len(known), sum(flow.count for flow in known), tuple(changes))


def _kind(old: Decision, new: Decision) -> str:
    """How a decision differs; empty when it does not."""
    if old.allowed is not None and new.allowed is not None:
        if old.allowed != new.allowed:
            return "allowed" if new.allowed else "denied"
        return "dryRun" if (new.dry_run, new.dry_run_policy) != (old.dry_run, old.dry_run_policy) else ""
    return "unknown" if (old.allowed, old.policy, old.rule) != (new.allowed, new.policy, new.rule) else ""
