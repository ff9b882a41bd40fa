"""Everything that is wrong with a configuration: Istio's analyses, and what weft itself finds.

Nothing in the resources makes an analysis fail: they are read as they are written, and what cannot be
understood is a finding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from weft.analysis.analyzers import ANALYZERS, Analyzer
from weft.analysis.codes import CODES, RANK
from weft.analysis.compiled import compiled
from weft.analysis.finding import Finding
from weft.analysis.objects import Object, Objects, object_of
from weft.analysis.scene import Found, Scene
from weft.analysis.tree import table, word
from weft.errors import Problem, Severity
from weft.model.envoy_filter import EnvoyFilter
from weft.model.parse import DOUBTFUL, SHAPE, UNKNOWN_KIND, Part, parse, parse_object
from weft.model.resource import Resource
from weft.model.untranslated import findings
from weft.names import ROOT_NAMESPACE
from weft.yaml import load

INVALID: Final = "IST0106"
DUBIOUS: Final = "IST0133"
TWICE: Final = "WEFT0022"
PATCH: Final = "WEFT0105"
FAILED: Final = "IST0001"

SUPPRESS: Final = "galley.istio.io/analyze-suppress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What is analysed together. ``live`` are objects of a running mesh: parts replace those of their names.

    ``problems`` are what was wrong with reading the parts. ``mesh`` and ``networks`` go before what the
    resources say. ``others`` are the parts of other clusters. ``partial``: what the parts refer to may be
    elsewhere; then they are judged by what they show themselves.
    """

    parts: Sequence[Part] = ()
    problems: Sequence[Problem] = ()
    live: Sequence[Mapping[str, Any]] = ()
    others: Mapping[str, Sequence[Part]] | None = None
    namespace: str = "default"
    mesh: Mapping[str, Any] | None = None
    networks: Mapping[str, Any] | None = None
    running: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which findings are wanted. ``suppress`` are (code, origin with ``*``); ``only`` are analyzers."""

    namespace: str = ""
    suppress: Sequence[tuple[str, str]] = ()
    only: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was looked at and found, nothing left out; each finding with the object that it is about."""

    scene: Scene
    resources: tuple[Resource, ...]
    found: tuple[tuple[Finding, Object | None], ...]


def analyze(given: Input, wanted: Filter | None = None) -> tuple[Finding, ...]:
    """All findings, the worst first."""
    wanted = wanted or Filter()
    shown = (finding for finding, about in survey(given, wanted.only).found if _kept(finding, about, wanted))
    return tuple(sorted(dict.fromkeys(shown), key=lambda finding: finding.rank))


def survey(given: Input, only: Collection[str] = ()) -> Survey:
    """Look at everything; ``only`` are names of analyzers."""
    objects = [
        item
        for data in given.live
        if (item := object_of(data, _nowhere, given.namespace, live=True)) is not None
    ]
    written = [(part, object_of(part.data, part.where, given.namespace)) for part in given.parts]
    objects += [item for _, item in written if item is not None]
    said = _settings(objects)
    others = {
        cluster: Objects(
            item
            for part in parts
            if (item := object_of(part.data, part.where, given.namespace, cluster=cluster)) is not None
        )
        for cluster, parts in (given.others or {}).items()
    }
    mesh = given.mesh if given.mesh is not None else said[0]
    networks = given.networks if given.networks is not None else said[1]
    scene = Scene(objects, mesh, networks, others, live=given.running)
    found = list(_run(scene, only, given.partial))
    resources: list[Resource] = []
    if not only or any(name.startswith("schema.") for name in only):
        resources, wrong = _parsed(written, given, only)
        found += wrong
        if not only:
            found += [_of_problem(problem, None) for problem in given.problems]
            found += _twice(scene)
            before = {(finding.code, about, finding.reference) for finding, about in found}
            found += compiled(resources, scene, before, references=not given.partial)
    return Survey(scene=scene, resources=tuple(resources), found=tuple(found))


_Pair = tuple[Finding, Object | None]


def _nowhere(path: object) -> None:
    """An object of a running mesh stands in no file."""


def _run(scene: Scene, only: Collection[str], partial: bool) -> Iterator[_Pair]:
    """What Istio's analyzers find. One that fails is itself a finding."""
    for analyzer in ANALYZERS:
        if partial and analyzer.whole:
            continue
        if analyzer.name in only or (analyzer.usual and not only):
            yield from _attempt(analyzer, scene)


def _attempt(analyzer: Analyzer, scene: Scene) -> Iterator[_Pair]:
    try:
        for found in analyzer.run(scene):
            yield _of_found(found), found.about
    except Exception as error:  # whatever it stumbled over, the other findings are worth having
        message = f"{analyzer.name} failed: {type(error).__name__}: {error}"
        yield Finding(FAILED, Severity.ERROR, message), None


def _of_found(found: Found) -> Finding:
    about = found.about
    where = about.where(found.path)
    level = CODES[found.code].level
    return Finding(found.code, level, found.message, about.origin, where, about.home)


