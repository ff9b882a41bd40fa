"""The committed reference pages are those that the models give."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.model.reference import pages, write

COMMITTED = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_up_to_date(name: str) -> None:
    assert (COMMITTED / name).read_text() == pages()[name], "run make docs"


def test_no_page_is_left_of_a_kind_that_is_gone() -> None:
    committed = {f"resources/{file.name}" for file in (COMMITTED / "resources").iterdir()}
    assert committed == {name for name in pages() if name.startswith("resources/")}


def test_pages_of_kinds_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "old.md").write_text("")
    write(tmp_path)
    assert not (tmp_path / "resources" / "old.md").exists()
    assert (tmp_path / "untranslated.txt").exists()
