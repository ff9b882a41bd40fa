"""What a file says relative to itself, said absolutely: the API knows no files."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.model.catalog import WEFT
from weft.model.parse import Part


def localize(part: Part) -> dict[str, Any]:
    """The object of a part. A Workload's ``workingDir`` counts from the file's folder, which is also its
    default; a program's name is looked up on PATH, a relative path counts from the ``workingDir``.
    """
    wire = part.data
    if wire.get("kind") != "Workload" or not str(wire.get("apiVersion", "")).startswith(f"{WEFT}/"):
        return wire
    spec = wire.get("spec")
    if not isinstance(spec, Mapping):
        return wire
    file = part.document.file
    folder = Path.cwd() if file == "-" else Path(file).absolute().parent
    made = copy.deepcopy(wire)
    directory = (folder / str(spec.get("workingDir") or ".")).resolve()
    made["spec"]["workingDir"] = str(directory)
    command = list(spec.get("command") or ())
    if command:
        made["spec"]["command"] = [_program(str(command[0]), directory), *command[1:]]
    return made


def _program(name: str, directory: Path) -> str:
    if "/" in name:
        return str(directory / name)
    # Unknown programs are left as they are: starting them gives the error, with the name that was written.
    return shutil.which(name) or name
