"""Telemetry of a mesh that does not exist: answers as docs/reference/telemetry.md has them, always the same."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

NOW = 1_800_000_000_000
WINDOW = 60_000

Json = dict[str, Any]


def signals(rps: float, *, failing: float = 0.0, p95: float = 20.0, mtls: float | None = 1.0) -> Json:
    """How a call did; ``failing`` is the share of errors."""
    requests = round(rps * WINDOW / 1000)
    errors = round(requests * failing)
    return {
        "requests": requests, "rps": rps, "errors": errors, "refused": 0,
        "success": None if not requests else 1 - errors / requests,
        "mean": p95 / 3, "p50": p95 / 4, "p95": p95, "p99": p95 * 2, "mtls": mtls,
        "opened": 0, "closed": 0, "connections": 0, "sent": 0, "received": 0,
        "sentPerSecond": 0.0, "receivedPerSecond": 0.0,
    }  # fmt: skip


def who(namespace: str, workload: str, *, app: str = "", version: str = "v1", kind: str = "workload") -> Json:
    """An end of a call; outside of the mesh it has no identity."""
    app = app or workload
    account = f"spiffe://cluster.local/ns/{namespace}/sa/{app}"
    inside = kind in {"workload", "gateway"}
    return {
        "namespace": namespace, "workload": workload, "app": app, "version": version,
        "principal": account if inside else "", "kind": kind, "sure": inside,
    }  # fmt: skip


def service(namespace: str, name: str) -> Json:
    """The service that was called; one with a dot in its name is outside of the mesh."""
    host = name if "." in name else f"{name}.{namespace}.svc.cluster.local"
    return {"name": name, "namespace": namespace, "host": host}


@dataclass
class InventedMesh:
    """``edges`` and ``workloads`` are the answers; more can be added at any time."""

    workloads: list[Json] = field(default_factory=list)
    services: list[Json] = field(default_factory=list)
    edges: list[Json] = field(default_factory=list)

    def add(
        self, namespace: str, app: str, *versions: str, kind: str = "workload", **told: Any
    ) -> list[Json]:
        """A service with a workload for each of its versions; their ends of calls."""
        made = []
        for version in versions or ("v1",):
            name = f"{app}-{version}" if kind == "workload" else app
            end = who(namespace, name, app=app, version=version, kind=kind)
            made.append(end)
            self.workloads.append({
                **{key: end[key] for key in ("namespace", "workload", "app", "version", "kind")},
                "principals": [end["principal"]], "services": [app], "instances": 1, "lastSeen": NOW,
                "seenBy": "destination", "inbound": signals(**told), "outbound": signals(0),
            })  # fmt: skip
        if kind == "workload":
            names = [end["workload"] for end in made]
            self.services.append(
                {**service(namespace, app), "workloads": names, "seenBy": "destination",
                 "inbound": signals(**told)}
            )  # fmt: skip
        return made

    def call(self, source: Json, destination: Json, *, of: Json | None = None, **told: Any) -> None:
        """A call between two ends; ``of`` is the service, else that of the destination's app."""
        told = {"rps": 5.0, **told}
        called = of or service(destination["namespace"], destination["app"])
        self.edges.append({
            "source": source, "destination": destination, "service": called, "protocol": "http",
            "toldBy": ["source", "destination"], "seenBy": "source",
            "secured": told.get("mtls", 1.0) == 1.0, "lastSeen": NOW, **signals(**told),
        })  # fmt: skip

    def answer(self, question: str, _asked: Json | None = None) -> Json:
        """What telemetry would say."""
        head = {"from": NOW - WINDOW, "to": NOW, "window": WINDOW}
        if question == "edges":
            return {**head, "edges": self.edges}
        if question == "workloads":
            total = signals(sum(edge["rps"] for edge in self.edges))
            return {**head, "workloads": self.workloads, "services": self.services, "total": total}
        if question == "series":
            return series(_asked or {})
        if question == "changes":
            return {"from": NOW - 3_600_000, "to": NOW, "changes": [
                {"time": NOW - 1_500_000, "who": "alice", "verb": "update", "kind": "VirtualService",
                 "group": "networking.istio.io", "namespace": "shop", "name": "reviews", "revision": 42},
            ]}  # fmt: skip
        if question in {"stat", "traces", "flows", "records"}:
            return {**head, {"stat": "rows"}.get(question, question): [], "total": signals(0)}
        return head


