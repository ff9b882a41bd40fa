"""YAML as kubectl reads it, with the line and column of every key and list element.

The values are those of YAML 1.1 as go-yaml resolves them (sigs.k8s.io/yaml, ``resolve.go``): ``yes``,
``on`` and ``y`` are booleans, ``010`` is eight; but nothing becomes a date or a base-60 number. Keys are
strings, as in JSON. Duplicate keys, deep nesting and alias bombs are refused; after an error, reading goes
on with the next document, so that all errors of a file are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from weft.errors import Origin, Problem

SYNTAX: Final = "WEFT0010"  # there is no document
CONTENT: Final = "WEFT0015"  # there is one, but something in it was left out
MAX_DEPTH: Final = 100
_SKIP_MAX: Final = 1_000
MAX_ALIASED: Final = 100_000  # nodes that the aliases of one file may stand for

Path = tuple[str | int, ...]
Place = tuple[int, int]

_TRUE: Final = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE: Final = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_NULL: Final = {"", "~", "null", "Null", "NULL"}
_INT: Final = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ENDLESS: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG: Final = "tag:yaml.org,2002:"
_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATES: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE
)
_SEPARATOR: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """One document. ``index`` counts from 0, ``positions`` are (line, column) from 1 by path."""

    file: str
    index: int
    data: dict[str, Any]
    positions: Mapping[Path, Place] = field(repr=False)

    def where(self, path: Path = ()) -> Origin:
        """The place of ``path``, or of its nearest ancestor that stands in the file."""
        for end in range(len(path), -1, -1):
            if (place := self.positions.get(path[:end])) is not None:
                return Origin(self.file, *place)
        return Origin(self.file)


def load(text: str, file: str) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """All documents of a text, and everything that is wrong with it. Empty documents are left out."""
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        message = f"the character U+{ord(found[0]):04X} is not allowed in YAML"
        return (), (
            Problem(SYNTAX, message, Origin(file, line, column), "remove it, or escape it in quotes"),
        )
    if text.lstrip().startswith("{"):
        text = _SURROGATES.sub(_joined, text)
    documents: list[Document] = []
    problems: list[Problem] = []
    start, before, index = 0, 0, 0  # where reading begins, how many lines and documents stand before it
    while True:
        reader = _Reader(text[start:], file, before, index)
        try:
            reader.read()
        except yaml.MarkedYAMLError as error:
            problems += reader.problems
            problems.append(_syntax(error, text, file, before))
            documents += reader.documents
            mark = error.problem_mark or error.context_mark
            line = (mark.line if mark else 0) + before
            again = _SEPARATOR.search(text, max(_line_start(text, line), start + 1))
            if again is None:
                break
            start = again.start()
            index = reader.index + 1
            before = text.count("\n", 0, start)
        else:
            problems += reader.problems
            documents += reader.documents
            break
    return tuple(documents), tuple(problems)


def _joined(pair: re.Match[str]) -> str:
    """JSON writes characters beyond U+FFFF as two escapes, which YAML does not know."""
    code = 0x10000 + ((int(pair[2], 16) - 0xD800) << 10) + int(pair[3], 16) - 0xDC00
    return f"{pair[1]}\\U{code:08X}"


def _line_start(text: str, line: int) -> int:
    offset = 0
    for _ in range(line):
        end = text.find("\n", offset)
        if end < 0:
            return len(text)
        offset = end + 1
    return offset


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str, before: int) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + before, mark.column) if mark else (0, 0)
    where = Origin(file, line + 1, column + 1)
    lines = text.splitlines()
    rest = lines[line][column:] if line < len(lines) else ""
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())] if line < len(lines) else ""
    if rest.startswith("\t") or "\t" in indent:
        return Problem(SYNTAX, "a tab cannot indent YAML", where, "use spaces")
    about = f"{error.problem}, {error.context}" if error.context else str(error.problem)
    hint = ""
    if rest[:1] in {"@", "`", "%", "*", "&", "!", "|", ">"} or "mapping values are not allowed" in about:
        hint = "put the text in quotes"
    elif "could not find expected ':'" in about:
        hint = "a key needs a colon and a space"
    elif "did not find expected" in about:
        hint = "look at the indentation and at brackets and quotes just above"
    return Problem(SYNTAX, f"this is not YAML: {about}", where, hint)


@dataclass(slots=True)
class _Node:
    """A value under construction; ``size`` counts the nodes in it."""

    value: Any
    place: Place
    size: int = 1


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is open. ``key`` is the key whose value comes next."""

    value: Any
    place: Place
    anchor: str | None
    path: Path
    size: int = 1
    key: str | None = None
    key_place: Place = (0, 0)
    own: dict[str, int] = field(default_factory=dict)
    merged: list[Any] = field(default_factory=list)


