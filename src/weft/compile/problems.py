"""What of a configuration cannot be honoured, found once for all proxies."""

from __future__ import annotations

from weft import ir
from weft.compile.world import World
from weft.errors import Problem


def problems_of(world: World, identity: ir.ProxyIdentity) -> tuple[Problem, ...]:
    return ()
