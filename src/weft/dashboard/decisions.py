"""What policies decided: rows of flows in, rows for tables out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_EXAMPLES: Final = 3


def denials(flows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Who was denied what by which policy (``dry``: would have been), the newest first.

    ``requests`` are the most frequent of what they asked for, ``more`` how many other such there were.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in sorted(flows, key=lambda flow: -flow["count"]):
        dry = one["decision"] != "deny"
        if dry and one.get("shadow") != "deny":
            continue
        policy = one["shadow_policy"] if dry else one["policy"]
        key = one["source"], one["namespace"], one["workload"], policy, dry
        row = found.setdefault(
            key,
            {
                "source": one["source"],
                "namespace": one["namespace"],
                "workload": one["workload"],
                "policy": policy,
                "dry": dry,
                "count": 0,
                "last": 0,
                "requests": [],
                "more": 0,
            },
        )
        row["count"] += one["count"]
        row["last"] = max(row["last"], one["last"])
        asked = f"{one['method']} {one['path']}" if one["method"] else one["sni"] or f"port {one['port']}"
        if asked not in row["requests"]:
            if len(row["requests"]) < _EXAMPLES:
                row["requests"].append(asked)
            else:
                row["more"] += 1
    return sorted(found.values(), key=lambda row: -row["last"])


def decisions(flows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By workload and policy: how many requests each allowed and denied. No policy is ``""``."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in flows:
        key = one["namespace"], one["workload"], one["policy"]
        row = found.setdefault(
            key,
            {"namespace": key[0], "workload": key[1], "policy": key[2], "allow": 0, "deny": 0, "last": 0},
        )
        if one["decision"] in {"allow", "deny"}:
            row[one["decision"]] += one["count"]
        row["last"] = max(row["last"], one["last"])
    return sorted(found.values(), key=lambda row: (-row["deny"], -row["allow"], row["workload"]))
