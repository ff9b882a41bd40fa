"""From a world and an identity to all that one Envoy shall do."""

from __future__ import annotations

from weft import ir
from weft.compile.problems import problems_of
from weft.compile.router import router
from weft.compile.sidecar import sidecar
from weft.compile.world import World
from weft.errors import Problem


def compile_proxy(world: World, identity: ir.ProxyIdentity) -> tuple[ir.Proxy, tuple[Problem, ...]]:
    """What the proxy shall do, and what of its configuration could not be honoured.

    Units that another call was given the same inputs for are the very same objects.
    """
    build = router if identity.name.kind == "router" else sidecar
    return build(world, identity), problems_of(world, identity.name.namespace)
