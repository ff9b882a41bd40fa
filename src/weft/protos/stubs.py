"""Type stubs of the messages, for mypy: ``python -m weft.protos.stubs [DIRECTORY]``.

mypy-protobuf's generator is fed with the descriptors out of Envoy, so no protoc is needed. Everything goes
under one top-level package, which exists only for the type checker.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from weft.errors import InternalError
from weft.protos.descriptors import load
from weft.protos.packages import PACKAGES

ROOT: Final = "weft_stubs"
_WELL_KNOWN: Final = "google/protobuf/"


def _move(name: str) -> str:
    return name if name.startswith(_WELL_KNOWN) else f"{ROOT}/{name}"


def _closure(files: FileDescriptorSet) -> list[FileDescriptorProto]:
    """The files of the listed packages and what they import, each after its imports."""
    known = {file.name: file for file in files.file}
    wanted = frozenset(PACKAGES.values())
    ordered: dict[str, FileDescriptorProto] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for dependency in known[name].dependency:
                visit(dependency)
            ordered[name] = known[name]

    for name, file in known.items():
        if file.package in wanted:
            visit(name)
    return list(ordered.values())


def _request(files: Iterable[FileDescriptorProto]) -> CodeGeneratorRequest:
    request = CodeGeneratorRequest(parameter="quiet")
    for file in files:
        moved = request.proto_file.add()
        moved.CopyFrom(file)
        moved.name = _move(file.name)
        moved.dependency[:] = [_move(name) for name in file.dependency]
        if not file.name.startswith(_WELL_KNOWN):
            request.file_to_generate.append(moved.name)
    return request


def _generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    done = subprocess.run(
        [sys.executable, "-c", "from mypy_protobuf.main import main; main()"],
        input=request.SerializeToString(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise InternalError(f"mypy-protobuf failed: {done.stderr.decode(errors='replace').strip()}")
    return CodeGeneratorResponse.FromString(done.stdout)


def _module(name: str) -> str:
    return re.sub(r"\.proto$", "_pb2", _move(name)).replace("-", "_").replace("/", ".")


def write(directory: Path) -> int:
    """Write the stubs under ``directory``, in place of older ones; the number of files written.

    Raises:
        InternalError: when the descriptors cannot be read or the generator fails.
    """
    files = _closure(load())
    root = directory / ROOT
    shutil.rmtree(root, ignore_errors=True)
    written = 0
    for file in _generate(_request(files)).file:
        path = directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)
        written += 1
    for path in (root, *(path for path in root.rglob("*") if path.is_dir())):
        (path / "__init__.pyi").touch()
    for alias, package in PACKAGES.items():
        modules = sorted(_module(file.name) for file in files if file.package == package)
        (root / f"{alias}.pyi").write_text("".join(f"from {module} import *\n" for module in modules))
    return written + len(PACKAGES)


def main() -> None:
    """Write the stubs to the given directory, ``build/stubs`` by default."""
    parser = argparse.ArgumentParser(description="Write type stubs of Envoy's protobuf messages.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("build/stubs"))
    directory: Path = parser.parse_args().directory
    print(f"{write(directory)} stubs in {directory}")


if __name__ == "__main__":
    main()
