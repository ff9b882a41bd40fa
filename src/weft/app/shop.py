"""The shop that ships with weft: where it is, and what it needs of the machine."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import WeftError

Objects = Sequence[Mapping[str, Any]]


def find() -> Path:
    """Its folder: beside this module in an installed weft, ``examples/shop`` in a clone.

    Raises:
        WeftError: neither is there.
    """
    here = Path(__file__).resolve()
    for folder in (here.with_name("shop_files"), here.parents[3] / "examples" / "shop"):
        if (folder / "mesh.yaml").is_file():
            return folder
    raise WeftError("the shop is not here", hint="install weft again, or run it from a clone")


def fit(objects: Objects) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The shop as this machine can run it, and what had to be changed, for people.

    Where there is no Node (or no SQLite for it), Python twins of its services run. Which ``python3`` that is:
    see ``own_python_first``.
    """
    node = shutil.which("node")
    usable = node is not None and (shutil.which("sqlite3") is not None or _has_sqlite(node))
    said: list[str] = []
    if not usable:
        missing = "Node" if node is None else "sqlite3, which Node before 22.5 needs,"
        said.append(f"{missing} is not installed: Python twins stand in for the services written in Node")
    fitted: list[Mapping[str, Any]] = []
    for wire in objects:
        made = copy.deepcopy(dict(wire))
        if made.get("kind") == "Workload":
            command = made["spec"]["command"]
            program = Path(command[0]).name
            if program == "node" and not usable:
                command[:] = ["python3", command[1].removesuffix(".js") + ".py", *command[2:]]
        fitted.append(made)
    return fitted, said


def own_python_first() -> None:
    """Have ``python3`` mean weft's own interpreter for what this process starts: it is new enough.

    By the path and not in the objects, so that applying the shop's file again changes nothing.
    """
    folder = Path(sys.executable).parent
    if (folder / "python3").exists():
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def load(folder: Path, rate: float) -> Callable[[str], Sequence[str]]:
    """The command that sends customers to an address."""
    return lambda url: [sys.executable, str(folder / "services" / "load.py"), url, "--rate", f"{rate:g}"]


def _has_sqlite(node: str) -> bool:
    import subprocess

    done = subprocess.run(
        [node, "-e", "require('node:sqlite')"], capture_output=True, check=False, timeout=10
    )
    return done.returncode == 0
