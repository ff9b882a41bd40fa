"""What every model is made of: a strict, frozen shape whose fields are named on the wire in camelCase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Flaw:
    """A broken rule; ``path`` counts from the model that states the rule."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


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


def given(*values: object) -> int:
    """How many of these were given."""
    return sum(value is not None for value in values)
