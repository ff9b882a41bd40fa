"""Telemetry of a mesh that does not exist: answers as docs/reference/telemetry.md has them."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Any

TRACE = "99aed65219fd774d300ab9a284fb0737"
REQUEST = "2a663c2e-7f10-4b8e-9f0e-3f2b1c4d5e6f"
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
    spans: list[Json] = field(default_factory=list)
    traces: list[Json] = field(default_factory=list)
    records: list[Json] = field(default_factory=list)

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
        if question == "trace":
            known = (_asked or {}).get("id") == TRACE
            return {"trace": TRACE, "spans": self.spans if known else []}
        if question == "traces":
            return {**head, "traces": self.traces}
        if question == "records":
            return {"records": self.records}
        if question in {"stat", "flows"}:
            return {**head, {"stat": "rows"}.get(question, question): [], "total": signals(0)}
        return head


def span(number: int, parent: int, name: tuple[str, str], start: float, took: float, **said: str) -> Json:
    """A span of the invented trace; ``start`` and ``took`` in ms, ``parent`` 0 for none."""
    namespace, service_name = name
    router = service_name == "istio-ingressgateway"
    path = said.pop("path", "/api/orders/7")
    attributes = {
        "component": "proxy", "http.method": "GET", "http.status_code": "200", "response_flags": "-",
        "http.url": f"http://{service_name}{path}?card=4111",
        "guid:x-request-id": REQUEST,
        "node_id": f"{'router' if router else 'sidecar'}~10.0.0.{number}~{service_name}.{namespace}~local",
    }  # fmt: skip
    attributes |= {key.replace("__", "."): value for key, value in said.items() if key != "kind"}
    return {
        "namespace": namespace, "service": service_name, "instance": f"{service_name}-0",
        "spanId": f"{number:016x}", "parentId": f"{parent:016x}" if parent else "",
        "name": f"{service_name}:80/*", "kind": said.get("kind", "client"),
        "startUs": NOW * 1000 + round(start * 1000), "durationUs": round(took * 1000),
        "status": "error" if attributes["http.status_code"][0] == "5" else "unset", "attributes": attributes,
    }  # fmt: skip


def order_trace() -> list[Json]:
    """A gateway and three services; the last answers 503, and was asked three times."""
    gateway, front, orders, ledger = (
        ("istio-system", "istio-ingressgateway"), ("shop", "frontend-v1"), ("shop", "orders-v1"),
        ("bank", "ledger-v1"),
    )  # fmt: skip
    source = "spiffe://cluster.local/ns/shop/sa/frontend"
    return [
        span(1, 0, gateway, 0, 412, http__status_code="500"),
        span(2, 1, front, 2, 408, kind="server", http__status_code="500", upstream_cluster="inbound|80||"),
        span(3, 2, front, 40, 360, http__status_code="500", upstream_cluster="outbound|80||orders"),
        span(4, 3, orders, 42, 356, kind="server", http__status_code="500", weft__source=source,
             upstream_cluster="inbound|80||"),
        span(5, 4, orders, 60, 330, http__status_code="503", response_flags="UF,URX", weft__attempts="3",
             upstream_cluster="outbound|80||ledger"),
        span(6, 5, ledger, 64, 96, kind="server", http__status_code="503", upstream_cluster="inbound|80||"),
        span(7, 2, front, 8, 24, path="/stock/7", upstream_cluster="outbound|80||stock"),
    ]  # fmt: skip


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
    mesh.spans = order_trace()
    mesh.records = [{
        "time": NOW, "namespace": "shop", "workload": "orders-v1", "method": "GET", "path": "/api/orders/7",
        "code": "500", "decision": "allow", "policy": "ns[shop]-policy[orders]-rule[0]", "flags": "URX",
        "source": "spiffe://cluster.local/ns/shop/sa/frontend", "request_id": REQUEST, "trace": TRACE,
    }]  # fmt: skip
    mesh.traces = [
        {"trace": TRACE if not number else f"{number:032x}", "start": NOW - number * 4000,
         "duration": 412.0 / (1 + number), "spans": 7 - number % 3, "errors": 4 if not number else 0,
         "services": ["istio-system/istio-ingressgateway", "shop/frontend-v1", "shop/orders-v1"],
         "root": {"namespace": "istio-system", "service": "istio-ingressgateway", "instance": "",
                  "title": "GET /api/orders/7", "code": "500" if not number else "200"}}
        for number in range(12)
    ]  # fmt: skip
    return mesh


def city(services: int = 100, namespaces: int = 8) -> InventedMesh:
    """A mesh as large as that: teams with tiers of their own, that call each other too."""
    throw = random.Random(7)
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
        for upper, lower in itertools.pairwise(tiers):
            for end in lower:
                for caller in throw.sample(upper, min(len(upper), throw.choice((1, 1, 2)))):
                    failing = throw.choice((0, 0, 0, 0, 0.002, 0.05))
                    mesh.call(caller, end, rps=throw.randrange(1, 30), failing=failing)
        following = teams[(team + 1) % namespaces] if team % 2 == 0 else teams[(team + 3) % namespaces]
        for caller in throw.sample(tiers[1], 2) if len(tiers[1]) > 1 else tiers[1]:
            mesh.call(caller, throw.choice(following[0] if team % 2 == 0 else following[2]), rps=4)
    mesh.call(teams[0][2][0], teams[0][0][0], rps=1)
    return mesh
