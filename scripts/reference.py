"""``make docs``: the generated pages below ``docs/reference``. With ``--check``: are they up to date?"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from weft.analysis import reference as findings
from weft.cli import reference as commands
from weft.model import reference as resources

COMMITTED = Path(__file__).parents[1] / "docs" / "reference"


def write(folder: Path) -> None:
    """All generated pages."""
    resources.write(folder)
    (folder / "commands.md").write_text(commands.page())
    (folder / "analysis.md").write_text(findings.page())
    (folder / "response-flags.md").write_text(findings.flags_page())


def stale() -> list[str]:
    """Names of the committed pages that differ from what would be written."""
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        write(fresh)
        wanted = {
            str(file.relative_to(fresh)): file.read_text() for file in fresh.rglob("*") if file.is_file()
        }
    old = {f"resources/{file.name}" for file in (COMMITTED / "resources").glob("*.md")} - wanted.keys()
    differing = {
        name
        for name, text in wanted.items()
        if not (COMMITTED / name).is_file() or (COMMITTED / name).read_text() != text
    }
    return sorted(old | differing)


def main(arguments: list[str]) -> int:
    """0, or with ``--check`` 1 when a page is stale."""
    if arguments == ["--check"]:
        found = stale()
        for name in found:
            print(f"docs/reference/{name} is not up to date: run make docs")
        return 1 if found else 0
    write(COMMITTED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