def series(asked: Json) -> Json:
    """An answer of ``series`` for an hour: waves, with a gap and a bad minute."""
    metric = asked.get("metric", "requests")
    step = 30_000
    times = list(range(NOW - 3_600_000, NOW, step))
    answer: Json = {"metric": metric, "unit": "", "from": times[0], "to": NOW, "step": step, "times": times}
    if metric == "latency":
        bounds = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000]
        counts = []
        for place in range(len(times)):
            middle = 4 + 2 * math.sin(place / 9) + (3 if 60 < place < 68 else 0)
            counts.append([round(60 * math.exp(-((row - middle) ** 2) / 1.6)) for row in range(16)])
        return {**answer, "bounds": bounds, "series": [{"key": "", "counts": counts}]}

    def value(place: int, number: int) -> float | None:
        if 30 <= place < 33:
            return None
        wave = 10 + 4 * math.sin(place / 7 + number) + 2 * math.sin(place / 3) + number * 3
        bad = 60 < place < 68
        if metric == "success":
            return 0.93 if bad else 0.9995
        return wave * (3 if bad and metric.startswith("p") else 1)

    keys = ["v1", "v2", "v3"] if asked.get("by") else [""]
    made = [
        {"key": key, "values": [value(place, number) for place in range(len(times))]}
        for number, key in enumerate(keys)
    ]
    return {**answer, "series": made}


def shop() -> InventedMesh:
    """A gateway and a few services: two versions, a plaintext caller, one that fails, one from outside."""
    mesh = InventedMesh()
    (gateway,) = mesh.add("istio-system", "istio-ingressgateway", kind="gateway", rps=20)
    (front,) = mesh.add("shop", "frontend", rps=20, p95=48)
    one, two, three = mesh.add("shop", "reviews", "v1", "v2", "v3", rps=6, p95=22)
    (orders,) = mesh.add("shop", "orders", rps=4, failing=0.12, p95=380)
    (stock,) = mesh.add("shop", "stock", rps=9, p95=6)
    (ratings,) = mesh.add("shop", "ratings", rps=12, failing=0.004, p95=9)
    (ledger,) = mesh.add("bank", "ledger", rps=4, failing=0.2, p95=300)
    outside = who("", "", app="", version="", kind="outside")
    mesh.call(outside, gateway, of={"name": "", "namespace": "", "host": ""}, rps=20, mtls=0.0)
    mesh.call(gateway, front, rps=20, p95=52)
    for end, rps in ((one, 9.0), (two, 6.0), (three, 3.0)):
        mesh.call(front, end, rps=rps, p95=24)
        mesh.call(end, ratings, rps=rps / 2, failing=0.004)
    mesh.call(front, orders, rps=4, failing=0.12, p95=390)
    mesh.call(front, stock, rps=7)
    mesh.call(orders, stock, rps=2, mtls=0.4)
    mesh.call(orders, ledger, rps=4, failing=0.2)
    away = who("", "", app="", version="", kind="outside")
    mesh.call(ledger, away, of=service("", "api.cards.example.com"), rps=3, mtls=0.0, p95=140)
    return mesh


def city(services: int = 100, namespaces: int = 8) -> InventedMesh:
    """A mesh as large as that: teams with tiers of their own, that call each other too; the same each time."""
    throw = random.Random(7)  # noqa: S311 - no secret
    mesh = InventedMesh()
    (gateway,) = mesh.add("istio-system", "istio-ingressgateway", kind="gateway", rps=200)
    words = ("cart", "price", "stock", "user", "order", "search", "media", "ledger", "quota", "audit", "mail")
    teams: list[list[list[Json]]] = [[[], [], [], []] for _ in range(namespaces)]
    for number in range(services):
        name = f"{words[number % len(words)]}-{number:02d}"
        failing = 0.08 if number % 17 == 5 else 0.004 if number % 13 == 4 else 0.0
        team = number % namespaces
        (end,) = mesh.add(f"team-{team}", name, rps=1 + number % 40, failing=failing)
        teams[team][min(3, number // namespaces // 2)].append(end)
    for team, tiers in enumerate(teams):
        if team % 2 == 0:
            for end in tiers[0]:
                mesh.call(gateway, end, rps=throw.randrange(1, 60))
        for upper, lower in zip(tiers, tiers[1:], strict=False):
            for end in lower:
                for caller in throw.sample(upper, min(len(upper), throw.choice((1, 1, 2)))):
                    failing = throw.choice((0, 0, 0, 0, 0.002, 0.05))
                    mesh.call(caller, end, rps=throw.randrange(1, 30), failing=failing)
        following = teams[(team + 1) % namespaces] if team % 2 == 0 else teams[(team + 3) % namespaces]
        for caller in throw.sample(tiers[1], 2) if len(tiers[1]) > 1 else tiers[1]:
            mesh.call(caller, throw.choice(following[0] if team % 2 == 0 else following[2]), rps=4)
    mesh.call(teams[0][2][0], teams[0][0][0], rps=1)
    return mesh
