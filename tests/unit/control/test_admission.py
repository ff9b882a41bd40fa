"""What the control plane says of a change before it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from weft.compile.world import World
from weft.control import admission
from weft.control.admission import UNCOMPILABLE, examiner
from weft.control.api.writes import Proposal
from weft.errors import Problem, Severity
from weft.model.parse import parse_object
from weft.model.resource import Key, Resource

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"ports": [{"name": "http", "port": 80}]},
}
ROUTE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
}


def resource(wire: dict[str, Any]) -> Resource:
    found, problems = parse_object(wire)
    assert found is not None, problems
    return found


def put(wire: dict[str, Any]) -> Proposal:
    found = resource(wire)
    return Proposal(key=found.key, resource=found, before=None)


async def examine(world: World, *proposals: Proposal) -> Sequence[Problem]:
    return await examiner(lambda: world)(proposals)


async def test_a_reference_to_nothing_is_a_warning_with_its_place() -> None:
    (problem,) = await examine(World.build(), put(ROUTE))
    assert (problem.code, problem.severity) == ("IST0101", Severity.WARNING)
    assert problem.path == "spec.http[0].route[0].destination.host"
    assert problem.resource == "VirtualService default/reviews"


async def test_what_comes_in_the_same_change_counts() -> None:
    assert not await examine(World.build(), put(ROUTE), put(SERVICE))


async def test_what_goes_in_the_same_change_does_not_count() -> None:
    world = World.build([resource(SERVICE)])
    assert not await examine(world, put(ROUTE))
    gone = Proposal(key=Key("/Service", "default", "reviews"), resource=None, before=None)
    assert [problem.code for problem in await examine(world, put(ROUTE), gone)] == ["IST0101"]


async def test_what_others_have_wrong_is_not_told_again() -> None:
    world = World.build([resource(ROUTE)])
    assert not await examine(world, put({**SERVICE, "metadata": {"name": "other", "namespace": "default"}}))


async def test_a_parent_that_has_no_effect_is_said() -> None:
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": "default"},
        "spec": {"parentRefs": [{"kind": "Service", "group": "", "name": "reviews"}]},
    }
    (problem,) = await examine(World.build(), put(route))
    assert (problem.severity, problem.path) == (Severity.WARNING, "spec.parentRefs[0]")


async def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> tuple[Problem, ...]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(admission, "problems_of", broken)
    (problem,) = await examine(World.build(), put(SERVICE))
    assert (problem.code, problem.severity) == (UNCOMPILABLE, Severity.ERROR)
    assert "nothing was changed" in problem.hint
