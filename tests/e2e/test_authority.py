"""The authority's life on three hosts: its root is replaced under load, over crashes and without a host that
is away; certificates are revoked.

The control plane runs on host a. The tests share one mesh and run in this order; each leaves it whole.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster import Cluster, Member, cluster
from tests.support.intermediates import sign
from tests.support.mesh import wait_until

from weft.identity.ca import Authority
from weft.node.capture.cgroup import Hierarchy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("nft") is None or Hierarchy.find() is None,
        reason="needs root, nft and cgroup2",
    ),
]

PORT = 8080
LEAVES = 20
MESH = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec: {defaultConfig: {drainDuration: 3s}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""


class Shop:
    """``web`` on each host, and ``api`` on two, which calls it."""

    def __init__(self, mesh: Cluster) -> None:
        self.mesh = mesh
        mesh.apply(MESH)
        self.web = {name: mesh.run(name, f"web-{name}", PORT, service="web") for name in "abc"}
        self.api = {name: mesh.run(name, f"api-{name}", PORT + 1, service="api") for name in "ac"}
        for member in (*self.web.values(), *self.api.values()):
            member.wait_ready()

    def ca(self, *argv: str) -> Any:
        """``weft ca … -o json``."""
        return json.loads(self.mesh.first.weft("ca", *argv, "-o", "json"))

    def wait_endpoints(self, member: Member, machines: str) -> None:
        """Until ``member`` knows ``web`` on these machines, and nowhere else."""
        want = {self.mesh[name].address for name in machines}
        wait_until(
            lambda: self.mesh.endpoints(member.machine.name, member.id, "web") == want,
            f"{member.id} knows web on {machines}",
            40,
        )

    def wait_whole(self) -> None:
        """Until every part of every node has loaded all that it was given."""

        def whole() -> bool:
            nodes = self.ca("status")["nodes"]
            parts = [part for node in nodes if node["connected"] for part in node["parts"]]
            return len(parts) == 3 + 5 and all(part["trusts"] and part["certified"] for part in parts)

        wait_until(whole, "all have loaded the trust bundle and certificates", 40)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with cluster(["a", "b", "c"]) as mesh:
        shop = Shop(mesh)
        for member in shop.api.values():
            shop.wait_endpoints(member, "abc")
        shop.wait_whole()
        yield shop


def issued(shop: Shop) -> int:
    """How many certificates of workloads the audit log has."""
    lines = (Path(shop.mesh.directory) / "state" / "audit.log").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return sum(event["event"] == "certificate" and "/ns/shop/" in event["identity"] for event in events)


def mentions(log: Path, text: str) -> bool:
    """Whether a log says something."""
    return text in log.read_text()


def test_the_root_is_replaced_under_load_over_crashes(shop: Shop) -> None:
    """Kept and new connections; the control plane is killed as soon as it has begun each step."""
    first, log = shop.mesh.first, shop.mesh.first.log_file("control-plane")
    old, before = shop.ca("status"), issued(shop)
    assert old["rotation"] is None
    assert old["warnings"] == []
    url = f"http://web.shop:{PORT}/"
    with shop.api["a"].load(url) as one, shop.api["c"].load(url) as two:
        first.weft("ca", "rotate", "--no-wait")
        for step in ("trust-new", "sign-with-new", "drop-old"):
            said = f"authority: {step}"
            wait_until(functools.partial(mentions, log, said), step, 60)
            shop.mesh.kill_plane()
            shop.mesh.start_plane()
        wait_until(lambda: shop.ca("status")["rotation"] is None, "the rotation to end", 60)
        # Each root brings new certificates for all.
        while issued(shop) - before < LEAVES:
            first.weft("ca", "rotate")
        shop.wait_whole()
    new = shop.ca("status")
    assert [root["key"] for root in new["roots"]] != [root["key"] for root in old["roots"]]
    assert len(new["roots"]) == 1
    for outcome in (one, two):
        assert outcome["failed"] == []
        assert outcome["sent"] > 100
        assert set(outcome["by"]) == {"web-a", "web-b", "web-c"}


def test_a_host_that_was_away_joins_again(shop: Shop) -> None:
    """It missed a whole rotation; nobody else notices, and it is told what to do."""
    away, url = shop.mesh["c"], f"http://web.shop:{PORT}/"
    away.host.partition()
    shop.wait_endpoints(shop.api["a"], "ab")
    with shop.api["a"].load(url) as outcome:
        shop.mesh.first.weft("ca", "rotate", "--no-wait")
        missing = shop.ca("status")["rotation"]["missing"]
        assert {"node": "c", "proxy": None, "why": "is away"} in missing
        # Asked again it goes on with the same rotation.
        shop.mesh.first.weft("ca", "rotate", "--skip", "c")
        found = shop.ca("status")
        assert found["rotation"] is None
        away.host.heal()
        said = away.log_file("node")
        wait_until(lambda: "away, join again" in said.read_text(), "the node says what to do", 40)
        assert away.node is not None
        away.node.terminate()
        away.node.wait()
        shop.mesh.join("c")
        shop.wait_endpoints(shop.api["a"], "abc")
        shop.wait_whole()
        wait_until(lambda: shop.api["c"].get(url)[0] == 200, "api on c is served again", 20)
    assert outcome["failed"] == []
    assert {"web-a", "web-b", "web-c"} <= set(outcome["by"])


def test_an_intermediate_takes_over(shop: Shop, tmp_path: Path) -> None:
    """Its key is made in the control plane and stays there; it is signed elsewhere, under another root."""
    first, url = shop.mesh.first, f"http://web.shop:{PORT}/"
    elsewhere = Authority.create(datetime.now(UTC))
    chain, roots = tmp_path / "chain.pem", tmp_path / "roots.pem"
    chain.write_text(sign(elsewhere, first.weft("ca", "request")))
    roots.write_text(elsewhere.bundle)
    with shop.api["c"].load(url) as outcome:
        # Nobody said that this root is to be trusted.
        first.weft("ca", "install", str(chain), code=1)
        assert shop.ca("status")["rotation"] is None
        first.weft("ca", "install", str(chain), "--roots", str(roots))
        shop.wait_whole()
    assert outcome["failed"] == []
    found = shop.ca("status")
    assert [root["subject"] for root in found["roots"]] == [elsewhere.issuer.subject.rfc4514_string()]
    assert found["issuer"]["subject"] != found["roots"][0]["subject"]
    assert first.weft("ca", "export") == elsewhere.bundle


def test_whoever_is_revoked_is_cut_off(shop: Shop) -> None:
    """Connections that stand, too; everybody else goes on."""
    url, b, c = f"http://web.shop:{PORT}/", shop.mesh["b"].host, shop.mesh["c"].address
    assert shop.ca("list", "--identity", "spiffe://cluster.local/ns/shop/sa/api", "--node", "c")

    def standing() -> str:
        """Connections of c that host b has; between requests they say nothing, and are kept."""
        return b.run("ss", "-Htn", "state", "established", "dst", c)

    def asked() -> str:
        shop.api["c"].get(url)
        return standing()

    wait_until(asked, "a connection from c to b", 40)
    with shop.api["a"].load(url) as outcome:
        revoked = shop.ca("revoke", "--node", "c", "--reason", "stolen")
        assert revoked["nodes"] == ["c"]
        assert {entry["node"] for entry in revoked["revoked"]} == {"c"}
        wait_until(lambda: not standing(), "the connections that stand are ended", 60)
        # api on c still has its key, its Envoy and where web was; only its like on c takes it any more.
        assert {shop.api["c"].get(url)[1] for _ in range(6)}.isdisjoint({"web-a", "web-b"})
        shop.wait_endpoints(shop.api["a"], "ab")
    assert outcome["failed"] == []
