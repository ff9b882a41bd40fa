"""What every model is made of: a strict, frozen shape whose fields are named on the wire in camelCase."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Flaw:
    """A broken rule; ``path`` counts from the model that states the rule.

    ``warns``: the resource is accepted all the same. ``code`` is given where Istio has one for the finding.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    warns: bool = False
    code: str = ""


class Shape(BaseModel):
    """None means that the user did not say: defaults are filled in when the mesh is compiled.

    A dump writes what was given and nothing else.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        serialize_by_alias=True,
        defer_build=True,
        protected_namespaces=(),
    )

    def flaws(self) -> Iterator[Flaw]:
        """Rules between fields; called once all fields are well-formed by themselves."""
        return iter(())


def each(path: tuple[str | int, ...], complaints: Iterable[str], hint: str = "") -> Iterator[Flaw]:
    """A flaw at ``path`` for each complaint that is not empty."""
    for complaint in complaints:
        if complaint:
            yield Flaw(path, complaint, hint)


def inside(path: tuple[str | int, ...], flaws: Iterable[Flaw]) -> Iterator[Flaw]:
    """Flaws of something that lies at ``path``."""
    for flaw in flaws:
        yield replace(flaw, path=(*path, *flaw.path))


def wire_name(shape: Shape, name: str) -> str:
    """What a field is called in YAML."""
    return type(shape).model_fields[name].alias or name


def given(*values: object) -> int:
    """How many of these were given."""
    return sum(value is not None for value in values)


def at_most_one(shape: Shape, *names: str, hint: str = "keep one of them") -> Iterator[Flaw]:
    """A flaw when several of these fields (in Python's names) were given."""
    there = [wire_name(shape, name) for name in names if getattr(shape, name) is not None]
    if len(there) > 1:
        yield Flaw((there[1],), f"only one of {', '.join(there)} may be given", hint)


def twice(values: Iterable[Hashable]) -> Iterator[int]:
    """The positions of values that stand further to the front already."""
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield number
        seen.add(value)


def union(shape: Shape, kind: str) -> Iterator[Flaw]:
    """The Gateway API's unions: ``type: URLRewrite`` goes with the field ``urlRewrite`` and with no other."""
    found = False
    for name, field in type(shape).model_fields.items():
        wire = field.alias or name
        if wire == "type":
            continue
        there = getattr(shape, name) is not None
        if wire.lower() == kind.lower():
            found = True
            if not there:
                yield Flaw((wire,), f"type {kind} needs {wire}", f"add {wire}")
        elif there:
            yield Flaw((wire,), f"{wire} does not go with type {kind}", "remove it, or change the type")
    if not found:
        yield Flaw(("type",), f"nothing is known of type {kind}")