def _parsed(
    written: Iterable[tuple[Part, Object | None]], given: Input, only: Collection[str]
) -> tuple[list[Resource], list[_Pair]]:
    """The resources that weft understands, and what is wrong with the others."""
    resources: list[Resource] = []
    found: list[_Pair] = []
    for data in given.live:
        resource, _ = parse_object(data, None, given.namespace)
        if resource is not None:
            resources.append(resource)
    for part, about in written:
        resource, problems = parse(part, given.namespace)
        if resource is not None:
            resources.append(resource)
            problems = (*problems, *findings(resource, part.where), *_unfit(resource, part))
        asked = about is None or not only or _validator(about) in only
        found += [_of_problem(problem, about) for problem in problems if asked and not _known(problem, about)]
    return resources, found


def _unfit(resource: Resource, part: Part) -> tuple[Problem, ...]:
    if not isinstance(resource, EnvoyFilter):
        return ()
    from weft.analysis.envoy_filters import unfit  # Envoy's messages take a while to load

    return unfit(resource, part.where)


def _validator(about: Object) -> str:
    return f"schema.ValidationAnalyzer.{about.kind.rpartition('/')[2]}"


# What is analysed though weft serves no such kind.
_READ: Final = frozenset({"", "apps", "batch", "apiextensions.k8s.io", "admissionregistration.k8s.io"})


def _known(problem: Problem, about: Object | None) -> bool:
    """A kind that weft does not serve, and analyses nevertheless."""
    group = about.kind.partition("/")[0] if about is not None else None
    return problem.code == UNKNOWN_KIND and problem.severity is not Severity.ERROR and group in _READ


def _of_problem(problem: Problem, about: Object | None) -> _Pair:
    """A problem as a finding; what is wrong with one of Istio's kinds has Istio's code."""
    path = f"{problem.path}: " if problem.path else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    code = problem.code
    if about is not None and about.kind.partition("/")[0].endswith("istio.io") and _is_schema(code):
        code = INVALID if problem.severity is Severity.ERROR else DUBIOUS
    origin = about.origin if about is not None else problem.resource
    space = about.home if about is not None else ""
    message = f"{path}{problem.message}{hint}"
    level = CODES[code].level if code.startswith("IST") and code in CODES else problem.severity
    return Finding(code, level, message, origin, problem.where, space), about


def _is_schema(code: str) -> bool:
    """Of the codes that reading a resource gives: those of its schema and its rules."""
    return SHAPE <= code < UNKNOWN_KIND or code in {DOUBTFUL, PATCH}


def _twice(scene: Scene) -> Iterator[_Pair]:
    for before, after in scene.objects.replaced:
        where = after.where(())
        place = f" at {where.file}:{where.line}" if where is not None else ""
        message = f"it is declared again{place}: that one counts"
        yield _of_found(Found(before, TWICE, message)), before


def _kept(finding: Finding, about: Object | None, wanted: Filter) -> bool:
    if about is not None and about.assumed:
        return False
    if wanted.namespace and finding.namespace not in {"", wanted.namespace}:
        return False
    if about is not None:
        said = about.annotations.get(SUPPRESS, "")
        if said and {"*", finding.code} & {code.strip() for code in said.split(",")}:
            return False
    return not any(
        code in {"*", finding.code} and _globbed(pattern, finding.origin) for code, pattern in wanted.suppress
    )


def _globbed(pattern: str, origin: str) -> bool:
    """``*`` stands for anything. ``Pod *.testing`` is understood as ``Pod testing/*``, as people know it."""
    plain = pattern.replace("[", "[[]").replace("?", "[?]")
    if fnmatchcase(origin, plain):
        return True
    kind, _, name = origin.partition(" ")
    space, slash, short = name.partition("/")
    return bool(slash) and fnmatchcase(f"{kind} {short}.{space}", plain)


def _settings(objects: Iterable[Object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mesh's settings and its networks, as a MeshConfig or Istio's ConfigMap gives them."""
    mesh: dict[str, Any] = {}
    networks: dict[str, Any] = {}
    own: dict[str, Any] | None = None
    for item in objects:
        if item.kind == "weft.dev/MeshConfig" and own is None:
            own = item.spec
        elif item.kind == "/ConfigMap" and item.name == "istio" and item.namespace == ROOT_NAMESPACE:
            mesh = settings_in(word(item.data, "data", "mesh"))
            networks = settings_in(word(item.data, "data", "meshNetworks"))
    return (own if own is not None else mesh), networks


def settings_in(text: str) -> dict[str, Any]:
    """The mapping in a text of YAML; empty when it is none."""
    documents, _ = load(text, "settings")
    return table(documents[0].data) if documents else {}


def worst(found: Iterable[Finding], level: Severity) -> tuple[Finding, ...]:
    """Those that are at least so bad."""
    return tuple(finding for finding in found if RANK[finding.level] <= RANK[level])
