"""From one rule for mutual TLS to another, without a moment at which clients and servers disagree."""

from __future__ import annotations

import itertools

import pytest
from tests.support import compiled

from weft.compile.changeover import stages
from weft.compile.endpoints import endpoint_set
from weft.compile.inbound import PeerMode
from weft.compile.world import World
from weft.model.peer_authentication import PeerAuthentication

PORT = 8080
CLUSTER = "outbound|8080||web.default.svc.cluster.local"


def world(mode: str, port_mode: str = "") -> World:
    ports = f", portLevelMtls: {{{PORT}: {{mode: {port_mode}}}}}" if port_mode else ""
    return compiled.world(
        compiled.service("web", PORT),
        compiled.instance("web-0", "web", "10.1.1.1", account="web", ports="{http: 8080}"),
        f"""
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {{name: web}}
        spec: {{selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {mode}}}{ports}}}
        """,
    )


def taken(one: World) -> set[bool]:
    """Whether the server takes connections with mutual TLS (True), and without."""
    mode = one.peer_modes("default", (("app", "web"),)).of(PORT)
    return {
        PeerMode.STRICT: {True},
        PeerMode.DISABLE: {False},
        PeerMode.PERMISSIVE: {True, False},
    }[mode]


def sent(one: World) -> bool:
    """Whether clients use mutual TLS."""
    (endpoint,) = endpoint_set(one, CLUSTER).endpoints
    return endpoint.mesh_tls


MODES = [("STRICT", ""), ("PERMISSIVE", ""), ("DISABLE", ""), ("STRICT", "DISABLE"), ("DISABLE", "STRICT")]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(MODES, 2)))
def test_whoever_hears_of_it_first_is_understood(before: tuple[str, str], after: tuple[str, str]) -> None:
    old = world(*before)
    new = old.replace(world(*after).all(PeerAuthentication).values())
    way = [old, *stages(old, new), new]
    for earlier, later in itertools.pairwise(way):
        assert sent(earlier) in taken(later), "a client is behind"
        assert sent(later) in taken(earlier), "a server is behind"
    assert len(way) == 4 or sent(old) == sent(new)


def test_what_turns_nothing_off_is_changed_at_once() -> None:
    old = world("PERMISSIVE")
    assert stages(old, old.replace(world("STRICT").all(PeerAuthentication).values())) == ()
    assert stages(old, old.replace([], ())) == ()
