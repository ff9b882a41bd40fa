"""From a document to a typed resource, or to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from weft.errors import Origin, Problem, Severity, did_you_mean
from weft.model.base import Flaw, Shape, inside
from weft.model.catalog import KINDS, KindRow, by_kind
from weft.model.resource import Resource, dump
from weft.model.scalars import LABEL, SUBDOMAIN, Form
from weft.model.walk import bare
from weft.yaml import Document, Path, join, kind_of

__all__ = ["Part", "dump", "parse", "parse_object", "unwrap"]

SHAPE: Final = "WEFT0011"
UNKNOWN_FIELD: Final = "WEFT0012"
RULE: Final = "WEFT0013"
UNKNOWN_KIND: Final = "WEFT0014"
DOUBTFUL: Final = "WEFT0016"  # accepted, but it will hardly do what was meant

Where = Callable[[Path], Origin | None]

_NAMES: Final = {
    "name": Form(SUBDOMAIN, "a DNS name: lower-case letters, digits, '-' and '.'", longest=253),
    "service": Form(
        r"[a-z](?:[-a-z0-9]*[a-z0-9])?",
        "a Service's name: lower-case letters, digits and '-', beginning with a letter",
        longest=63,
    ),
    "label": Form(LABEL, "a DNS label: lower-case letters, digits and '-'", longest=63),
    "path": Form(r"[^./%][^/%]*|\.[^./%][^/%]*|\.\.[^/%]+", "a name without '/' and '%'"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A resource's JSON within a document: the whole of it, or one item of a List."""

    document: Document
    data: dict[str, Any]
    path: Path = ()

    def where(self, path: Path = ()) -> Origin:
        """The place of a field."""
        return self.document.where((*self.path, *path))


def unwrap(document: Document) -> tuple[tuple[Part, ...], tuple[Problem, ...]]:
    """The document itself, or the items of a ``List`` (or ``ServiceList`` and the like), nested ones too."""
    parts: list[Part] = []
    problems: list[Problem] = []

    def open_(data: dict[str, Any], path: Path) -> None:
        kind = data.get("kind")
        if not (isinstance(kind, str) and kind.endswith("List") and isinstance(data.get("items"), list)):
            parts.append(Part(document, data, path))
            return
        for number, item in enumerate(data["items"]):
            place = (*path, "items", number)
            if not isinstance(item, dict):
                message = f"an item of a List must be a resource, not {kind_of(item)}"
                problems.append(Problem(SHAPE, message, document.where(place), path=join(place)))
                continue
            single = kind.removesuffix("List")
            if single and "kind" not in item:
                item = {"apiVersion": data.get("apiVersion"), "kind": single, **item}
            open_(item, place)

    open_(document.data, ())
    return tuple(parts), tuple(problems)


def parse(
    document: Document | Part, namespace: str = "default"
) -> tuple[Resource | None, tuple[Problem, ...]]:
    """The resource of a document. ``namespace`` holds where none is given. Lists: ``unwrap`` them first."""
    return parse_object(document.data, document.where, namespace)


def parse_object(
    data: Mapping[str, Any], where: Where | Origin | None = None, namespace: str = "default"
) -> tuple[Resource | None, tuple[Problem, ...]]:
    """The resource and its warnings, or None and everything that is wrong.

    Kinds that weft does not serve give None and a warning.
    """
    place: Where = where if callable(where) else lambda path: where
    api_version, kind = data.get("apiVersion"), data.get("kind")
    problems = [
        Problem(SHAPE, message, place((name,)), hint, name)
        for name, value, hint in (
            ("apiVersion", api_version, "as 'networking.istio.io/v1'"),
            ("kind", kind, "as 'VirtualService'"),
        )
        if (message := _header(name, value))
    ]
    if problems or not isinstance(api_version, str) or not isinstance(kind, str):
        return None, tuple(problems)
    row = by_kind(api_version, kind)
    if row is None:
        return None, (*_pods(data, place), _unknown(api_version, kind, place))
    # As the API server does: what is null was not given.
    data = {name: value for name, value in data.items() if value is not None}
    try:
        resource = row.model.model_validate(data)
    except ValidationError as error:
        metadata = data.get("metadata")
        flaws = _named(row, metadata.get("name") if isinstance(metadata, dict) else None)
        return None, _sorted((*_problems(error, row.model, data, place), *_rules(flaws, place)))
    resource = _placed(resource, row, namespace)
    problems = list(_rules((*_named(row, resource.metadata.name), *_flaws(resource, ())), place))
    refused = any(problem.severity is Severity.ERROR for problem in problems)
    return None if refused else resource, _sorted(problems)


