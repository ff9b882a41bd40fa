"""The engine: libFuzzer, guided by which of weft's code an input reaches (atheris).

An input that a target fails on is kept as ``crash-…`` in the output directory; make it a corpus file once the
defect is mended.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
_INPUT_MAX_BYTES = 8192
# One input that takes longer, or so much memory, is a finding.
_PATIENCE_S = 20
_MEMORY_MAX_MB = 2048


def main() -> None:
    """Fuzz one target; new inputs are written to the output directory only."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--output", type=Path, required=True, help="where new inputs and findings go")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["weft"]):
        from tests.fuzz.targets import TARGETS
    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-timeout={_PATIENCE_S}",
        f"-rss_limit_mb={_MEMORY_MAX_MB}",
        f"-max_len={_INPUT_MAX_BYTES}",
        f"-artifact_prefix={options.output}/",
        "-print_final_stats=1",
        str(options.output),
        *(str(folder) for folder in (CORPUS / options.target,) if folder.exists()),
    ]
    atheris.Setup(arguments, TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
