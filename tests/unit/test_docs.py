"""The documentation holds: links lead somewhere, examples are valid, commands exist, pages are fresh."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from weft.cli import reference, weft
from weft.errors import Severity
from weft.model.parse import parse
from weft.yaml import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ROOT / "docs" / "reference" / "resources"

LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The blocks of a language: line of the first line inside, text without the fence's indentation."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        if found[2] == language:
            indent = len(found[1])
            yield (
                text.count("\n", 0, found.start(3)) + 1,
                re.sub(rf"^ {{{indent}}}", "", found[3], flags=re.M),
            )


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """What ``$ weft …`` lines type, up to a pipe; placeholders like NAME stay."""
    for line, text in fences(page, "console"):
        joined = re.sub(r"\\\n\s*", lambda gap: " " * len(gap[0]), text)
        for number, row in enumerate(joined.splitlines()):
            typed = re.sub(r"^[$#] (\w+=\S* )*(sudo )?", "", row)
            if row[:2] in ("$ ", "# ") and typed.startswith("weft "):
                words = list(shlex.shlex(typed, posix=True, punctuation_chars="|;&><"))
                end = next((i for i, word in enumerate(words) if set(word) <= set("|;&><")), len(words))
                yield line + number, shlex.split(" ".join(map(shlex.quote, words[1:end])), comments=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}"
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{name(page)}: {target}"


@pytest.mark.parametrize("page", [one for one in PAGES if GENERATED not in one.parents], ids=name)
def test_examples_are_valid(page: Path) -> None:
    for line, text in fences(page, "yaml"):
        if "apiVersion:" not in text:
            continue
        documents, problems = load(text, f"{name(page)}:{line}")
        found = [*problems, *(problem for document in documents for problem in parse(document)[1])]
        assert not [problem for problem in found if problem.severity is Severity.ERROR], found


@pytest.mark.parametrize("page", [one for one in PAGES if GENERATED not in one.parents], ids=name)
def test_commands_exist(page: Path) -> None:
    for line, words in commands(page):
        command: click.Command = weft
        context = click.Context(weft, info_name="weft")
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            part = command.get_command(context, words[0])
            assert part is not None, f"{name(page)}:{line}: weft has no command {words[0]!r}"
            command, words = part, words[1:]
            context = click.Context(command, parent=context, **command.context_settings)
        if "--help" not in words:
            command.make_parser(context).parse_args(list(words))


def test_every_page_is_listed() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    single = {one for one in PAGES if one.is_relative_to(index.parent) and one != index}
    missing = {name(one) for one in single if one not in listed and GENERATED not in one.parents}
    assert not {one for one in missing if not one.startswith("docs/decisions/0")}


def test_the_page_of_the_commands_is_up_to_date() -> None:
    assert (ROOT / "docs" / "reference" / "commands.md").read_text() == reference.page(), "run make docs"