def _rules(flaws: Iterable[Flaw], place: Where) -> Iterator[Problem]:
    for flaw in flaws:
        severity = Severity.WARNING if flaw.warns else Severity.ERROR
        code = flaw.code or (DOUBTFUL if flaw.warns else RULE)
        yield Problem(code, flaw.message, place(flaw.path), flaw.hint, join(flaw.path), severity)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """As they stand in the file."""
    return tuple(sorted(problems, key=lambda item: item.where or Origin("")))


def _pods(data: Mapping[str, Any], place: Where) -> tuple[Problem, ...]:
    """What is wrong with the pods of a workload that weft does not run."""
    from weft.model import pod_template

    if not pod_template.is_workload(data["apiVersion"], data["kind"]):
        return ()
    return _sorted(_rules(pod_template.flaws(data), place))


def _header(name: str, value: object) -> str:
    if value is None or value == "":
        return f"{name} is missing"
    return "" if isinstance(value, str) else f"{name} must be text, not {kind_of(value)}"


def _unknown(api_version: str, kind: str, place: Where) -> Problem:
    """A misspelt kind of a group that is ours is an error: it would be lost in silence."""
    group = api_version.rpartition("/")[0]
    same = {row.kind: row for row in KINDS if row.group == group}
    if kind in same:
        message = f"{kind} has no version {api_version!r}"
        served = ", ".join(same[kind].api_version_of(version) for version in same[kind].versions)
        return Problem(UNKNOWN_KIND, message, place(("apiVersion",)), f"write {served}", "apiVersion")
    hint = did_you_mean(kind, same)
    if hint and group not in {"", "apps"}:
        return Problem(UNKNOWN_KIND, f"there is no kind {kind!r} in {group}", place(("kind",)), hint, "kind")
    message = f"weft does not know {kind} of {api_version}: it is skipped"
    groups = {row.group for row in KINDS if row.group}
    others = {row.api_version for row in KINDS if row.kind == kind}
    if group not in groups and others:
        hint = f"did you mean apiVersion {sorted(others)[0]}?"
    return Problem(UNKNOWN_KIND, message, place(("kind",)), hint, "kind", Severity.WARNING)


def _placed(resource: Resource, row: KindRow, namespace: str) -> Resource:
    """The resource in its namespace; what was not written is not marked as given, so a dump leaves it out."""
    metadata = resource.metadata
    wanted = (metadata.namespace or namespace) if row.namespaced else ""
    if wanted == metadata.namespace:
        return resource
    said = "namespace" in metadata.model_fields_set
    moved = metadata.model_copy(update={"namespace": wanted})
    if not said:
        moved.model_fields_set.discard("namespace")
    return resource.model_copy(update={"metadata": moved})


def _named(row: KindRow, name: object) -> Iterator[Flaw]:
    """The rule for names of this kind."""
    if isinstance(name, str) and name:
        try:
            _NAMES[row.names].check(name)
        except ValueError as error:
            yield Flaw(("metadata", "name"), str(error))


def _flaws(value: Any, path: Path) -> Iterator[Flaw]:
    """The broken rules of a model and of all models in it."""
    if isinstance(value, Shape):
        yield from inside(path, value.flaws())
        fields = type(value).model_fields
        # A spec that was left out is an empty one, and has the flaws of an empty one.
        left_out = {"spec"} if isinstance(value, Resource) and "spec" in fields else set()
        for name in (value.model_fields_set & fields.keys()) | left_out:
            item = getattr(value, name)
            if isinstance(item, Shape | tuple | dict):
                yield from _flaws(item, (*path, fields[name].alias or name))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            if not isinstance(item, Shape | tuple | dict):
                break
            yield from _flaws(item, (*path, number))
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(item, Shape):
                break
            yield from _flaws(item, (*path, key))


