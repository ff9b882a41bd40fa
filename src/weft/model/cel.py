"""The grammar of CEL (cel-spec, langdef): whether an expression can be read. Envoy evaluates it."""

from __future__ import annotations

import re
from typing import Final, NoReturn

_ESCAPE: Final = (
    r"\\(?:[abfnrtv\\?\"'`]|x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})"
)
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>[\t\n\f\r ]+|//[^\n]*)
    |(?P<text>[bB]?[rR]?(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n\r\\]*"|'[^'\n\r\\]*'))
    |(?P<escaped>[bB]?(?:\"\"\"(?:[^\\]|{_ESCAPE})*?\"\"\"|'''(?:[^\\]|{_ESCAPE})*?'''
        |"(?:[^"\n\r\\]|{_ESCAPE})*"|'(?:[^'\n\r\\]|{_ESCAPE})*'))
    |(?P<raw>[bB]?[rR][bB]?(?:"[^"\n\r]*"|'[^'\n\r]*'))
    |(?P<number>[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?
        |0x[0-9a-fA-F]+[uU]?|[0-9]+[uU]?)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,(){{}}\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERALS: Final = frozenset({"text", "escaped", "raw", "number"})
_RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"}
    | {"loop", "package", "namespace", "return", "var", "void", "while"}
)
_LOOPS: Final = {"all": 2, "exists": 2, "exists_one": 2, "filter": 2}
# By how tightly they bind, the loosest first.
_LEVELS: Final = (
    frozenset({"||"}),
    frozenset({"&&"}),
    frozenset({"<", "<=", ">=", ">", "==", "!=", "in"}),
    frozenset({"+", "-"}),
    frozenset({"*", "/", "%"}),
)
_DEEPEST: Final = 40


def expression(text: str) -> str:
    """A complaint, or the empty text when it is CEL."""
    try:
        _Reader(text).read()
    except ValueError as error:
        return str(error)
    return ""


class _Reader:
    """Reads from left to right, one token ahead. What was read last is told by ``_shape``."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise ValueError(f"no CEL at character {place + 1}: {text[place : place + 10]!r}")
            if found.lastgroup != "space":
                self._tokens.append((str(found.lastgroup), found[0], place + 1))
            place = found.end()
        self._tokens.append(("end", "", place + 1))
        self._next = 0
        self._depth = 0
        self._shape = ""  # "name" for a bare identifier, "field" for a selection

    def read(self) -> None:
        """Read all of it.

        Raises:
            ValueError: where it is not CEL.
        """
        self._whole()
        if self._kind != "end":
            self._fail()

    @property
    def _kind(self) -> str:
        return self._tokens[self._next][0]

    @property
    def _word(self) -> str:
        """The token, if it is a sign or a name."""
        kind, word, _ = self._tokens[self._next]
        return word if kind in {"sign", "name"} else ""

    def _fail(self) -> NoReturn:
        kind, word, place = self._tokens[self._next]
        raise ValueError(
            "the CEL ends too early" if kind == "end" else f"no CEL at character {place}: {word!r}"
        )

    def _take(self, word: str) -> bool:
        if self._word != word:
            return False
        self._next += 1
        return True

    def _need(self, word: str) -> None:
        if not self._take(word):
            self._fail()

    def _whole(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("the CEL is nested too deep")
        self._binary(0)
        if self._take("?"):
            self._binary(0)
            self._need(":")
            self._whole()
            self._shape = ""
        self._depth -= 1

    def _binary(self, level: int) -> None:
        if level == len(_LEVELS):
            self._unary()
            return
        self._binary(level + 1)
        while self._word in _LEVELS[level]:
            self._next += 1
            self._binary(level + 1)
            self._shape = ""

    def _unary(self) -> None:
        sign = self._word if self._word in {"!", "-"} else ""
        while sign and self._take(sign):
            pass
        self._primary()
        while True:
            if self._take("."):
                name = self._word
                if self._kind != "name" or name == "in":
                    self._fail()
                self._next += 1
                self._shape = "field"
                if self._take("("):
                    self._arguments(name, member=True)
                elif self._word == "{":
                    self._fields()
            elif self._take("["):
                self._whole()
                self._need("]")
                self._shape = ""
            else:
                break
        if sign:
            self._shape = ""

    def _primary(self) -> None:
        self._shape = ""
        if self._take("("):
            self._whole()
            self._need(")")
        elif self._take("["):
            self._list("]")
        elif self._word == "{":
            self._fields()
        elif self._kind in _LITERALS:
            if self._kind == "number":
                self._fits()
            self._next += 1
        else:
            self._name()

    def _fits(self) -> None:
        """Whole numbers have 64 bits."""
        word = self._tokens[self._next][1]
        if re.fullmatch("(?:0x[0-9a-fA-F]+|[0-9]+)[uU]?", word):
            digits = word.rstrip("uU")
            value = int(digits, 16 if digits.startswith("0x") else 10) if len(digits) < 40 else 2**64
            if value > (2**63 if digits == word else 2**64 - 1):
                raise ValueError(f"{word} has more than 64 bits")

    def _name(self) -> None:
        dotted = self._take(".")
        name = self._word
        if self._kind != "name" or name == "in":
            self._fail()
        if name in _RESERVED:
            raise ValueError(f"{name!r} is a reserved word of CEL")
        self._next += 1
        if name in {"true", "false", "null"} and not dotted:
            return
        self._shape = "name"
        if self._take("("):
            self._arguments(name, member=False)
        elif self._word == "{":
            self._fields()

    def _arguments(self, name: str, *, member: bool) -> None:
        shapes = self._list(")")
        if name == "has" and not member and len(shapes) == 1 and shapes[0] != "field":
            raise ValueError("has() takes one field, as has(request.headers)")
        looped = member and (_LOOPS.get(name) == len(shapes) or (name == "map" and len(shapes) in {2, 3}))
        if looped and shapes[0] != "name":
            raise ValueError(f"{name}() takes a name first, as {name}(x, …)")
        self._shape = ""

    def _list(self, end: str) -> list[str]:
        """Expressions with commas between them; lists, not calls, may end with a comma."""
        shapes: list[str] = []
        while self._word != end:
            self._whole()
            shapes.append(self._shape)
            if not self._take(","):
                break
            if self._word == end and end == ")":
                self._fail()
        self._need(end)
        self._shape = ""
        return shapes

    def _fields(self) -> None:
        """``{key: value, …}`` of a map or of a message."""
        self._need("{")
        while self._word != "}":
            self._whole()
            self._need(":")
            self._whole()
            if not self._take(","):
                break
        self._need("}")
        self._shape = ""
