"""Where the shop is: in an installed weft beside this file, in a clone under ``examples``."""

from __future__ import annotations

from pathlib import Path

from weft.errors import InternalError


def shop_directory() -> Path:
    """The directory with ``mesh.yaml``, ``gateway.yaml`` and the services.

    Raises:
        InternalError: weft was installed without it.
    """
    here = Path(__file__).resolve()
    for directory in (here.with_name("shop"), here.parents[3] / "examples" / "shop"):
        if (directory / "mesh.yaml").is_file():
            return directory
    raise InternalError("the shop is not part of this installation", hint="install weft from its wheel")
