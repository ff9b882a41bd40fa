"""A node's certificates say of their bearers what the control plane has registered."""

from __future__ import annotations

from pathlib import Path

from tests.support.joined import instance, joined, session
from tests.support.plane import Plane, eventually

from weft.node.keys import read_secrets
from weft.spiffe import SpiffeId

WEB = SpiffeId("cluster.local", "shop", "web")


class TestCards:
    """What certificates say of their bearers beside the identity."""

    def card(self, directory: Path) -> str:
        found = read_secrets(directory, "spiffe://cluster.local/ns/shop/sa/web")
        return found.card if found is not None else ""

    async def test_a_certificate_says_what_was_registered_and_follows_it(
        self, control: Plane, tmp_path: Path
    ) -> None:
        directory = tmp_path / "workload"
        directory.mkdir()
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.register(instance(labels={"app": "web", "version": "v1"}))
            await node.certify("shop", "web", directory, None, "web-0")
            assert self.card(directory) == "weft1/web-0/web/v1/weft/web/v1"
            await node.register(instance(labels={"app": "web", "version": "v2"}))
            await eventually(lambda: self.card(directory) == "weft1/web-0/web/v2/weft/web/v2")
            held = await node.hold("shop/web-0", WEB, lambda _: None)
            assert held.card == self.card(directory)

    async def test_one_that_an_earlier_agent_left_without_is_replaced(
        self, control: Plane, tmp_path: Path
    ) -> None:
        directory = tmp_path / "workload"
        directory.mkdir()
        async with session(await joined(control, tmp_path), tmp_path) as node:
            await node.certify("shop", "web", directory, None)
            assert self.card(directory) == ""
            await node.certify("shop", "web", directory, None, "web-0")
            assert self.card(directory) == ""
            await node.register(instance())
            await eventually(lambda: self.card(directory) == "weft1/web-0/web/unknown/weft/web/latest")

    async def test_nobody_gets_the_card_of_another(self, control: Plane, tmp_path: Path) -> None:
        directory, second = tmp_path / "workload", tmp_path / "second"
        directory.mkdir()
        second.mkdir()
        async with (
            session(await joined(control, tmp_path), tmp_path) as node,
            session(await joined(control, second, "host2"), second) as other,
        ):
            await node.register(instance())
            await other.certify("shop", "web", directory, None, "web-0")
            assert self.card(directory) == "", "it is another node's"
            await node.certify("shop", "other", second, None, "web-0")
            found = read_secrets(second, "spiffe://cluster.local/ns/shop/sa/other")
            assert found is not None
            assert found.card == "", "it has another service account"
