"""What CEL expressions may call in Envoy 1.40: of others it refuses the whole listener."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from weft.model.cel import expression

_words = str.split
_PLAIN: Final = frozenset(
    _words(
        "has size matches startsWith endsWith contains int uint double bool bytes dyn type duration "
        "timestamp getFullYear getMonth getDayOfMonth getDayOfWeek getDayOfYear getDate getHours getMinutes "
        "getSeconds getMilliseconds in"
    )
)
# These only where the configuration asks for them.
_OF_TEXTS: Final = frozenset(
    _words(
        "string lowerAscii upperAscii split replace join substring trim charAt indexOf lastIndexOf format "
        "reverse quote"
    )
)
_TEXTS: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")
_CALLED: Final = re.compile(r"([A-Za-z_]\w*)\s*\(")
_PATTERN: Final = re.compile(r"""\.matches\(\s*r?(?:"([^"\\]*)"|'([^'\\]*)')\s*\)""")


def without_texts(text: str) -> str:
    """The expression, with nothing in its quotes."""
    return _TEXTS.sub("''", text)


def complaint(text: str, *, texts: bool) -> str:
    """Why Envoy would not take an expression; empty when it does. ``texts``: functions of texts are there."""
    return next(_complaints(text, texts), "")


def _complaints(text: str, texts: bool) -> Iterator[str]:
    if wrong := expression(text):
        yield wrong
        return
    for name in _CALLED.findall(without_texts(text)):
        if name not in _PLAIN and not (texts and name in _OF_TEXTS):
            yield f"Envoy has no function {name}() here"
    for one, other in _PATTERN.findall(text):
        try:
            re.compile(one or other)
        except re.error as error:
            yield f"{one or other!r} is no regular expression: {error}"
