"""Root after root is replaced: sidecars and a gateway change their certificates, and nobody notices."""

from __future__ import annotations

import os
import shutil

import pytest
from tests.support.load import load
from tests.support.mesh import SHOP, Mesh, up

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

ROTATIONS = 3
WATCHED = ("istio-system.istio-ingressgateway", "shop.front-v1-0", "shop.catalog-v1-0")


def serial(mesh: Mesh, workload: str) -> str:
    """Of the certificate that an Envoy shows now."""
    for one in mesh.admin(workload, "/certs")["certificates"]:
        for chain in one["cert_chain"]:
            found: str = chain["serial_number"]
            return found
    return ""


def test_new_roots_fail_no_request_at_a_gateway() -> None:
    with up(SHOP / "mesh.yaml", SHOP / "gateway.yaml") as mesh:
        seen = [{workload: serial(mesh, workload) for workload in WATCHED}]
        # The front page asks several services: each request crosses the gateway and some sidecars.
        with (
            load("127.0.0.1", mesh.gateway_port, "/", pause_s=0.02) as kept,
            load("127.0.0.1", mesh.gateway_port, "/", keep_alive=False, pause_s=0.02) as fresh,
        ):
            for _ in range(ROTATIONS):
                mesh.weft("ca", "rotate")
                seen.append({workload: serial(mesh, workload) for workload in WATCHED})
                kept.wait_for(20)
                fresh.wait_for(20)
        # When the command ends, all of them show certificates of the new root.
        for workload in WATCHED:
            assert len({one[workload] for one in seen}) == ROTATIONS + 1
        assert kept.failures + fresh.failures == []
        assert set(kept.answers + fresh.answers) == {200}
        # Both ends saw every hop succeed, too: no connection was refused in between.
        for workload in WATCHED:
            failed = [line for line in mesh.requests(workload) if line["response_code"] >= 500]
            assert failed == []
            assert not any(line["upstream_transport_failure_reason"] for line in mesh.requests(workload))
