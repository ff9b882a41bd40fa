"""How a mesh goes over to other rules for mutual TLS without a refused connection.

Servers read the modes of their ports, clients whether an endpoint takes mutual TLS. They learn of a change at
different times. So where it is turned off or on again, servers take both ways first; then clients change,
and when none goes by the former rules any more, servers take what the new ones say.
"""

from __future__ import annotations

from weft.compile.inbound import PeerMode
from weft.compile.istio.peer_authentication import PeerModes, modes_of, turns_off
from weft.compile.world import World
from weft.model.peer_authentication import PeerAuthentication


def stages(before: World, world: World) -> tuple[World, ...]:
    """What proxies get on the way from one world to the next, each once all have the one before."""
    old, new = before.all(PeerAuthentication), world.all(PeerAuthentication)
    if old is new or not (turns_off(old) or turns_off(new)) or not _concerned(before, world):
        return ()
    return world.changing_over(old, left=False), world.changing_over(old, left=True)


def _concerned(before: World, world: World) -> bool:
    """Whether mutual TLS is turned off, or on again, at a port of a workload."""
    old, new = before.all(PeerAuthentication), world.all(PeerAuthentication)
    root, memo = world.settings.root_namespace, world.memo
    return any(
        _off(memo(modes_of, old, one.namespace, one.labels, root, memo))
        != _off(memo(modes_of, new, one.namespace, one.labels, root, memo))
        for bucket in world.instances.by_namespace.values()
        for one in bucket.values()
        if one.mesh
    )


def _off(modes: PeerModes) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """Where mutual TLS is off, as far as it is said."""
    off = modes.default is PeerMode.DISABLE
    ports = [(number, mode is PeerMode.DISABLE) for number, mode in modes.ports]
    return (
        off,
        tuple(n for n, one in ports if one and not off),
        tuple(n for n, one in ports if off and not one),
    )
