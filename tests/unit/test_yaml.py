"""YAML: values as kubectl reads them, positions, and every error of a file."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.errors import Origin
from weft.yaml import MAX_DEPTH, Document, join, load

KEYS = st.text(alphabet="abcdefgxyz-", min_size=1, max_size=6).filter(lambda key: key not in {"y", "-"})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)


def one(text: str) -> Document:
    documents, problems = load(text, "f.yaml")
    assert problems == ()
    (document,) = documents
    return document


def errors(text: str) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in load(text, "f.yaml")[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("no", False),
        ("off", False),
        ('"yes"', "yes"),
        ("~", None),
        ("", None),
        ("null", None),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("08", 8.0),
        ("0s", "0s"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("'12'", "12"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_mean_what_they_mean_to_kubectl(text: str, value: object) -> None:
    found = one(f"key: {text}").data["key"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_as_in_json() -> None:
    assert one("8080: a\ntrue: b\n1.5: c\n'x': d").data == {"8080": "a", "true": "b", "1.5": "c", "x": "d"}


def test_positions_of_keys_and_elements() -> None:
    document = one("# first\na:\n  b:\n  - c: 1\n    d: {e: 2}\n  - [3,\n     4]\n")
    assert {join(path): place for path, place in document.positions.items()} == {
        "": (2, 1),
        "a": (2, 1),
        "a.b": (3, 3),
        "a.b[0]": (4, 5),
        "a.b[0].c": (4, 5),
        "a.b[0].d": (5, 5),
        "a.b[0].d.e": (5, 9),
        "a.b[1]": (6, 5),
        "a.b[1][0]": (6, 6),
        "a.b[1][1]": (7, 6),
    }
    assert document.where(("a", "b", 0, "missing", "x")) == Origin("f.yaml", 4, 5)


def test_documents_count_on_through_empty_ones() -> None:
    documents, problems = load("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n", "f.yaml")
    assert [(item.index, item.data, item.where().line) for item in documents] == [
        (1, {"a": 1}, 3),
        (3, {"b": 2}, 7),
    ]
    assert problems == ()


def test_merge_keys_yield_to_the_mappings_own() -> None:
    document = one("base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n")
    assert document.data["use"] == {"a": 1, "b": 3}
    assert document.where(("use", "a")) == Origin("f.yaml", 2, 1)


def test_duplicate_keys_name_both_lines() -> None:
    assert errors("a:\n  b: 1\n  c: 2\n  b: 3\n") == [
        "f.yaml:4:3: the key 'b' is there twice, first on line 2"
    ]


def test_reading_goes_on_after_an_error() -> None:
    text = "a: 1\n---\nb: [1\n---\nc: 1\nc: 2\n---\n- d\n---\n\te: 1\n---\nf: 1\n"
    documents, problems = load(text, "f.yaml")
    assert [(item.index, item.data) for item in documents] == [(0, {"a": 1}), (2, {"c": 1}), (5, {"f": 1})]
    assert [(item.where.line if item.where else 0, item.message.partition(":")[0]) for item in problems] == [
        (4, "this is not YAML"),
        (6, "the key 'c' is there twice, first on line 5"),
        (8, "a document must be a mapping, not a list"),
        (10, "a tab cannot indent YAML"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: *b", "f.yaml:1:4: nothing above is named '&b'"),
        ("a: .inf", "f.yaml:1:4: .inf is not a number that JSON can hold"),
        ("a: !env x", "f.yaml:1:4: 'x' cannot be read as !env"),
        ("a: !!int x", "f.yaml:1:4: 'x' cannot be read as !!int"),
        ("[a]: 1", "f.yaml:1:1: a key must be text, not a list"),
        ("a: 1\nb: \x07", "f.yaml:2:4: the character U+0007 is not allowed in YAML"),
        ("<<: 1\n", "f.yaml:1:1: '<<' merges mappings, not a number"),
        ("just text", "f.yaml:1:1: a document must be a mapping, not text"),
    ],
)
def test_one_error(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_nesting_is_bounded_and_told_once() -> None:
    deep = "a: " + "[" * (MAX_DEPTH + 50) + "]" * (MAX_DEPTH + 50) + "\nb: 1"
    assert errors(deep) == [f"f.yaml:1:{MAX_DEPTH + 3}: nested deeper than {MAX_DEPTH} levels"]


def test_nesting_beyond_all_measure_takes_no_time() -> None:
    found = errors("a: " + "[" * 100_000 + "\n---\nb: {c: {c: [\n")
    assert "nested deeper than" in found[0]
    assert "nested too deep to be read to its end" in found[1]
    assert found[2].startswith("f.yaml:4:1:"), "the documents after it are read"


def test_alias_bombs_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert errors("\n".join(lines)) == [
        f"f.yaml:6:{len('a5: &a5 [*a4') - 2}: the aliases of this file stand for more than 100000 values"
    ]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_json_is_yaml(value: dict[str, Any]) -> None:
    assert one(json.dumps(value, ensure_ascii=True)).data == value


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.booleans())
def test_what_pyyaml_writes_is_read_and_every_position_is_there(value: dict[str, Any], flow: bool) -> None:
    text = pyyaml.dump(value, default_flow_style=flow, allow_unicode=False, Dumper=_Quoting)
    document = one(text)
    assert document.data == value
    lines = text.splitlines()
    for path, (line, column) in document.positions.items():
        if path and isinstance(path[-1], str):
            assert lines[line - 1][column - 1 :].lstrip("\"'? ").startswith(path[-1])
    assert set(document.positions) == {(), *_paths(value)}


class _Quoting(pyyaml.SafeDumper):
    """Quotes every text: what PyYAML thinks plain, go-yaml may read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *_paths(item, (*path, key)))]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_no_text_makes_it_raise(text: str) -> None:
    documents, problems = load(text, "f.yaml")
    assert all(problem.where is not None and problem.where.line > 0 for problem in problems)
    assert all(isinstance(document.data, dict) for document in documents)