def _problems(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], place: Where
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            word = str(path[-1])
            hint = _other_spelling(word, known) or did_you_mean(word, known)
            if not hint and known:
                shown = sorted(known)
                hint = f"known: {', '.join(shown[:12])}{', …' if len(shown) > 12 else ''}"
            message = f"there is no field {word!r} here"
            yield Problem(UNKNOWN_FIELD, message, place(path), hint, join(path))
            continue
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # enough were given: those that are no good are told by themselves
        message, hint = _explain(detail)
        if detail["type"].startswith("model_") and len(known := _fields_at(model, path)) == 1:
            hint = f"write {{{next(iter(known))}: {detail['input']}}}"
        at = path[:-1] if detail["type"] == "missing" else path
        yield Problem(SHAPE, message, place(at), hint, join(path))


def _other_spelling(word: str, known: set[str]) -> str:
    flat = word.replace("_", "").replace("-", "").lower()
    found = next((name for name in known if name.lower() == flat), None)
    return f"did you mean {found!r}?" if found else ""


def _fields_at(model: type[BaseModel], path: Path) -> set[str]:
    """The wire names of the fields that the model at ``path`` has."""
    current: Any = model
    for part in path:
        current = _step(current, part)
        if current is None:
            return set()
    current = bare(current)
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return set()
    return {field.alias or name for name, field in current.model_fields.items()}


def _step(current: Any, part: str | int) -> Any:
    current = bare(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        for name, field in current.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    arguments = get_args(current)
    if get_origin(current) is tuple and arguments:
        return arguments[0]
    if get_origin(current) is dict and len(arguments) == 2:
        return arguments[1]
    return None


_TYPES: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}


def _explain(detail: ErrorDetails) -> tuple[str, str]:
    """A message and a hint for one finding of pydantic."""
    kind, value, about = detail["type"], detail["input"], detail.get("ctx") or {}
    if kind in _TYPES:
        hint = ""
        if kind == "string_type" and isinstance(value, bool):
            hint = "YAML takes yes, on, y and their like for booleans: put the text in quotes"
        elif kind == "string_type" and isinstance(value, int | float):
            hint = f'write it in quotes: "{value}"'
        elif kind == "tuple_type" and not isinstance(value, dict):
            hint = "begin each element with '- '"
        elif kind == "tuple_type":
            hint = "put '- ' before the element"
        elif kind == "bool_type" and isinstance(value, str):
            hint = "without quotes"
        got = repr(value) if isinstance(value, int | float | str) else kind_of(value)
        return f"must be {_TYPES[kind]}, not {got if len(got) < 60 else kind_of(value)}", hint
    match kind:
        case "missing":
            return f"{detail['loc'][-1]} is missing", f"add {detail['loc'][-1]}"
        case "literal_error":
            known = [word.strip("'") for word in str(about["expected"]).replace(" or ", ", ").split(", ")]
            listed = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
            near = (
                did_you_mean(value, known) or did_you_mean(value.upper(), known)
                if isinstance(value, str)
                else ""
            )
            return f"{value!r} is not known: write {listed}", near
        case "value_error":
            return str(about["error"]), ""
        case "greater_than_equal":
            return f"{value} is too small: at least {about['ge']}", ""
        case "greater_than":
            return f"{value} is too small: more than {about['gt']}", ""
        case "less_than_equal":
            return f"{value} is too large: at most {about['le']}", ""
        case "less_than":
            return f"{value} is too large: less than {about['lt']}", ""
        case "too_short":
            least = about["min_length"]
            return f"at least {least} needed, there {_are(about['actual_length'])}", ""
        case "too_long":
            return f"at most {about['max_length']} allowed, there {_are(about['actual_length'])}", ""
        case "string_too_long":
            return f"too long: at most {about['max_length']} characters", ""
        case "string_too_short":
            return "must not be empty" if about[
                "min_length"
            ] == 1 else f"at least {about['min_length']} characters", ""
    return detail["msg"][:1].lower() + detail["msg"][1:], ""


def _are(number: object) -> str:
    return "is 1" if number == 1 else "are none" if number == 0 else f"are {number}"
