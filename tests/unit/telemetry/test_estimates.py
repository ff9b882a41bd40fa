"""By route and by path: each request once, whoever tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weft.protos import otlp_common_v1, otlp_logs_service_v1
from weft.spiffe import SpiffeId
from weft.telemetry.answers import QUESTIONS
from weft.telemetry.limits import Limits
from weft.telemetry.store import Store

NOW_MS = 1_800_000_000_000
ORDERS = SpiffeId("cluster.local", "shop", "orders")
EDGE = SpiffeId("cluster.local", "edge", "gate")
EVIL = SpiffeId("cluster.local", "evil", "evil")
FRONT = "spiffe://cluster.local/ns/shop/sa/front"


def _told(node: str, **fields: str) -> bytes:
    request = otlp_logs_service_v1.ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.append(_pair("node_name", node))
    record = logs.scope_logs.add().log_records.add(time_unix_nano=NOW_MS * 1_000_000, trace_id=b"t" * 16)
    said = {"method": "GET", "code": "200", "port": "80", "details": "via_upstream",
            "service": "orders.shop.svc.cluster.local", **fields}  # fmt: skip
    record.attributes.extend(_pair(key, value) for key, value in said.items())
    return request.SerializeToString()


def _pair(key: str, value: str) -> otlp_common_v1.KeyValue:
    return otlp_common_v1.KeyValue(key=key, value=otlp_common_v1.AnyValue(string_value=value))


def _gateway(who: SpiffeId, **fields: str) -> bytes:
    return _told(f"router~10.0.0.1~gate.{who.namespace}~{who.namespace}.svc.cluster.local", **fields)


def _sidecar(**fields: str) -> bytes:
    return _told("sidecar~10.0.0.2~orders-0.shop~shop.svc.cluster.local", **fields)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A request through the gateway, one of another service, and one that the gateway answers itself."""
    store = Store(tmp_path / "t.db", Limits(), now_ms=lambda: NOW_MS)
    store.take_logs(_gateway(EDGE, path="/api/orders", route="buy"), EDGE)
    store.take_logs(_sidecar(path="/orders", route="default", source=str(EDGE)), ORDERS)
    store.take_logs(_sidecar(path="/status", route="default", source=FRONT), ORDERS)
    store.take_logs(
        _gateway(EDGE, path="/api/x", route="", code="404", details="route_not_found", service=""), EDGE
    )
    store.take_logs(_gateway(EVIL, path="/api/orders", route="lie"), EVIL)
    return store


async def _rows(store: Store, **asked: str) -> dict[str, float]:
    answer: dict[str, Any] = await QUESTIONS["stat"](store, {"window": "1h", **asked})
    rows = {row["key"]: row["requests"] for row in answer["rows"]}
    assert answer["total"]["requests"] == sum(rows.values())
    return rows


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"by": "route", "of": "service:shop/orders"}, {"buy": 1, "default": 1}),
        ({"by": "route", "of": "service:shop/orders", "namespace": "shop"}, {"buy": 1, "default": 1}),
        ({"by": "route", "of": "service:shop/orders", "namespace": "evil"}, {}),
        ({"by": "route", "namespace": "shop"}, {"shop/orders default": 2}),
        ({"by": "path", "of": "service:shop/orders"}, {"GET /orders": 1, "GET /status": 1}),
        ({"by": "path"}, {"GET /orders": 1, "GET /status": 1, "GET /api/x": 1}),
        ({"by": "route"}, {"shop/orders buy": 1, "shop/orders default": 1, "shop/orders lie": 1, "": 1}),
    ],
    ids=str,
)
async def test_each_request_once(store: Store, asked: dict[str, str], rows: dict[str, float]) -> None:
    assert await _rows(store, **asked) == rows
    await store.close()
