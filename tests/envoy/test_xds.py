"""What real Envoys do with what the server sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.envoy.xds import (
    Authority,
    Control,
    ask,
    backend,
    bundle,
    cluster,
    endpoints,
    envoy,
    free_port,
    listener,
    routes,
)

PROXY = "sidecar~127.0.0.1~app.default~default.svc.cluster.local"


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control(Authority())
    async with control.running():
        yield control


async def test_a_proxy_gets_a_bundle_and_serves_it(control: Control, tmp_path: Path) -> None:
    port = free_port()
    async with backend("a") as a, envoy(control, tmp_path) as proxy:
        control.store.publish_endpoints(None, {"one": endpoints("one", a)})
        control.store.publish(PROXY, bundle(cluster("one"), listener("in", port, "r"), routes("r", "one")), 1)
        await proxy.ready()
        await control.settled(1)
        assert await ask(port) == (200, "a")
    assert control.record.refusals() == []
    assert [kind for kind, _, _ in control.record.sent_] == ["cds", "eds", "lds", "rds"]
