"""What of an EnvoyFilter's patches is no message that this Envoy takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from weft.emit.patches.value import PatchError, unknown_fields, value_of
from weft.errors import Origin, Problem, Severity
from weft.ir.patch import Patch
from weft.yaml import Path, join

INVALID: Final = "WEFT0105"


def flaws_of(
    patches: Iterable[Patch], where: Callable[[Path], Origin | None] | None = None
) -> tuple[Problem, ...]:
    """An error for each value that cannot be read, a warning for fields that are left out.

    Istio's rule (pkg/config/validation/envoyfilter): fields that the proxy does not know may be a newer
    one's. Paths are those of the EnvoyFilter that the patches are of; ``where`` tells where they stand.
    """
    found: list[Problem] = []
    for patch in patches:
        steps: Path = ("spec", "configPatches", patch.index, "patch", "value")
        path, place = join(steps), where(steps) if where else None
        try:
            value_of(patch)
        except PatchError as error:
            hint = "use Envoy's v3 types" if ".v2." in str(error) else ""
            found.append(Problem(INVALID, str(error), place, hint, path))
            continue
        if said := unknown_fields(patch):
            hint = "it has no effect: look the name up in Envoy's API"
            found.append(Problem(INVALID, said, place, hint, path, Severity.WARNING))
    return tuple(found)
