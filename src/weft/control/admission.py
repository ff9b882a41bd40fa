"""A look at a change before it is stored: what it refers to in vain, and whether it can be compiled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from weft.analysis.envoy_filters import unfit
from weft.compile.problems import problems_of
from weft.compile.world import World
from weft.control.api.writes import Admit, Proposal
from weft.errors import Problem

_log = logging.getLogger(__name__)

UNCOMPILABLE: Final = "WEFT0026"
# So many resources at a time; streams are served between.
_PART: Final = 500


def examiner(world: Callable[[], World]) -> Admit:
    """Tries changes on a copy of the world of now. References to nothing are warnings, whatever the order in
    which things are applied; what weft cannot compile is refused before it can do harm.
    """

    async def examine(proposals: Sequence[Proposal]) -> Sequence[Problem]:
        try:
            return await _examine(world(), proposals)
        except Exception as error:
            # A defect of weft's: it must not get into the store, where it would come back at every start.
            _log.exception("a change cannot be compiled and is refused")
            about = str(proposals[-1].key) if len(proposals) == 1 else ""
            message = f"weft fails to compile this: {type(error).__name__}: {error}"
            return [
                Problem(UNCOMPILABLE, message, hint="nothing was changed; please report this", resource=about)
            ]

    return examine


async def _examine(world: World, proposals: Sequence[Proposal]) -> list[Problem]:
    put = [proposal.resource for proposal in proposals if proposal.resource is not None]
    after = world.replace((), [proposal.key for proposal in proposals if proposal.resource is None])
    for start in range(0, len(put), _PART):
        after = after.replace(put[start : start + _PART])
        await asyncio.sleep(0)
    concerned = {str(resource.key) for resource in put}
    found = [replace(flaw, resource=str(one.key)) for one in put for flaw in unfit(one)]
    for namespace in sorted({resource.key.namespace for resource in put} - {""}):
        found += [problem for problem in problems_of(after, namespace) if problem.resource in concerned]
        await asyncio.sleep(0)
    return list(dict.fromkeys(found))
