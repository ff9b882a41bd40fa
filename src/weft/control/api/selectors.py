"""Label and field selectors (apimachinery pkg/labels and pkg/fields)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from weft.control.api.status import bad_request

Predicate = Callable[[Mapping[str, Any]], bool]

_KEY: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?"
_SET: Final = re.compile(rf"\s*(?P<key>{_KEY})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_EQUAL: Final = re.compile(rf"\s*(?P<key>{_KEY})\s*(?P<op>==|=|!=)\s*(?P<value>[A-Za-z0-9_.-]*)\s*")
_EXISTS: Final = re.compile(rf"\s*(?P<no>!?)\s*(?P<key>{_KEY})\s*")
_FIELD: Final = re.compile(r"\s*(?P<field>[^=!\s]+)\s*(?P<op>==|=|!=)\s*(?P<value>\S*)\s*")
_FIELDS: Final = frozenset({"metadata.name", "metadata.namespace"})


def everything(_: Mapping[str, Any]) -> bool:
    """Selects all."""
    return True


def label_selector(text: str) -> Predicate:
    """``app=reviews,version in (v1,v2),!canary`` as a predicate over whole objects.

    Raises:
        ApiError: 400 for another form.
    """
    if not text.strip():
        return everything
    tests = [_label_test(part, text) for part in _split(text)]
    return lambda wire: all(test(_labels(wire)) for test in tests)


def _labels(wire: Mapping[str, Any]) -> Mapping[str, str]:
    return wire.get("metadata", {}).get("labels") or {}


def _split(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


def _label_test(part: str, text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.fullmatch(part):
        key, wanted = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["op"] == "in":
            return lambda labels: key in labels and labels[key] in wanted
        return lambda labels: labels.get(key) not in wanted
    if match := _EQUAL.fullmatch(part):
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.fullmatch(part):
        key = match["key"]
        if match["no"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse label selector {text!r}: {part!r} is not understood")


def field_selector(text: str, *, any_field: bool = False) -> Predicate:
    """``metadata.name=reviews,metadata.namespace!=default``. ``any_field`` takes every path.

    Raises:
        ApiError: 400 for another form or field.
    """
    if not text.strip():
        return everything
    tests: list[Predicate] = []
    for part in text.split(","):
        match = _FIELD.fullmatch(part)
        if match is None:
            raise bad_request(f"unable to parse field selector {text!r}: {part!r} is not understood")
        field = match["field"]
        if field not in _FIELDS and not any_field:
            raise bad_request(f'field label not supported: "{field}"')
        tests.append(_field_test(tuple(field.split(".")), match["value"], equal=match["op"] != "!="))
    return lambda wire: all(test(wire) for test in tests)


def only_name(text: str) -> str:
    """The one name that a field selector lets through, empty when it lets through others too."""
    for part in text.split(","):
        match = _FIELD.fullmatch(part)
        if match is not None and match["field"] == "metadata.name" and match["op"] != "!=":
            return match["value"]
    return ""


def _field_test(path: tuple[str, ...], value: str, *, equal: bool) -> Predicate:
    def test(wire: Mapping[str, Any]) -> bool:
        found: Any = wire
        for step in path:
            found = found.get(step) if isinstance(found, Mapping) else None
        return (str(found if found is not None else "") == value) is equal

    return test
