"""Walks models: the classes in a class, the fields in it, and the fields that a resource uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from weft.model.base import Shape
from weft.yaml import Path


def bare(annotation: Any) -> Any:
    """The type without Optional and Annotated."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
            continue
        arguments = [item for item in get_args(annotation) if item is not type(None)]
        if get_origin(annotation) in {tuple, dict, Literal} or len(arguments) != 1:
            return annotation
        annotation = arguments[0]


def inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model within a field's type, and how deep it lies: "", "[]" for a list, "{}" for a map."""
    found, depth = bare(annotation), ""
    while get_origin(found) in {tuple, dict}:
        listed = get_origin(found) is tuple
        depth += "[]" if listed else "{}"
        found = bare(get_args(found)[0 if listed else 1])
    return (found if isinstance(found, type) and issubclass(found, BaseModel) else None), depth


def models(model: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    """The class and all classes in it."""
    seen: dict[type[BaseModel], None] = {}

    def visit(current: type[BaseModel]) -> None:
        if current in seen:
            return
        seen[current] = None
        for field in current.model_fields.values():
            if (found := inner(field.annotation)[0]) is not None:
                visit(found)

    visit(model)
    return tuple(seen)


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of all fields that hold no model: ``spec.http[].match[].uri.exact``, maps with ``{}``."""
    for name, field in model.model_fields.items():
        found, depth = inner(field.annotation)
        here = f"{path}.{field.alias or name}" if path else field.alias or name
        if found is None:
            yield here
        elif found.model_fields:
            yield from leaves(found, here + depth)
        else:
            yield here + depth


def used(value: Any, path: Path = (), shape: str = "") -> Iterator[tuple[str, Path, Any]]:
    """What was given in a resource: each field's path as in ``leaves``, its place, its value."""
    if isinstance(value, Shape):
        for name in sorted(value.model_fields_set & type(value).model_fields.keys()):
            item = getattr(value, name)
            if item is None:
                continue
            wire = type(value).model_fields[name].alias or name
            here = f"{shape}.{wire}" if shape else wire
            yield here, (*path, wire), item
            yield from used(item, (*path, wire), here)
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            if isinstance(item, Shape | tuple | dict):
                yield from used(item, (*path, number), f"{shape}[]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, Shape):
                yield from used(item, (*path, key), f"{shape}{{}}")


def paths(model: type[BaseModel]) -> frozenset[str]:
    """The paths of all fields, of those that hold models too."""
    found: set[str] = set()

    def visit(current: type[BaseModel], path: str) -> None:
        for name, field in current.model_fields.items():
            inside, depth = inner(field.annotation)
            here = f"{path}.{field.alias or name}" if path else field.alias or name
            found.add(here)
            if inside is not None:
                visit(inside, here + depth)

    visit(model, "")
    return frozenset(found)