class _Reader:
    """Builds values from libyaml's events, without recursion."""

    def __init__(self, text: str, file: str, before: int, index: int) -> None:
        self._parser = yaml.CSafeLoader(text)
        self._file = file
        self._before = before
        self.index = index
        self._aliased = 0
        self.documents: list[Document] = []
        self.problems: list[Problem] = []

    def read(self) -> None:
        """Read to the end.

        Raises:
            yaml.MarkedYAMLError: when the text is not YAML.
        """
        try:
            while not self._parser.check_event(yaml.StreamEndEvent):
                if self._parser.check_event(yaml.DocumentStartEvent):
                    self._document()
                else:
                    self._parser.get_event()
        finally:
            self._parser.dispose()

    def _problem(self, place: Place, message: str, hint: str = "", path: Path = ()) -> None:
        self.problems.append(Problem(CONTENT, message, Origin(self._file, *place), hint, path=join(path)))

    def _place(self, event: Any) -> Place:
        return (event.start_mark.line + 1 + self._before, event.start_mark.column + 1)

    def _document(self) -> None:
        self._parser.get_event()
        broken = len(self.problems)
        positions: dict[Path, Place] = {}
        anchors: dict[str, _Node] = {}
        stack: list[_Frame] = []
        root: _Node | None = None
        skip = 0  # levels of a nest that is too deep to keep
        while not self._parser.check_event(yaml.DocumentEndEvent):
            event: Any = self._parser.get_event()
            place = self._place(event)
            if isinstance(event, yaml.CollectionStartEvent):
                if skip or len(stack) >= MAX_DEPTH:
                    if not skip:
                        self._problem(place, f"nested deeper than {MAX_DEPTH} levels")
                    skip += 1
                    if skip > _SKIP_MAX:
                        # The time that libyaml takes for a nest grows with the square of its depth.
                        message = "nested too deep to be read to its end"
                        mark: Any = event.start_mark
                        raise yaml.MarkedYAMLError(problem=message, problem_mark=mark)
                    continue
                value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append(_Frame(value, place, event.anchor, self._path(stack)))
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                if skip:
                    skip -= 1
                    if skip:
                        continue
                    node = _Node(None, place)
                else:
                    frame = stack.pop()
                    if frame.merged:
                        self._merge(frame)
                    node = _Node(frame.value, frame.place, frame.size)
                    if frame.anchor:
                        anchors[frame.anchor] = node
            elif skip:
                continue
            elif isinstance(event, yaml.AliasEvent):
                node = self._alias(event.anchor, place, anchors)
            else:
                node = _Node(self._scalar(event, place, bool(stack)), place)
                if event.anchor:
                    anchors[event.anchor] = node
            if not stack:
                root = node
            else:
                self._put(stack[-1], node, positions)
        self._parser.get_event()
        index, self.index = self.index, self.index + 1
        if root is None or root.value is None:
            return
        if not isinstance(root.value, dict):
            if len(self.problems) == broken:
                message = f"a document must be a mapping, not {kind_of(root.value)}"
                self.problems.append(Problem(SYNTAX, message, Origin(self._file, *root.place)))
            return
        positions[()] = root.place
        self.documents.append(Document(self._file, index, root.value, positions))

    def _path(self, stack: list[_Frame]) -> Path:
        if not stack:
            return ()
        top = stack[-1]
        if isinstance(top.value, list):
            return (*top.path, len(top.value))
        return (*top.path, top.key if top.key is not None else "?")

    def _alias(self, anchor: str | None, place: Place, anchors: Mapping[str, _Node]) -> _Node:
        target = anchors.get(anchor or "")
        if target is None:
            self._problem(place, f"nothing above is named '&{anchor}'")
            return _Node(None, place)
        self._aliased += target.size
        if self._aliased > MAX_ALIASED:
            if self._aliased - target.size <= MAX_ALIASED:
                self._problem(place, f"the aliases of this file stand for more than {MAX_ALIASED} values")
            return _Node(None, place)
        return _Node(target.value, place, target.size)

    def _put(self, frame: _Frame, node: _Node, positions: dict[Path, Place]) -> None:
        """Add a finished node to the collection that is open."""
        frame.size += node.size
        if isinstance(frame.value, list):
            positions[(*frame.path, len(frame.value))] = node.place
            frame.value.append(node.value)
            return
        if frame.key is None:
            frame.key, frame.key_place = self._key(node, frame.path), node.place
            return
        key, frame.key = frame.key, None
        if key == "<<":
            frame.merged.append(node.value)
            return
        if key in frame.own:
            message = f"the key {key!r} is there twice, first on line {frame.own[key]}"
            self._problem(frame.key_place, message, "keep one of them", (*frame.path, key))
            return
        frame.own[key] = frame.key_place[0]
        positions[(*frame.path, key)] = frame.key_place
        frame.value[key] = node.value

    def _key(self, node: _Node, path: Path) -> str:
        """Keys are strings; other scalars become what JSON would write."""
        value = node.value
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        self._problem(node.place, f"a key must be text, not {kind_of(value)}", "", path)
        return "?"

    def _merge(self, frame: _Frame) -> None:
        """``<<``: keys of other mappings, where the mapping has none of its own."""
        for value in frame.merged:
            for source in value if isinstance(value, list) else [value]:
                if not isinstance(source, dict):
                    self._problem(
                        frame.place, f"'<<' merges mappings, not {kind_of(source)}", path=frame.path
                    )
                    continue
                for key, item in source.items():
                    frame.value.setdefault(key, item)

    def _scalar(self, event: Any, place: Place, inside: bool) -> Any:
        text: str = event.value
        tag = event.tag
        if tag == "!" or (tag is None and not event.implicit[0]) or tag == f"{_TAG}str":
            return text
        if tag is None:
            value = resolve(text)
            if (isinstance(value, float) and value in {float("inf"), float("-inf")}) or value != value:
                self._problem(place, f"{text} is not a number that JSON can hold")
                return None
            return value
        wanted = tag.removeprefix(_TAG)
        types: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
        if wanted in types and isinstance(value := resolve(text), types[wanted]):
            return value
        shown = f"!!{wanted}" if wanted != tag else tag
        self._problem(place, f"{text!r} cannot be read as {shown}", "remove the tag" if inside else "")
        return None


def resolve(text: str) -> Any:
    """What an unquoted scalar means: None, a boolean, a number, or the text."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if not text or text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        digits = text.replace("_", "")
        bare = digits.lstrip("+-")
        octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
        try:
            return int(digits, 8) if octal else int(digits, 0)
        except ValueError:
            return text
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "", 1)) if _ENDLESS.fullmatch(text) else text


def kind_of(value: object) -> str:
    """A value's type as people say it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
    return "a mapping"


_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def join(path: Path) -> str:
    """``("spec", "http", 0, "x.y/z")`` -> ``spec.http[0]["x.y/z"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


_STEP: Final = re.compile(r'\[(?P<index>\d+)\]|\["(?P<quoted>[^"]*)"\]|(?P<plain>[^.\[\]]+)')


def steps(path: str) -> Path:
    """``spec.http[0]["x.y/z"]`` -> ``("spec", "http", 0, "x.y/z")``: the inverse of ``join``."""
    return tuple(
        int(match["index"]) if match["index"] else match["plain"] or match["quoted"]
        for match in _STEP.finditer(path)
    )
