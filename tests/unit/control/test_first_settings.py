"""What ``weft up`` gives a mesh that has no settings of its own."""

from __future__ import annotations

from weft.app.up import ACCESS_LOG, log_access
from weft.client import ApiClient


async def test_the_access_log_stays_when_a_mesh_config_is_applied(api: ApiClient) -> None:
    await log_access(api)
    await log_access(api)  # once is enough
    (kind,) = (one for one in await api.resources() if one.kind == "MeshConfig")
    mine = {**ACCESS_LOG, "spec": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}}
    await api.apply([mine])
    found = await api.get(kind, "istio-system", "default")
    assert found["spec"] == {**ACCESS_LOG["spec"], **mine["spec"]}
    await api.apply([{**mine, "spec": {"accessLogFile": ""}}])
    assert (await api.get(kind, "istio-system", "default"))["spec"] == {
        **ACCESS_LOG["spec"],
        "accessLogFile": "",
    }
