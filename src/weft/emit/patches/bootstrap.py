"""Patches of the bootstrap: only MERGE has a meaning there (Istio)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft.emit.patches.value import PatchError, value_of
from weft.ir.patch import Operation, Patch, Target
from weft.protos.wire import to_dict


def fragments_of(patches: Iterable[Patch]) -> tuple[dict[str, Any], ...]:
    """What is to be merged into a bootstrap, in its own field names; what cannot be read is left out."""
    found = []
    for patch in patches:
        if patch.target is Target.BOOTSTRAP and patch.operation is Operation.MERGE:
            try:
                value = value_of(patch)
            except PatchError:
                continue  # told when it was written
            if value is not None:
                found.append(to_dict(value))
    return tuple(found)
