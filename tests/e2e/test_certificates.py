"""Certificates that live for seconds: every sidecar changes its own again and again, and nobody notices."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict

import pytest
from tests.support.load import load
from tests.support.mesh import SHOP, Mesh, up, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

ROTATIONS = 5
WATCHED = ("istio-system.istio-ingressgateway", "shop.front-v1-0", "shop.catalog-v1-0")


def serial(mesh: Mesh, workload: str) -> str:
    """Of the certificate that an Envoy shows now."""
    for one in mesh.admin(workload, "/certs")["certificates"]:
        for chain in one["cert_chain"]:
            found: str = chain["serial_number"]
            return found
    return ""


def test_five_rotations_fail_no_request() -> None:
    with up(SHOP / "mesh.yaml", SHOP / "gateway.yaml", "--certificate-lifetime", "10s") as mesh:
        seen: dict[str, set[str]] = defaultdict(set)

        def rotated() -> bool:
            for workload in WATCHED:
                seen[workload].add(serial(mesh, workload))
            return all(len(seen[workload]) > ROTATIONS for workload in WATCHED)

        # The front page asks several services: each request crosses the gateway and some sidecars.
        with (
            load("127.0.0.1", mesh.gateway_port, "/", pause_s=0.02) as kept,
            load("127.0.0.1", mesh.gateway_port, "/", keep_alive=False, pause_s=0.02) as fresh,
        ):
            wait_until(rotated, f"{ROTATIONS} rotations", seconds=90)
            kept.wait_for(50)
            fresh.wait_for(50)
        assert kept.failures + fresh.failures == []
        assert set(kept.answers + fresh.answers) == {200}
        # Both ends saw every hop succeed, too: no connection was refused in between.
        for workload in WATCHED:
            failed = [line for line in mesh.requests(workload) if line["response_code"] >= 500]
            assert failed == []
            assert not any(line["upstream_transport_failure_reason"] for line in mesh.requests(workload))
